"""The command that draws a network while it settles: view."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ep_neuro.cli.app import command
from ep_neuro.cli.console import check_place, emit, log, progress
from ep_neuro.cli.fine_tuned import tell
from ep_neuro.cli.models import open_named
from ep_neuro.cli.options import (
    Code,
    Data,
    Json,
    Root,
    Seed,
    Steps,
    data_name,
    noted_data,
    opt,
    samples,
)
from ep_neuro.errors import ConfigError

if TYPE_CHECKING:
    from compilers.program import Program
    from ep_neuro.report.viewer import SettlingView


@command()
def view(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PROGRAM",
            help="A model as `compile` takes it, which then runs on the reference; or what "
            "`compile` wrote, on its own target.",
        ),
    ],
    data: Data = None,
    limit: Annotated[int, opt("N", "Images to choose from, the first N.", min=1, max=64)] = 8,
    steps: Steps = None,
    code: Code = None,
    out: Annotated[
        Path | None, opt("FILE", "The page; runs/view/NETWORK-CODE.html by default.")
    ] = None,
    data_root: Root = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Write a page on which one sees a network settle, freely and nudged, step by step."""
    import targets
    from ep_neuro.report.viewer import MARKER, write_view
    from targets.experiments.comparison.compare import fit
    from targets.experiments.settling_view import refuse_unseen, settling_view

    if out is not None:
        check_place(out, marker=MARKER)
    program, written = _program(name, code, steps, seed)
    graph, backend = program.graph, targets.get(program)
    place = out or Path("runs") / "view" / f"{graph.name}-{graph.encoding}.html"
    check_place(place, marker=MARKER)
    refuse_unseen(backend)
    asked = data_name(data, graph.provenance)
    split = samples(asked, data_root, limit, graph)
    with targets.open(program) as session, progress("settling") as advance:
        found = settling_view(
            session,
            program,
            fit(split, graph),
            # A model was compiled for these steps; its nudged phases are shorter.
            steps=steps if written else None,
            progress=advance,
        )
    size = write_view(replace(found, images=split.x, facts=_facts(found, program, asked)), place)
    log(f"open {place}")
    phases = {phase.name: phase.steps for phase in found.phases}
    emit({"page": str(place), "bytes": size, "samples": len(split), "steps": phases}, json_)


def _program(name: str, code: str | None, steps: int | None, seed: int) -> "tuple[Program, bool]":
    """What is to be shown, and whether it is a program on disk: a model is compiled here."""
    from compilers import compile as compile_program
    from compilers import load_program
    from compilers.model_options import taken_from
    from compilers.program import MANIFEST

    if (Path(name) / MANIFEST).is_file():
        if code is not None:
            problem = f"the program '{name}' has a code of its own"
            raise ConfigError(f"--code {code}", problem, "drop it, or give the model")
        return load_program(Path(name)), True
    opened = open_named(name, seed)
    tell(taken_from(opened, code=code, steps=steps, bits=None, leak=None))
    notes = noted_data(opened.metadata)
    return compile_program(opened, "reference", code=code, steps=steps, provenance=notes), False


def _facts(found: "SettlingView", program: "Program", data: str) -> dict[str, str]:
    """What ran, in words."""
    graph, right = program.graph, int((found.answers == found.labels).sum())
    return {
        "Target": program.target,
        "Code": f"{graph.encoding}, {'integers' if graph.quantised else 'floating point'}",
        "Data": data,
        "Answered right": f"{right} of {len(found.labels)} images",
        "Steps": ", ".join(f"{phase.name.lower()} {phase.steps}" for phase in found.phases),
        "Neurons": f"{sum(p.size for p in graph.neurons):,}",
    }
