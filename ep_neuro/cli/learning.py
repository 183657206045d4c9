"""What a program does that learns: the command `learn`, and the check of its updates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from ep_neuro.cli.app import command
from ep_neuro.cli.console import (
    check_apart,
    check_place,
    check_unheld,
    emit,
    energy_of,
    lines,
    log,
    progress,
    records,
)
from ep_neuro.cli.options import Data, Json, Limit, Root, data_name, dataset_of, opt
from ep_neuro.cli.program import asks_for_a_file
from ep_neuro.errors import CheckFailed, ConfigError


@command()
def learn(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="What `compile` wrote.")],
    data: Data = None,
    count: Annotated[
        int,
        opt(
            "N",
            "Samples to learn; the training split, shuffled, as often as they need.",
            "--samples",
            min=1,
        ),
    ] = 1000,
    batch: Annotated[int, opt("N", "Samples between changes of the weights.", min=1)] = 1,
    rule: Annotated[
        str | None,
        opt(
            "RULE",
            "contrastive, difference, spike-average, continual or one-sided; the program's own, or "
            "the one of its encoding.",
        ),
    ] = None,
    rate: Annotated[float | None, opt("R", "Learning rate; the program's own by default.")] = None,
    output_rate: Annotated[
        float | None, opt("R", "Learning rate of what comes into the output; --rate by default.")
    ] = None,
    anneal: Annotated[
        float | None,
        opt(
            "SHARE",
            "Let the rate fall to this share of itself by the end; 1 keeps it. By default it is "
            "halved after 1,000, 3,000, 7,000 samples and so on.",
        ),
    ] = None,
    augment: Annotated[
        list[str] | None,
        opt(
            "STEP",
            "Step that each image goes through first: flip, or '{kind: crop, padding: 1}'; any "
            "that a configuration takes, repeatable.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        opt(
            "M",
            "Learn only what is not answered right by so much: what is has hardly an error, and "
            "its spikes would write noise. All is learnt by default.",
        ),
    ] = None,
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--drop",
            help="Whether what the rounding of an integer weight leaves stays in the synapse; if "
            "dropped, rounding is stochastic. As the rule says by default.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of the samples.")] = 0,
    out: Annotated[
        Path | None, opt("DIR", "The learnt program; PROGRAM-learnt by default, its run beside it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is at --out or --model.")
    ] = False,
    model: Annotated[
        Path | None, opt("DIR", "Also bring the weights back into a model there.")
    ] = None,
    limit: Limit = None,
    data_root: Root = None,
    json_: Json = False,
) -> None:
    """Let a program learn on its target, sample by sample; test it before and after."""
    from compilers import load_program
    from compilers.program import MANIFEST
    from ep_neuro.data.datasets import identity
    from ep_neuro.network.checkpoint import SPEC
    from ep_neuro.training.run_directory import check_run_place
    from targets.experiments.onchip import learning, to_network
    from targets.experiments.onchip.plastic import plastic
    from targets.experiments.onchip.run_state import MARKER, beside
    from targets.experiments.onchip.schedule import Plan

    place = out or beside(program, "-learnt")
    folder = _checked_places(place, model)
    check_run_place(folder, MARKER, resume=resume, force=force)
    if not (force or (resume and (folder / MARKER).is_file())):
        check_unheld("--out", place, MANIFEST, "program")
        if model is not None:
            check_unheld("--model", model, SPEC, "model")
    loaded = plastic(
        load_program(program), rule=rule, rate=rate, output_rate=output_rate, keep=keep, log=log
    )
    dataset, part = dataset_of(data, data_root, loaded.graph)
    drawn = _steps(augment or ())
    plan = Plan.of(count, batch=batch, seed=seed, anneal=anneal, augment=drawn, margin=margin)
    test = dataset.split(part).head(limit)
    with progress("learning") as advance:
        learnt = learning.learn(
            loaded,
            dataset,
            plan,
            test=test,
            out=folder,
            resume=resume,
            force=force,
            monitor=advance,
        )
    fields = learning.write(learnt, place)
    if model is not None:
        notes = {**identity(dataset), "test_accuracy": learnt.accuracy_after}
        fields["model"] = str(to_network.write_model(learnt.program, model, **notes))
    emit(fields, json_, lines(energy_of("all samples", fields)))


def _steps(augment: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """The steps of ``--augment``: the name of one, or a mapping in YAML."""
    from ep_neuro.storage.yaml_io import parse_value

    found = []
    for text in augment:
        step = parse_value(text)
        if not isinstance(step, str | dict):
            remedy = "give a name, flip for instance, or '{kind: crop, padding: 1}'"
            raise ConfigError(f"--augment '{text}'", "is no step", remedy)
        found.append({"kind": step} if isinstance(step, str) else step)
    return tuple(found)


SAMPLES = 32
"""Samples of the batch that a program is checked on."""


def is_program(name: str) -> bool:
    """Whether `name` is what `compile` or `learn` wrote."""
    from compilers.program import MANIFEST

    return (Path(name) / MANIFEST).is_file()


def check_program(
    place: Path, data: str | None, root: Path | None, count: int, seed: int, json_: bool
) -> None:
    """The check of a program that learns, on the first samples that `learn` would take."""
    from compilers import load_program
    from ep_neuro.data import datasets
    from targets.experiments.certificate.learning_check import LEAST_COSINE, check_learning
    from targets.experiments.onchip.schedule import Plan

    program = load_program(place)
    name = data_name(data, program.graph.provenance)
    part = datasets.parse(name)[1] or "train"
    split = dataset_of(name, root, program.graph)[0].split(part)
    split = split.at(Plan(count, seed=seed).order(len(split)))
    with progress("computing updates") as advance:
        found = check_learning(program, split, progress=advance)
    fields = found.fields()
    plain = {k: v for k, v in fields.items() if not isinstance(v, list)}
    shown = (
        records([{k: v for k, v in row.items() if k not in hidden} for row in fields[name]])
        for name, hidden in (("couplings", ("lifted", "limit")), ("engine", ("source",)))
    )
    emit(fields, json_, Group(lines(plain), *shown))
    if not found.holds:
        worst, subject = found.worst, f"program '{program.graph.name}', {found.worst.name}"
        problem = f"cosine {worst.cosine:.2f} of its update is not above {LEAST_COSINE}"
        raise CheckFailed(subject, problem, found.remedy)


def _checked_places(place: Path, model: Path | None) -> Path:
    """The run directory of a program that is learnt, after a look at all that will be written."""
    from compilers.program import MANIFEST
    from ep_neuro.network.checkpoint import SPEC
    from targets.experiments.onchip.run_state import MARKER, beside

    folder = beside(place, ".run")
    asks_for_a_file(place, None)
    check_place(place, marker=MANIFEST)
    check_place(folder, marker=MARKER)
    if model is not None:
        check_place(model, marker=SPEC)
        check_apart("--model", model, place, folder)
    return folder
