"""Runs the phases of a graph on one batch of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from compilers.ir import Graph, Phase, Population, Projection, SigmaDelta, Spiking
from targets.base import PhaseResult
from targets.inputs import Job
from targets.records import require_finite, synapses_of
from targets.reference.arithmetic import Arithmetic, Floating, Integer
from targets.reference.convolution import Convolver
from targets.reference.dynamics import State, advance, at_rest, blank


@dataclass(frozen=True)
class Moment:
    """Everything that a later phase needs in order to start from here.

    Attributes
    ----------
    t : int
        Steps made since rest.
    states : dict of State
        By population.
    flight : tuple of dict
        Messages of the last steps by population, the newest first, as far back as the longest
        delay; a missing message is zero.
    sums : dict of ndarray
        Operator results of all messages so far, by projection from a sigma-delta population.
    """

    t: int
    states: Mapping[str, State]
    flight: tuple[Mapping[str, np.ndarray], ...]
    sums: Mapping[str, np.ndarray]


SMALL = 512
"""Messages so few that delivering zeros costs no more than looking for others."""


class Engine:
    """A graph made ready: weights in float64, fan-outs counted; `load` changes what it computes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.numbers: Arithmetic = Integer() if graph.quantised else Floating()
        self.shapes = {p.name: p.shape for p in graph.populations}
        self.weights: dict[str, np.ndarray] = {}
        for p in graph.projections:
            if p.weight not in self.weights:
                self.weights[p.weight] = self.numbers.weight(p, graph.arrays)
        self.biases = {p.name: graph.arrays[p.bias] for p in graph.neurons if p.bias is not None}
        self.fanouts = {p.name: synapses_of(graph, p) for p in graph.populations}
        self._adding = {p.name for p in graph.neurons if isinstance(p.dynamics, SigmaDelta)}
        self._neurons, self._output = graph.neurons, graph.population(graph.output)
        names = {p.name for p in graph.sources}
        self.recurrent = [p for p in graph.projections if p.pre not in names]
        self.feedforward = [p for p in graph.projections if p.pre in names]
        self._operators = Convolver(integers=graph.quantised)
        self.depth = max((p.delay for p in self.recurrent), default=1)

    def load(self, weights: Mapping[str, np.ndarray], biases: Mapping[str, np.ndarray]) -> None:
        """Go on with other `weights` by id (float64, shifted) and `biases` by population."""
        self.weights.update(weights)
        self.biases.update(biases)

    def run(self, job: Job) -> dict[str, PhaseResult]:
        """All phases of `job`, from rest, as one batch."""
        self.numbers.saturations.clear()
        (source,) = self.graph.sources
        x = self.numbers.message(source, job.x)
        constant = self.constant_drive(x)
        ends: dict[str | None, Moment] = {None: self.rest(len(x))}
        results: dict[str, PhaseResult] = {}
        for phase in job.phases:
            before = dict(self.numbers.saturations)
            recorder = _Recorder(self, job, phase)
            if not results:
                recorder.input_event(source, x)
            moment = ends[phase.start]
            # A network that diverges is reported once, as an error; not by NumPy, at every step.
            with np.errstate(over="ignore", invalid="ignore"):
                for _ in range(phase.steps):
                    moment = self.step(moment, constant, phase, job.y)
                    recorder.record(moment)
            ends[phase.name] = moment
            results[phase.name] = recorder.result(moment, before if results else {})
        return results

    def rest(self, samples: int) -> Moment:
        """The moment before the first step."""
        states = {p.name: at_rest(self.numbers, p, samples) for p in self.graph.neurons}
        return Moment(t=0, states=states, flight=({},) * self.depth, sums={})

    def step(
        self,
        before: Moment,
        constant: Mapping[str, np.ndarray],
        phase: Phase,
        y: np.ndarray | None,
    ) -> Moment:
        """The moment after one step of `phase`, under the `constant` drive of input and bias."""
        sums = self._deliver(before)
        drives = dict(constant)
        for p in self.recurrent:
            if p.name in sums:
                drive = drives[p.post]
                gained = self.numbers.gain(p, sums[p.name])
                # In the layout of the first; a sum of two layouts is slow from then on.
                drives[p.post] = np.add(drive, gained, out=np.empty_like(drive))
        if phase.nudge and y is not None:
            output = self._output
            nudge = self.numbers.nudge(output, phase.nudge, y, before.states[output.name].z)
            drives[output.name] = drives[output.name] + nudge
        states = {
            p.name: advance(
                p.dynamics, self.numbers, p, before.states[p.name], drives[p.name], before.t + 1
            )
            for p in self._neurons
        }
        messages = {name: state.message for name, state in states.items()}
        flight = (messages, *before.flight[:-1])
        return Moment(t=before.t + 1, states=states, flight=flight, sums=sums)

    def _deliver(self, before: Moment) -> dict[str, np.ndarray]:
        """Operator results of what arrives now; messages that are all zero cost nothing."""
        sums: dict[str, np.ndarray] = {}
        for p in self.recurrent:
            total = before.sums.get(p.name) if p.pre in self._adding else None
            message = before.flight[p.delay - 1].get(p.pre)
            if message is not None and (message.size < SMALL or _speaks(message)):
                fresh = self._apply(p, message)
                total = fresh if total is None else total + fresh
            if total is not None:
                sums[p.name] = total
        return sums

    def constant_drive(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """What bias and input messages `x` drive each population with at every step."""
        drives = {p.name: self._bias(p, len(x)) for p in self.graph.neurons}
        for p in self.feedforward:
            drives[p.post] = drives[p.post] + self.numbers.gain(p, self._apply(p, x))
        return drives

    def _bias(self, population: Population, samples: int) -> np.ndarray:
        drive = blank(samples, population.shape, self.numbers.dtype)
        bias = self.biases.get(population.name)
        return drive if bias is None else np.add(drive, bias, out=drive)

    def _apply(self, p: Projection, message: np.ndarray) -> np.ndarray:
        weight, post = self.weights[p.weight], self.shapes[p.post]
        return self._operators.apply(p.operator, p.weight, weight, message, post)


def _speaks(message: np.ndarray) -> bool:
    """Whether any message is not zero; several times faster than `numpy.any` on numbers."""
    return bool(message.max() != 0 or message.min() != 0)


class _Recorder:
    """Collects what one phase did; arrays grow step by step."""

    def __init__(self, engine: Engine, job: Job, phase: Phase) -> None:
        self.engine, self.phase, self.probes = engine, phase, job.probes
        samples = len(job.x)
        names = engine.shapes
        self.events = {name: np.zeros((phase.steps, samples), np.int64) for name in names}
        self.synops = {name: np.zeros((phase.steps, samples), np.int64) for name in names}
        self.traces: dict[str, list[np.ndarray]] = {probe.name: [] for probe in job.probes}
        self.spikes: np.ndarray | float = 0.0
        self.step = 0

    def input_event(self, source: Population, x: np.ndarray) -> None:
        """The input speaks once, at the start of a sample."""
        self._count(source.name, x)

    def record(self, moment: Moment) -> None:
        for name, state in moment.states.items():
            self._count(name, state.message)
        for probe in self.probes:
            state = moment.states[probe.population]
            self.traces[probe.name].append(getattr(state, probe.variable))
        self.step += 1
        if self.step > self.phase.steps // 2:
            self.spikes = self.spikes + moment.states[self.engine.graph.output].message

    def _count(self, name: str, message: np.ndarray) -> None:
        sent = message.reshape(len(message), -1) != 0
        self.events[name][self.step] = sent.sum(1)
        self.synops[name][self.step] = sent @ self.engine.fanouts[name]

    def result(self, last: Moment, saturated_before: Mapping[str, int]) -> PhaseResult:
        graph, numbers = self.engine.graph, self.engine.numbers
        saturations = {
            name: numbers.saturations[name] - saturated_before.get(name, 0)
            for name in (self.engine.shapes if graph.quantised else ())
        }
        return PhaseResult(
            outputs=self._outputs(last),
            events=self.events,
            synops=self.synops,
            probes={name: np.stack(trace) for name, trace in self.traces.items()},
            saturations=saturations,
        )

    def _outputs(self, last: Moment) -> np.ndarray:
        output = self.engine.graph.population(self.engine.graph.output)
        if isinstance(output.dynamics, Spiking):
            steps = self.phase.steps - self.phase.steps // 2
            shown = np.asarray(self.spikes) / steps
        else:
            shown = self.engine.numbers.real(output, last.states[output.name].z)
        require_finite(shown, self.phase.name, self.phase.steps)
        return output.readout.offset + output.readout.gain * shown
