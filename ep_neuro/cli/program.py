"""Commands about a program: compile, inspect, run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ep_neuro.cli.app import command
from ep_neuro.cli.console import (
    check_place,
    emit,
    lines,
    log,
    progress,
    told_beside,
)
from ep_neuro.cli.fine_tuned import tell
from ep_neuro.cli.models import model_facts, open_named
from ep_neuro.cli.options import (
    Beta,
    Bits,
    Code,
    Data,
    Json,
    Leak,
    Limit,
    MessageFrac,
    ModelName,
    NudgedSteps,
    Option,
    Precision,
    PrintAfter,
    Root,
    Seed,
    StateFrac,
    Steps,
    Target,
    noted_data,
    opt,
    precision_of,
    samples,
)
from ep_neuro.errors import CheckFailed, ConfigError

if TYPE_CHECKING:
    from targets.interface.protocols import Backend


@command()
def compile(
    model: ModelName,
    target: Target,
    code: Code = None,
    bits: Bits = None,
    message_frac: MessageFrac = None,
    state_frac: StateFrac = None,
    steps: Steps = None,
    leak: Leak = None,
    precision: Precision = None,
    nudged_steps: NudgedSteps = None,
    reset: Annotated[
        str | None,
        opt(
            "soft|hard",
            "What a spike takes off the membrane, 1 or all; as the model was fine-tuned, "
            "else soft.",
        ),
    ] = None,
    beta: Beta = None,
    option: Option = None,
    learn: Annotated[
        str | None,
        opt(
            "RULE",
            "Let it learn on the target: contrastive, difference (nudged phases send what differs, "
            "in scales of their own), spike-average, continual or one-sided.",
            "--learn",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        opt(
            "DIR",
            "Program; runs/programs/NETWORK-TARGET-CODE by default. A name that ends in .nir (nir) "
            "or .py (brian2, pynn) makes a file for other tools.",
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
    from compilers import compile as compile_program
    from compilers import save_program
    from compilers.hardware.resources import resources
    from compilers.inspection import StagePrinter
    from compilers.model_options import DEPLOYED, taken_from
    from compilers.options import read_options
    from compilers.program import MANIFEST

    backend = targets.get(target)
    options = read_options(option or ())
    if learn is not None:
        targets.require_learning(backend)
    opened = open_named(model, seed)
    taken = taken_from(opened, code=code, bits=bits, steps=steps, leak=leak)
    tell(taken)
    code = code or taken.get("code", "graded")
    name = f"{opened.network.spec.name}-{backend.name}-{code}"
    parameters: dict[str, object] = {} if reset is None else {"reset": reset}
    parameters |= {} if precision is None else precision_of([code], precision)
    place = out or Path("runs") / "programs" / name
    exports = asks_for_a_file(place, backend)
    check_place(place, marker=backend.marker if exports else MANIFEST)
    printer = StagePrinter(print_after, log)
    program = compile_program(
        opened,
        backend,
        code=code,
        bits=bits,
        steps=steps,
        nudged_steps=nudged_steps,
        leak=leak,
        parameters=parameters or None,
        message_frac=message_frac,
        state_frac=state_frac,
        beta=beta,
        learn=learn,
        options=options,
        provenance=noted_data(opened.metadata),
        observer=printer,
        check=False,
    )
    printer.finish()
    violations = [str(v) for v in backend.check(program.graph)]
    if not violations:
        save = getattr(backend, "export", save_program) if exports else save_program
        save(program, place)
    written = None if violations else str(place)
    fields = {"program": written, **resources(program.graph), DEPLOYED: taken}
    emit({**fields, "violations": violations}, json_)
    if violations:
        count = f"{len(violations)} limit{'s are' if len(violations) > 1 else ' is'} broken"
        raise CheckFailed(f"target '{target}'", count, "follow the remedies of the violations")


@command()
def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Spec, configuration, model, graph, program or NIR file; hub:NAME or zoo:NAME.",
        ),
    ],
    json_: Json = False,
) -> None:
    """Print a spec, model, graph or program; of networks, also the loop gain of each coupling."""
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
        Path | None, opt("FILE", "Write events and states by step to this .npz file.")
    ] = None,
    data_root: Root = None,
    json_: Json = False,
) -> None:
    """Settle inputs on the target that a program was compiled for."""
    import targets
    from compilers import load_program
    from targets.experiments.comparison.compare import fit
    from targets.experiments.comparison.run_record import MARKER, write_trace

    loaded = load_program(program)
    if trace is not None:
        check_place(trace, marker=MARKER)
    split = fit(samples(data, data_root, limit, loaded.graph), loaded.graph)
    with targets.open(loaded) as session, progress("settling") as advance:
        result = session.settle(split.x, steps=steps, progress=advance)
        if trace is not None:
            write_trace(session, loaded.graph, split, trace, steps=steps)
    fields = {
        "accuracy": result.accuracy(split.y),
        "unsettled": result.unsettled,
        "events_per_sample": result.events_per_sample,
        "synops_per_sample": result.synops_per_sample,
        "ms_per_sample": result.seconds * 1e3 / len(split),
        "samples": len(split),
    }
    emit(fields, json_, lines(told_beside(fields)))


def asks_for_a_file(place: Path, backend: "Backend | None") -> bool:
    """Whether the name of `place` asks for the file format of `backend`, which only some have.

    Raises
    ------
    ConfigError
        If it asks for that of another target: a folder of that name would look like such a file.
    """
    import targets

    suffix = place.suffix.lower()
    owners = [owner for owner in targets.backends() if suffix and suffix == owner.suffix]
    if backend in owners:
        return True
    if owners:
        names = " or ".join(owner.name for owner in owners)
        writer = "learn" if backend is None else f"target '{backend.name}'"
        other = "" if backend is None else f", or compile with --target {names}"
        remedy = f"drop {place.suffix} from the name{other}"
        raise ConfigError(f"--out {place}", f"{writer} writes no {suffix} file", remedy)
    return False
