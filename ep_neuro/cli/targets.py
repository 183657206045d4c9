"""Commands over several targets: compare, targets."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ep_neuro.arguments import (
    Data,
    Json,
    Limit,
    ModelName,
    Root,
    Seed,
    Steps,
    data_name,
    open_named,
    samples,
)
from ep_neuro.cli.app import SWEEPS, command
from ep_neuro.console import check_place, emit, log, progress, records, row_printer, table


@command()
def compare(
    model: ModelName,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="TARGET[:CODE[:BITS]]", help="What to run; repeatable."),
    ] = None,
    data: Data = None,
    limit: Limit = None,
    steps: Steps = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html there.")
    ] = None,
    data_root: Root = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Rate against spike, side by side; with --out also a page."""
    from ep_neuro.settle import Schedule
    from targets.workflows.compare import DEFAULT_CHOICES, Choice
    from targets.workflows.compare import compare as run_all

    choices = [Choice.parse(text) for text in with_ or DEFAULT_CHOICES]
    opened = open_named(model, seed)
    if out is not None:
        check_place(out)
    name = data_name(data, opened.metadata)
    split = samples(name, data_root, limit, opened.network.spec)
    with progress("comparing") as advance:
        compared = run_all(
            opened.network,
            split,
            choices,
            schedule=Schedule(sweeps=SWEEPS),
            options={"steps": steps} if steps else {},
            on_row=row_printer(advance, len(choices) + 1),
        )
    fields: dict[str, Any] = {"rows": [c.row.to_dict() for c in compared]}
    if out is not None:
        from targets.workflows.pages import comparison_page

        commands = ["ep-neuro " + shlex.join(sys.argv[1:])]
        fields["report"] = str(comparison_page(opened, split, name, compared, commands, out))
        log(f"open {fields['report']}")
    emit(fields, json_, records(fields["rows"]))


@command(name="targets")
def targets_(json_: Json = False) -> None:
    """What can run here, what is missing and how to get it."""
    import targets
    from targets.base import Feature

    found: list[dict[str, Any]] = []
    for backend in targets.backends():
        state = backend.available()
        found.append(
            {
                "name": backend.name,
                "available": state.available,
                "reason": state.reason,
                "features": [f.value for f in Feature if f not in backend.unsupported],
                "unsupported": {f.value: why for f, why in backend.unsupported.items()},
            }
        )
    rows = [
        (f["name"], "yes" if f["available"] else "no", ", ".join(f["features"]), f["reason"])
        for f in found
    ]
    emit({"targets": found}, json_, table(("target", "available", "features", "reason"), rows))
