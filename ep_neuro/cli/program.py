"""Commands about a program: compile, inspect, run."""

from pathlib import Path
from typing import Annotated

import typer

from ep_neuro.arguments import (
    Bits,
    Code,
    Data,
    Json,
    Leak,
    Limit,
    ModelName,
    PrintAfter,
    Root,
    Seed,
    Steps,
    Target,
    data_name,
    model_facts,
    open_named,
    samples,
)
from ep_neuro.cli.app import command
from ep_neuro.console import check_place, emit, log, progress
from ep_neuro.errors import CheckFailed


@command()
def compile(
    model: ModelName,
    target: Target,
    code: Code = "graded",
    bits: Bits = None,
    steps: Steps = None,
    leak: Leak = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Program; runs/programs/NETWORK-TARGET-CODE by default. "
            "With --target nir, a name that ends in .nir makes a file for other tools.",
        ),
    ] = None,
    print_after: PrintAfter = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Lower a network to a target and report what it takes.

    Exit 1, without a program, if the network breaks a limit of the target; all are listed.
    """
    import targets
    from compilers import compile_network, save_program
    from compilers.inspection import StagePrinter
    from compilers.resources import resources

    backend = targets.get(target)
    opened = open_named(model, seed)
    place = out or Path("runs") / "programs" / f"{opened.network.spec.name}-{target}-{code}"
    # A target with a file format of its own writes that where the name asks for it.
    exports = place.suffix == getattr(backend, "suffix", None)
    check_place(place, directory=not exports)
    printer = StagePrinter(print_after, log)
    program = compile_network(
        opened.network,
        backend,
        code=code,
        bits=bits,
        steps=steps,
        leak=leak,
        provenance={"model.sha256": opened.digest, "data": data_name(None, opened.metadata)},
        observer=printer,
        check=False,
    )
    printer.finish()
    violations = [str(v) for v in backend.check(program.graph)]
    if not violations:
        save = getattr(backend, "export", save_program) if exports else save_program
        save(program, place)
    written = None if violations else str(place)
    emit({"program": written, **resources(program.graph), "violations": violations}, json_)
    if violations:
        count = f"{len(violations)} limit{'s are' if len(violations) > 1 else ' is'} broken"
        raise CheckFailed(f"target '{target}'", count, "follow the remedies of the violations")


@command()
def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Spec, configuration, model, graph or program; or zoo:NAME."
        ),
    ],
    json_: Json = False,
) -> None:
    """Print a spec, model, graph or program."""
    from compilers.inspection import program_facts

    about = program_facts(Path(file)) or model_facts(file)
    emit(about, json_, about.get("graph") or about.get("yaml"))


@command()
def run(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="What `compile` wrote.")],
    data: Data = None,
    limit: Limit = None,
    steps: Steps = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write events and states by step to this .npz file."),
    ] = None,
    data_root: Root = None,
    json_: Json = False,
) -> None:
    """Settle inputs on the target that a program was compiled for."""
    import targets
    from compilers import load_program
    from targets.workflows.compare import fit
    from targets.workflows.trace import write_trace

    loaded = load_program(program)
    if trace is not None:
        check_place(trace, directory=False)
    name = data_name(data, loaded.graph.provenance)
    split = fit(samples(name, data_root, limit, loaded.graph.sources[0].shape), loaded.graph)
    with targets.open(loaded) as session, progress("settling") as advance:
        result = session.settle(split.x, steps=steps, progress=advance)
        if trace is not None:
            write_trace(session, loaded.graph, split, trace, steps=steps)
    fields = {
        "accuracy": float((result.predictions == split.y).mean()),
        "events_per_sample": result.events_per_sample,
        "synops_per_sample": result.synops_per_sample,
        "ms_per_sample": result.seconds * 1e3 / len(split),
        "samples": len(split),
    }
    emit(fields, json_)
