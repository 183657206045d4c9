"""Commands about a network itself: demo, train, evaluate, check, import, export."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ep_neuro.cli.app import SWEEPS, command
from ep_neuro.cli.console import (
    check_page_place,
    check_place,
    check_unheld,
    emit,
    health,
    lines,
    log,
    progress,
    records,
    told_beside,
)
from ep_neuro.cli.learning import SAMPLES, check_program, is_program
from ep_neuro.cli.models import config_in, open_named, spec_like
from ep_neuro.cli.options import (
    Data,
    Json,
    Limit,
    ModelName,
    Root,
    Seed,
    opt,
    samples,
)
from ep_neuro.errors import CheckFailed, ConfigError

Slope = Annotated[
    float | None, opt("S", "Slope of the activation in that code, 1 by default (my_hard_sig: 0.5).")
]

if TYPE_CHECKING:
    from ep_neuro.estimators.gradient_check import CheckResult


@command()
def demo(
    out: Annotated[Path, opt("DIR", "Where results go.", "--out")] = Path("runs/demo"),
    json_: Json = False,
) -> None:
    """Train on digits, compile, run on Lava, compare, learn on a damaged array, report."""
    from targets.experiments.demo import RUN, run_demo

    check_page_place(out, marker=RUN)
    done = run_demo(out, log=log, progress=progress)
    emit(done, json_, records(done["rows"]))
    log(f"{done['seconds']:.0f} s; open {done['report']}")


@command()
def train(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="YAML file, or zoo:NAME for a bundled recipe."),
    ],
    set_: Annotated[list[str] | None, opt("A.B=V", "Override a key; repeatable.", "--set")] = None,
    out: Annotated[
        Path | None,
        opt("DIR", "Run directory; runs/NETWORK-SEED by default, numbered if it is taken."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUT/last.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in OUT.")] = False,
    data_root: Root = None,
    json_: Json = False,
) -> None:
    """Train a network by equilibrium propagation, or by backprop."""
    from ep_neuro.training.config import read_config
    from ep_neuro.training.loop import train as run
    from ep_neuro.training.run_directory import MARKER, default_place

    overrides = [*(set_ or []), *([f"data_root={data_root}"] if data_root else [])]
    chosen = read_config(config, overrides)
    # Under torchrun the first process answers for all.
    leads, place = not int(os.environ.get("RANK", "0")), out
    if place is None:
        wanted = Path("runs") / f"{chosen.spec().name}-{chosen.seed}"
        place = default_place(wanted, resume=resume, force=force)
        if leads and place != wanted:
            log(f"{wanted} is taken; the run is {place}")
    check_place(place, marker=MARKER)
    with progress("training") as advance:

        def monitor(done: int, total: int, latest: dict[str, float]) -> None:
            advance(done, total, health(latest))

        result = run(chosen, place, resume=resume, force=force, monitor=monitor)
    if not leads:
        return
    fields = {
        "model": str(place / "best"),
        "test_accuracy": result.test.accuracy,
        "val_accuracy": result.model.metadata["val_accuracy"],
        "epochs": len(result.history),
        "images_per_second": result.images_per_second,
        "gradient_cosine": result.gradient_cosine,
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
    from ep_neuro.network.stability import calm_schedule
    from ep_neuro.training.loop import evaluate as run

    opened = open_named(model, seed)
    split = samples(data, data_root, limit, opened)
    feedforward = opened.metadata.get("estimator") == "backprop"
    schedule = calm_schedule(opened.network, SWEEPS)
    with progress(f"settling {len(split)} samples"):
        found = run(opened.network, split, schedule, feedforward=feedforward)
    if found.unsettled:
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
    emit(fields, json_, lines(told_beside(fields)))


@command()
def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_PROGRAM",
            help="As for `evaluate`, a training configuration, or a program that learns.",
        ),
    ],
    batch: Annotated[
        int | None,
        opt(
            "N",
            "Samples: 2 random ones for a model, 32 to learn from for a program.",
            "--batch",
            "--samples",
            min=1,
        ),
    ] = None,
    data: Annotated[
        str | None,
        opt("DATA[:SPLIT]", "Of a program: as for `learn`; the training split by default."),
    ] = None,
    data_root: Root = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples, and of fresh weights.")] = 0,
    json_: Json = False,
) -> None:
    """Compare the EP gradient with the exact one; watch the energy; tell each coupling's loop gain.

    The exact gradient is by implicit differentiation, in float64. Exit 1 if the two disagree, the
    energy rises in a sweep, or the network does not settle.

    Of a PROGRAM, compare what it would write for a batch with the exact gradient of its weights,
    coupling by coupling, and tell what limits each. `written` is the cosine of one commit, whose
    rounding to the bits of a weight `commits` such batches average out. Exit 1 if a cosine is not
    above 0.7.
    """
    # Where there is nothing, data tell that a program was meant.
    missing = data is not None and ":" not in model and not Path(model).exists()
    if is_program(model) or missing:
        return check_program(Path(model), data, data_root, batch or SAMPLES, seed, json_)
    if data is not None or data_root is not None:
        option = "--data" if data is not None else "--data-root"
        raise ConfigError(option, "a model is checked on random inputs", f"drop {option}")
    check_model(model, batch or 2, seed, json_)


def check_model(model: str, batch: int, seed: int, json_: bool) -> None:
    """The check of a model or of the network of a configuration."""
    import torch

    from ep_neuro.energy.costs import one_hot
    from ep_neuro.estimators.gradient_check import check_network
    from ep_neuro.network.network import Network
    from ep_neuro.network.stability import loops

    config = config_in(model)
    network = open_named(model, seed).network if config is None else Network(config.spec(), seed)
    spec = network.spec
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((batch, *spec.input.shape), generator=generator)
    labels = torch.randint(spec.classes, (batch,), generator=generator)
    with progress("settling in float64"):
        found = check_network(network, x, one_hot(labels, spec.target_shape, torch.float64))
    fields, around = {**vars(found), "holds": found.holds}, loops(network)
    shown = lines({**fields, "couplings": around})
    emit({**fields, "couplings": [loop.facts() for loop in around]}, json_, shown)
    if not found.holds:
        raise _failed(spec.name, found)


def _failed(name: str, found: "CheckResult") -> CheckFailed:
    """What does not hold of the network called `name`, and what to do about it."""
    from ep_neuro.estimators.gradient_check import LARGEST_DEVIATION, LEAST_COSINE

    subject = f"network '{name}'"
    if found.settled and found.vanishes:
        problem = "both gradients are zero: every output neuron sits at an end of its box, or on "
        problem += "its target, so there is nothing to compare"
        remedy = "check other samples (--seed, --batch) or other weights, or widen the box"
        return CheckFailed(subject, problem, remedy)
    limits = f"cosine {LEAST_COSINE}, no rise, {LARGEST_DEVIATION} from finite differences"
    problem = f"{', '.join(found.faults)} (limits: {limits})"
    remedy = "scale the weights down" + ("" if found.settled else " until the network settles")
    return CheckFailed(subject, problem, remedy)


@command(name="import")
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Checkpoint of published code (torch.save).")
    ],
    like: Annotated[
        str,
        opt(
            "NETWORK",
            "The network that was saved: a name of the zoo, a spec or configuration in YAML, or a "
            "model.",
        ),
    ],
    out: Annotated[Path, opt("DIR", "The model.")],
    average_biases: Annotated[
        bool,
        typer.Option("--average-biases", help="Average biases that differ within a channel."),
    ] = False,
    slope: Slope = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model in OUT.")] = False,
    json_: Json = False,
) -> None:
    """Make a model of a checkpoint that the published code, or that of Laborieux, saved."""
    from ep_neuro.network.checkpoint import SPEC, Model, save_model
    from ep_neuro.network.published_files import import_published

    check_place(out, marker=SPEC)
    if not force:
        check_unheld("--out", out, SPEC, "model")
    found = import_published(file, spec_like(like), average_biases=average_biases, slope=slope)
    # A model is read in float32, and its digest is to be that of what is read.
    model = Model(found.network.float(), found.metadata)
    spec = model.network.spec
    fields = {"model": str(save_model(model, out)), "network": spec.name}
    emit({**fields, "parameters": spec.parameters}, json_)


@command()
def export(
    model: ModelName,
    out: Annotated[Path, opt("FILE", "The file of torch.save.")],
    layout: Annotated[
        str, opt("published|laborieux", "A list of tensors, biases first, or a state dict.", "--as")
    ] = "published",
    slope: Slope = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file OUT.")] = False,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Write a model as a checkpoint that published code reads."""
    from ep_neuro.network.published_files import export_published

    opened = open_named(model, seed)
    file = export_published(opened, out, layout=layout, slope=slope, force=force)
    emit({"file": str(file), "parameters": opened.network.spec.parameters}, json_)
