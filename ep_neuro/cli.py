"""The command line: thin commands over the library; the only file that looks up, and lazily."""

import functools
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ep_neuro._shadow import check_packages
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
    config_in,
    data_name,
    model_facts,
    open_named,
    samples,
)
from ep_neuro.console import (
    check_place,
    emit,
    exit_code,
    health,
    log,
    own_stdout,
    plain_warnings,
    progress,
    records,
    row_printer,
    table,
)
from ep_neuro.errors import CheckFailed

app = typer.Typer(
    name="ep-neuro",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Energy-based networks, from equilibrium propagation to neuromorphic hardware.",
    epilog="Exit 0: done; 1: a check or a limit did not hold; 2: wrong usage, config or file.",
)


class _Command(TyperCommand):
    """A command whose answer is alone on stdout, whatever the libraries below print."""

    def invoke(self, ctx: Any) -> Any:
        with own_stdout():
            return super().invoke(ctx)


command = functools.partial(app.command, cls=_Command)

SWEEPS = 300
"""Most sweeps that `evaluate` and `compare` grant a batch; settled ones stop by themselves."""


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; any command takes it.")
    ] = False,
) -> None:
    """Options of every command."""


@command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go.")] = Path(
        "runs/demo"
    ),
    json_: Json = False,
) -> None:
    """Train on digits, compile, run on Lava, compare, report."""
    from targets.workflows.demo import run_demo

    check_place(out)
    done = run_demo(out, log=log, progress=progress)
    emit(done, json_, records(done["rows"]))
    log(f"{done['seconds']:.0f} s; open {done['report']}")


@command()
def train(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="YAML file, or zoo:NAME for a bundled recipe."),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Override a key; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run directory; runs/NETWORK-SEED by default."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT/last.")] = False,
    data_root: Root = None,
    json_: Json = False,
) -> None:
    """Train a network by equilibrium propagation, or by backprop."""
    from ep_neuro.config import read_config
    from ep_neuro.training import train as run

    overrides = [*(set_ or []), *([f"data_root={data_root}"] if data_root else [])]
    chosen = read_config(config, overrides)
    place = out or Path("runs") / f"{chosen.spec().name}-{chosen.seed}"
    check_place(place)
    with progress("training") as advance:

        def monitor(done: int, total: int, latest: dict[str, float]) -> None:
            advance(done, total, health(latest))

        result = run(chosen, place, resume=resume, monitor=monitor)
    if int(os.environ.get("RANK", "0")):
        return  # Under torchrun the first process answers for all.
    fields = {
        "model": str(place / "best"),
        "test_accuracy": result.test.accuracy,
        "val_accuracy": result.model.metadata["val_accuracy"],
        "epochs": len(result.history),
        "images_per_second": result.images_per_second,
    }
    emit(fields, json_)


@command()
def evaluate(
    model: ModelName,
    data: Data = None,
    limit: Limit = None,
    data_root: Root = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Settle a network freely and report its accuracy and residual."""
    from ep_neuro.settle import Schedule
    from ep_neuro.training import evaluate as run

    opened = open_named(model, seed)
    split = samples(data_name(data, opened.metadata), data_root, limit, opened.network.spec)
    feedforward = opened.metadata.get("estimator") == "backprop"
    schedule = Schedule(sweeps=SWEEPS)
    with progress(f"settling {len(split)} samples"):
        found = run(opened.network, split, schedule, feedforward=feedforward)
    # Also true of a residual that is no number, which compares with nothing.
    if not found.residual <= schedule.tolerance:
        log(
            f"warning: {found.unsettled:.1%} of the samples did not settle in {SWEEPS} sweeps "
            f"(largest residual {found.residual:.2g}); scale the weights down"
        )
    fields = {
        "accuracy": found.accuracy,
        "residual": found.residual,
        "sweeps": found.sweeps,
        "unsettled": found.unsettled,
        "samples": len(split),
    }
    emit(fields, json_)


@command()
def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_CONFIG", help="As for `evaluate`, or a training configuration."
        ),
    ],
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Random samples.")] = 2,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Compare the EP gradient with the exact one; watch the energy.

    The exact gradient is by implicit differentiation, in float64. Exit 1 if the two disagree, the
    energy rises in a sweep, or the network does not settle.
    """
    import torch

    from ep_neuro.costs import one_hot
    from ep_neuro.network import Network
    from ep_neuro.verify import check_network

    config = config_in(model)
    network = open_named(model, seed).network if config is None else Network(config.spec(), seed)
    spec = network.spec
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((batch, *spec.input.shape), generator=generator)
    labels = torch.randint(spec.classes, (batch,), generator=generator)
    with progress("settling in float64"):
        found = check_network(network, x, one_hot(labels, spec.target_shape, torch.float64))
    emit({**vars(found), "holds": found.holds}, json_)
    if not found.holds:
        deviation = found.finite_difference or 0.0
        claims = (
            (found.settled, found.message.partition(":")[0]),
            (found.gradient_cosine > 0.9999, f"gradient cosine {found.gradient_cosine:.6f}"),
            (found.energy_rises == 0, f"{found.energy_rises} rises of the energy"),
            (deviation < 1e-3, f"{deviation:.2g} from finite differences"),
        )
        raise CheckFailed(
            f"network '{spec.name}'",
            ", ".join(text for holds, text in claims if not holds)
            + " (limits: cosine 0.9999, no rise, 0.001 from finite differences)",
            "scale the weights down until the network settles",
        )


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


def main() -> None:
    """Run the command line; errors become one line on stderr and the exit code."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]

    def work() -> Any:
        check_packages()
        with plain_warnings():
            return app(arguments or ["--help"], standalone_mode=False, prog_name="ep-neuro")

    sys.exit(exit_code(work, debug="--debug" in sys.argv[1:]))
