"""Side by side: one model settled in torch and on targets, encodings and weight widths."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import targets
from compilers import compile_network
from compilers.ir.graph import ENCODINGS, Graph
from compilers.model_options import inferring
from compilers.options import declared, refuse_unknown
from compilers.program import Program
from ep_neuro.data.datasets import CHANNELS_FIRST, Split, channels_last
from ep_neuro.errors import ConfigError, DataError
from ep_neuro.network.checkpoint import Model
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule
from ep_neuro.results import CostEstimate, LayerError, TargetRow
from ep_neuro.training.loop import evaluate
from targets.experiments.comparison.layer_errors import departures, equilibrium
from targets.experiments.comparison.neurobench import neurobench
from targets.experiments.comparison.sweep import FLOAT, Sweep, front
from targets.interface.protocols import Feature, RunResult
from targets.interface.session import Session

DEFAULT_CHOICES = ("reference:graded", "lava:graded", "lava:sigma-delta", "lava:spike")
"""What `compare` runs beside the torch network unless told otherwise, where Lava is here."""

LEARNING_SAMPLES = 16
"""Samples that go through all phases for the estimate of a learning step."""


def default_choices(log: Callable[[str], None]) -> tuple[str, ...]:
    """`DEFAULT_CHOICES`; without Lava, whose events and answers it has, the reference alone."""
    if targets.or_reference("lava", log) == "lava":
        return DEFAULT_CHOICES
    return tuple(f"reference:{code}" for code in ENCODINGS)


@dataclass(frozen=True)
class Choice:
    """A target, an encoding and a weight width: ``lava:sigma-delta:8``."""

    target: str
    code: str = "graded"
    bits: int | None = None

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``target[:code[:bits]]``; `ConfigError` or `TargetError` names what is wrong."""
        subject = f"--with {text}"
        parts = text.split(":")
        if len(parts) > 3:
            raise ConfigError(subject, "has too many parts", "write target[:code[:bits]]")
        target, code, bits = (*parts, "", "")[:3]
        targets.get(target)
        if code and code not in ENCODINGS:
            raise ConfigError(
                subject, f"encoding '{code}' does not exist", f"choose from {', '.join(ENCODINGS)}"
            )
        if bits and bits != FLOAT and not bits.isdigit():
            raise ConfigError(subject, f"'{bits}' bits", "give a number, 8 for instance, or float")
        return cls(target, code or "graded", int(bits) if bits.isdigit() else None)

    def compile(self, network: Network, **options: Any) -> Program:
        """Compile `network` for this choice."""
        backend = targets.get(self.target)
        return compile_network(network, backend, code=self.code, bits=self.bits, **options)


@dataclass(frozen=True)
class Compared:
    """A row, and the run behind it (None for torch).

    ``cost`` is what `row` is estimated to cost on hardware, with a learning step if that was asked
    for; ``departures`` are there with ``layerwise``, by population in order of depth.
    """

    row: TargetRow
    predictions: np.ndarray
    program: Program | None = None
    result: RunResult | None = None
    cost: CostEstimate | None = None
    departures: tuple[LayerError, ...] = ()

    def layers(self) -> list[dict[str, Any]]:
        """The departures as plain data, each with what names the row."""
        return [{**self.names(), **one.to_dict()} for one in self.departures]

    def layer_row(self) -> dict[str, Any]:
        """What names the row, and the relative departure of each population at the end."""
        ends = {one.population: float(one.rms[-1]) for one in self.departures}
        return {**self.names(), **ends}

    def names(self) -> dict[str, Any]:
        """What tells the row from the others, as plain data."""
        return {name: getattr(self.row, name) for name in ("target", "code", "bits", "steps")}


def fit(split: Split, graph: Graph) -> Split:
    """`split` in the input shape of `graph`; `DataError` if it cannot be."""
    (source,) = graph.sources
    has = split.pixels.shape[1:]
    last = channels_last(has, source.shape)
    if int(np.prod(has)) != source.size or last:
        raise DataError(
            f"data for '{graph.name}'",
            f"samples are {list(has)}, the program takes {list(source.shape)}",
            CHANNELS_FIRST if last else "choose the data that the network was made for",
        )
    classes = graph.population(graph.output).size
    if split.y.max() >= classes:
        problem = f"labels up to {split.y.max()}, and the program has {classes} outputs"
        remedy = "count the classes from 0, or choose the data that the network was made for"
        raise DataError(f"data for '{graph.name}'", problem, remedy)
    return Split(split.pixels.reshape(-1, *source.shape), split.y)


def rate(network: Network, split: Split, schedule: Schedule) -> Compared:
    """The torch network: the reference line of every comparison."""
    started = time.perf_counter()
    found = evaluate(network, split, schedule)
    spent = (time.perf_counter() - started) * 1e3 / len(split)
    row = TargetRow(
        target="torch",
        code="rate",
        accuracy=found.accuracy,
        agreement=1.0,
        unsettled=found.unsettled,
        ms_per_sample=spent,
    )
    return Compared(row, found.outputs.argmax(1))


def measure(
    session: Session,
    program: Program,
    split: Split,
    expected: np.ndarray,
    steps: int | None = None,
) -> Compared:
    """Run `program` in `session` on a fitting `split`; compare its answers with `expected`."""
    result = session.settle(split.x, steps=steps, updates=True)
    cost = targets.get(program.target).estimate(program, result)
    row = TargetRow(
        target=program.target,
        code=program.graph.encoding,
        bits=weight_bits(program),
        steps=program.graph.phases[0].steps if steps is None else steps,
        accuracy=result.accuracy(split.y),
        unsettled=result.unsettled,
        agreement=float((result.predictions == expected).mean()),
        events=result.events_per_sample,
        synops=result.synops_per_sample,
        energy_joule=cost.energy_joule,
        ms_per_sample=result.seconds * 1e3 / len(split),
        neurobench=neurobench(program.graph, result, split.x),
    )
    return Compared(row, result.predictions, program, result, cost)


