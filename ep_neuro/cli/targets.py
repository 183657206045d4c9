"""Commands over several targets: compare, targets."""

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from ep_neuro.cli.app import SWEEPS, command
from ep_neuro.cli.console import (
    check_apart,
    check_page_place,
    check_place,
    emit,
    energy_of,
    log,
    progress,
    records,
    row_printer,
    table,
)
from ep_neuro.cli.fine_tuned import completed_choices
from ep_neuro.cli.models import open_named
from ep_neuro.cli.options import (
    Dask,
    Data,
    Jobs,
    Json,
    Keep,
    Layerwise,
    Limit,
    ModelName,
    Option,
    Precision,
    Root,
    Seed,
    Steps,
    Sweep,
    data_name,
    opt,
    precision_of,
    samples,
)
from ep_neuro.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from ep_neuro.data.datasets import Split
    from ep_neuro.network.network import Network

BENCH = "neurobench"
"""The field of a row that has fields of its own."""

HEADS = {
    "footprint": "bytes",
    "connection_sparsity": "zero weights",
    "activation_sparsity": "zero messages",
    "effective_macs": "MACs",
    "effective_acs": "ACs",
    "dense": "dense",
    "membrane_updates": "updates",
}
"""What a terminal calls those fields."""

RESTED = 64
"""Samples whose equilibria `compare` looks at."""


def at_rest(network: "Network", split: "Split") -> dict[str, float]:
    """What the spectrum says of the equilibria of some samples; warns of bifurcations."""
    import torch

    from ep_neuro.network.stability import BIFURCATION, calm_schedule, near_bifurcation

    x = torch.from_numpy(split.head(RESTED).x)
    share, largest = near_bifurcation(network, x, calm_schedule(network, SWEEPS))
    if share:
        log(
            f"warning: {share:.0%} of {len(x)} samples settle near a bifurcation (eigenvalues up "
            f"to {largest:.2f}, limit {BIFURCATION}), where roundings grow; train with a smaller "
            "gain or more weight decay"
        )
    return {"near_bifurcation": share, "largest_eigenvalue": largest}


def side_by_side(ours: list[dict[str, Any]], harness: list[dict[str, Any]]) -> "Table":
    """NeuroBench's figures of rows, those of its harness below our own."""
    found = []
    for row in ours:
        names = {name: row[name] for name in row if name != BENCH}
        theirs = [h for h in harness if {**h, BENCH: None} == {**row, BENCH: None}]
        for by, one in (("ep-neuro", row), *(("harness", h) for h in theirs)):
            if one[BENCH] is not None:
                found.append({**names, "by": by, **{HEADS[k]: one[BENCH][k] for k in HEADS}})
    drawn = records(found)
    drawn.title = "NeuroBench's figures of a sample"
    return drawn


@command()
def compare(
    model: ModelName,
    with_: Annotated[
        list[str] | None, opt("TARGET[:CODE[:BITS]]", "What to run; repeatable.", "--with")
    ] = None,
    data: Data = None,
    limit: Limit = None,
    steps: Steps = None,
    sweep: Sweep = None,
    precision: Precision = None,
    layerwise: Layerwise = False,
    option: Option = None,
    neurobench: Annotated[
        bool,
        typer.Option("--neurobench", help="Also NeuroBench's figures, and those of its harness."),
    ] = False,
    out: Annotated[Path | None, opt("DIR", "Write report.html and figures there.")] = None,
    data_root: Root = None,
    seed: Seed = 0,
    jobs: Jobs = None,
    dask: Dask = None,
    keep: Keep = None,
    json_: Json = False,
) -> None:
    """Rate against spike, side by side; with --out also a page."""
    from compilers.model_options import DEPLOYED
    from compilers.options import read_options
    from ep_neuro.network.stability import calm_schedule
    from ep_neuro.training.metrics import truth_beside
    from targets.experiments.comparison.choices import Choice, default_choices
    from targets.experiments.comparison.compare import compare as run_all
    from targets.experiments.comparison.sweep import Sweep as Points
    from targets.experiments.studies.jobs import MANIFEST, Workers, refuse_lost

    workers, lost = Workers(jobs, dask), list[str]()
    for text in with_ or ():
        Choice.parse(text)
    if neurobench and find_spec("neurobench") is None:
        how = "`pip install 'ep-neuro[neurobench]'`, or drop the option: --json has ours"
        raise ConfigError("--neurobench", "NeuroBench is not installed", how)
    points, options = Points.parse(sweep or ()), read_options(option or ())
    opened = open_named(model, seed)
    truth = None
    if out is not None:
        from targets.experiments.comparison.report_page import REPORT

        check_page_place(out, marker=REPORT)
        truth = truth_beside(model)
    if keep is not None:
        check_place(keep, marker=MANIFEST)
        if out is not None:
            check_apart("--keep", keep, out)
    texts = with_ or default_choices(log)
    texts, steps, taken = completed_choices(opened, texts, steps, points.axes)
    choices = [Choice.parse(text) for text in texts]
    asked: dict[str, Any] = {"steps": steps}
    if precision is not None:
        asked["parameters"] = precision_of([c.code for c in choices], precision)
    name = data_name(data, opened.metadata)
    split = samples(name, data_root, limit, opened)
    with progress("comparing") as advance:
        compared = run_all(
            opened,
            split,
            choices,
            schedule=calm_schedule(opened.network, SWEEPS),
            options=asked,
            target_options=options,
            sweep=points,
            layerwise=layerwise,
            learning=out is not None,
            on_row=row_printer(advance, len(choices) * points.points + 1),
            workers=workers,
            keep=keep,
            lost=lost,
            log=log,
        )
    fields: dict[str, Any] = {"rows": [c.row.to_dict() for c in compared], DEPLOYED: taken}
    fields |= at_rest(opened.network, split)
    shown = [records([energy_of("a sample", row) for row in fields["rows"]])]
    if neurobench:
        from targets.experiments.comparison.harness import by_harness

        fields["harness"] = by_harness(compared, split)
        shown.append(
            side_by_side(
                [c.names() | {BENCH: c.row.to_dict()[BENCH]} for c in compared], fields["harness"]
            )
        )
    if layerwise:
        fields["layerwise"] = [layer for c in compared for layer in c.layers()]
        layers = records([c.layer_row() for c in compared if c.departures])
        layers.title = "Departure from the equilibrium in floating point, relative rms"
        shown.append(layers)
    if out is not None:
        from targets.experiments.comparison.report_page import comparison_page

        commands = ["ep-neuro " + shlex.join(sys.argv[1:])]
        page = comparison_page(
            opened, split, name, compared, commands, out, truth=truth, sweeps=points.axes
        )
        fields["report"] = str(page)
        log(f"open {fields['report']}")
    emit(fields, json_, Group(*shown))
    refuse_lost(lost, keep)


@command(name="targets")
def targets_(json_: Json = False) -> None:
    """What can run here, what is missing and how to get it."""
    found = target_states()
    rows = [
        (f["name"], "yes" if f["available"] else "no", ", ".join(f["features"]), f["reason"])
        for f in found
    ]
    emit({"targets": found}, json_, table(("target", "available", "features", "reason"), rows))


def target_states() -> list[dict[str, Any]]:
    """Each target: whether it runs here, why not and how it would, what it can and cannot do."""
    import targets
    from targets.interface.protocols import Feature

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
    return found
