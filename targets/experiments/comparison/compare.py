"""Side by side: one model settled in torch and on targets, encodings and weight widths."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import targets
from compilers.ir.graph import Graph
from compilers.model_options import inferring
from compilers.program import Program
from ep_neuro.data.datasets import CHANNELS_FIRST, Split, channels_last
from ep_neuro.errors import DataError
from ep_neuro.network.checkpoint import Model, joint_digest
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule
from ep_neuro.results import CostEstimate, LayerError, NeuroBench, TargetRow
from ep_neuro.training.loop import evaluate
from targets.experiments.comparison.choices import Choice, programs, shared_options
from targets.experiments.comparison.layer_errors import departures, equilibrium
from targets.experiments.comparison.neurobench import neurobench
from targets.experiments.comparison.sweep import Sweep, front
from targets.experiments.studies.jobs import Job, Kept, Workers, refuse_lost, run
from targets.interface.protocols import Feature, PhaseResult, RunResult
from targets.interface.session import Session

TORCH = Job("torch", {"target": "torch"})
"""The network in torch, as a job."""

LEARNING_SAMPLES = 16
"""Samples that go through all phases for the estimate of a learning step."""


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

    def agreeing(self, expected: np.ndarray | None) -> Compared:
        """Itself with the share of its answers that are as `expected`, (N,), if any is."""
        if self.program is None or expected is None:
            return self
        agreement = float((self.predictions == expected).mean())
        return replace(self, row=replace(self.row, agreement=agreement))

    def plain(self) -> dict[str, Any]:
        """All but the program, in JSON's types and arrays."""
        return asdict(replace(self, program=None))

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
    steps: int | None = None,
) -> Compared:
    """Run `program` in `session` on a fitting `split`."""
    result = session.settle(split.x, steps=steps, updates=True)
    cost = targets.get(program).estimate(program, result)
    row = TargetRow(
        target=program.target,
        code=program.graph.encoding,
        bits=weight_bits(program),
        steps=program.graph.phases[0].steps if steps is None else steps,
        accuracy=result.accuracy(split.y),
        unsettled=result.unsettled,
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
    workers: Workers | None = None,
    keep: Path | None = None,
    lost: list[str] | None = None,
    log: Callable[[str], None] | None = None,
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
    workers : Workers, optional
        Where the torch network and the programs run, each a job; here, in order, by default.
    keep : Path, optional
        A folder for the rows of each job; what is there already does not run again.
    lost, log
        See `targets.experiments.studies.jobs.run`; the rows of jobs that are lost are left out.

    Raises
    ------
    ConfigError
        If a point of the sweep is fixed elsewhere, no target takes an option, or `keep` holds
        something else.
    RunError
        If the job of the torch network, or without `lost` any other, kills its workers.
    """
    owned = shared_options(choices, target_options or {})
    if isinstance(model, Model):
        network, compiled = model.network, inferring(model)
    else:
        network = compiled = model
    ready = list(programs(compiled, choices, sweep, dict(options or {}), owned))
    known = None
    if layerwise:
        known = equilibrium(network, split, schedule, [p.graph for p, _ in ready])
    kept = None if keep is None else Kept(keep, "comparison", inputs(network, split, schedule))
    jobs = [TORCH, *(job_of(*one, learning, known) for one in ready)]
    expected: np.ndarray | None = None

    def read(job: Job, row: Mapping[str, Any]) -> Compared:
        nonlocal expected
        one = compared_from(job, row)
        expected = one.predictions if job is TORCH else expected
        return one.agreeing(expected)

    found = run(
        compute,
        Shared(network, split, schedule, known),
        jobs,
        workers=workers,
        kept=kept,
        tell=lambda job, row: on_row(read(job, row)) if on_row is not None else None,
        lost=lost,
        log=log,
    )
    if found[0] is None:
        refuse_lost([TORCH.name], keep)
    rows = zip(jobs, found, strict=True)
    return with_front([read(job, row) for job, some in rows for row in some or ()])


# --- as jobs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """What all jobs of a comparison take; `known` are the equilibria to measure departures from."""

    network: Network
    split: Split
    schedule: Schedule
    known: Mapping[str, np.ndarray] | None


def inputs(network: Network, split: Split, schedule: Schedule) -> dict[str, str]:
    """What all jobs of a comparison share, as `Kept` takes it."""
    kind = (str(split.pixels.dtype), split.pixels.shape)
    return {
        "model": Model(network).digest,
        "data": joint_digest(kind, split.pixels.tobytes(), split.y.tobytes()),
        "schedule": schedule.model_dump_json(),
    }


def job_of(
    program: Program,
    lengths: Sequence[int | None],
    learning: bool,
    known: Mapping[str, np.ndarray] | None,
) -> Job:
    """The job that runs `program` for each of `lengths`, the longest first."""
    steps = [program.graph.phases[0].steps if length is None else length for length in lengths]
    parts = (program.target, program.graph.encoding, weight_bits(program))
    facts = {
        "program": program.digest(),
        "steps": steps,
        "learning": learning,
        "layerwise": 0 if known is None else len(known[program.graph.output]),
    }
    name = ":".join(str(part) for part in parts if part)
    return Job(f"{name} in {', '.join(map(str, steps))} steps", facts, (program, lengths, learning))


def compute(
    shared: Shared, job: Job, tell: Callable[[Mapping[str, Any]], None]
) -> list[dict[str, Any]]:
    """The rows of `job` as plain data (`compared_from`), in ascending order of steps."""
    if job.payload is None:
        found = [rate(shared.network, shared.split, shared.schedule)]
        tell(found[0].plain())
        return [found[0].plain()]
    program, lengths, learning = job.payload
    fitted, found = fit(shared.split, program.graph), []
    with targets.open(program) as session:
        for steps in lengths:
            found.append(measure(session, program, fitted, steps))
            tell(found[-1].plain())
        found[0] = _with_learning(found[0], fitted) if learning else found[0]
        return [one.plain() for one in _with_departures(session, found[::-1], fitted, shared.known)]


def compared_from(job: Job, plain: Mapping[str, Any]) -> Compared:
    """The row of `job` that `compute` made `plain`."""
    row, result, cost = plain["row"], plain["result"], plain["cost"]
    bench = row["neurobench"] and NeuroBench(**row["neurobench"])
    phases = result and {name: PhaseResult(**phase) for name, phase in result["phases"].items()}
    return Compared(
        row=TargetRow(**{**row, "neurobench": bench}),
        predictions=plain["predictions"],
        program=job.payload and job.payload[0],
        result=result and RunResult(phases, result["seconds"]),
        cost=cost and CostEstimate(**cost),
        departures=tuple(LayerError(**one) for one in plain["departures"]),
    )


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
    backend = targets.get(one.program)
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