def compare(
    model: Model | Network,
    split: Split,
    choices: Sequence[Choice],
    *,
    schedule: Schedule,
    options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    sweep: Sweep = Sweep(),  # noqa: B008 - frozen
    layerwise: bool = False,
    learning: bool = False,
    on_row: Callable[[Compared], None] | None = None,
) -> list[Compared]:
    """Torch first, then each of `choices`, at each point of `sweep`.

    Parameters
    ----------
    model, split, choices
        What to run on which samples, and where. The choices say all of the encoding and the bits;
        of a model they take the boxes drawn tight round its states.
    schedule : Schedule
        Settles the torch network.
    options : mapping, optional
        Keywords of `compilers.compile_network`.
    target_options : mapping, optional
        Options of the backends; each goes to the targets that take it.
    sweep : Sweep
        What to vary.
    layerwise : bool
        Measure how far every population is from its equilibrium in floating point.
    learning : bool
        Estimate a learning step too, from some samples that go through all phases.
    on_row : callable, optional
        Called with each result as it comes; the Pareto front is known only at the end.

    Raises
    ------
    ConfigError
        If a point of the sweep is fixed elsewhere, or no target takes an option.
    """
    owned = shared_options(choices, target_options or {})
    if isinstance(model, Model):
        network, compiled = model.network, inferring(model)
    else:
        network = compiled = model
    programs = list(_programs(compiled, choices, sweep, dict(options or {}), owned))

    def told(one: Compared) -> Compared:
        if on_row is not None:
            on_row(one)
        return one

    known = None
    compared = [told(rate(network, split, schedule))]
    if layerwise:
        known = equilibrium(network, split, schedule, [p.graph for p, _ in programs])
    expected = compared[0].predictions
    for program, lengths in programs:
        fitted = fit(split, program.graph)
        with targets.open(program) as session:
            found = [told(measure(session, program, fitted, expected, t)) for t in lengths]
            found[0] = _with_learning(found[0], fitted) if learning else found[0]
            compared += _with_departures(session, found[::-1], fitted, known)
    return with_front(compared)


def _programs(
    network: Network,
    choices: Sequence[Choice],
    sweep: Sweep,
    given: dict[str, Any],
    owned: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Program, Sequence[int | None]]]:
    """Each program, and the lengths of its free phase to run, the longest first.

    Targets may have to start again for a longer run. Thresholds of sigma-delta fall over the
    length that they are compiled for, so each length is a program of its own.
    """
    longest = sweep.compiled_steps(given.pop("steps", None))
    for choice in sweep.over_bits(choices):
        lengths: list[Sequence[int | None]] = [sweep.steps[::-1] or (None,)]
        if choice.code == "sigma-delta" and sweep.steps:
            lengths = [(steps,) for steps in sweep.steps]
        for several in lengths:
            steps = several[0] or longest
            options = dict(owned[choice.target])
            yield choice.compile(network, options=options, steps=steps, **given), several


def shared_options(
    choices: Sequence[Choice], given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Of each target in `choices` those of the options `given` that it takes.

    Raises
    ------
    ConfigError
        If one of them is taken by no target.
    """
    takes = {c.target: declared(targets.get(c.target)) or {} for c in choices}
    known = list(dict.fromkeys(name for options in takes.values() for name in options))
    refuse_unknown(f"with {', '.join(takes)}, a comparison", given, known)
    return {
        target: {name: value for name, value in given.items() if name in options}
        for target, options in takes.items()
    }


def with_front(compared: Sequence[Compared]) -> list[Compared]:
    """`compared` with the Pareto front of accuracy and synaptic operations marked."""
    rows = [c.row for c in compared]
    best = front([row.accuracy for row in rows], [row.synops for row in rows])
    return [
        replace(c, row=replace(c.row, pareto=on_front))
        for c, on_front in zip(compared, best, strict=True)
    ]


def on_reference(program: Program) -> Program:
    """The same graph for the reference, whose states equal the target's, without its start-up."""
    return targets.get("reference").emit(program.graph)


def _with_learning(one: Compared, split: Split) -> Compared:
    """`one` with the estimate of a learning step, where its target runs nudged phases."""
    assert one.program is not None
    assert one.cost is not None
    backend = targets.get(one.program.target)
    if Feature.NUDGED_PHASE in backend.unsupported or len(one.program.graph.phases) < 2:
        return one
    some = split.head(LEARNING_SAMPLES)
    with targets.open(on_reference(one.program)) as session:
        step = backend.estimate(one.program, session.settle(some.x, some.y))
    return replace(one, cost=replace(one.cost, learning_joule=step.learning_joule))


def _with_departures(
    session: Session,
    found: Sequence[Compared],
    split: Split,
    known: Mapping[str, np.ndarray] | None,
) -> Iterator[Compared]:
    """`found`, runs of one program, with departures: those of the longest, up to their own end.

    A shorter run of one program is the beginning of a longer one.
    """
    if known is None:
        yield from found
        return
    program = found[0].program
    assert program is not None
    longest = departures(session, program.graph, known, split.x)
    for one in found:
        assert one.row.steps is not None
        until = tuple(d.until(one.row.steps) for d in longest)
        yield replace(one, departures=until)


def weight_bits(program: Program) -> int | None:
    """Bits of a weight, or None in floating point."""
    noted = program.graph.provenance.get("bits")
    return int(noted) if noted else None
