"""An interpreter of NIR nodes: forward Euler with dt = 1, under what the metadata adds to NIR."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compilers.artifact import Program
from compilers.ir import Graph, Phase, Population, SigmaDelta, Spiking
from targets.base import Closing, PhaseResult, Progress, RunResult, closed
from targets.inputs import Job, prepare
from targets.nir.circuit import Circuit
from targets.nir.export import to_nir
from targets.records import require_finite, synapses_of

CHUNK = 256
"""Samples that are settled at once."""


@dataclass(frozen=True)
class State:
    """What a population holds between two steps, each (N, size); no array is written to.

    `v` and `u` are membrane and current, `z` the clipped state, `message` what was sent in the
    last step, `sent` the sum of all messages, `past` what receivers took the stream to mean at
    the last steps, the newest first.
    """

    v: np.ndarray
    u: np.ndarray
    z: np.ndarray
    message: np.ndarray
    sent: np.ndarray
    past: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Moment:
    """Steps made since rest, and the states then."""

    t: int
    states: Mapping[str, State]


class NirSession(Closing):
    """Settles inputs on the NIR nodes of a graph; see `targets.base.Session`."""

    def __init__(self, program: Program) -> None:
        self._graph = program.graph
        self._circuit: Circuit | None = Circuit(program.graph, to_nir(program.graph))
        self._fanouts = {p.name: synapses_of(program.graph, p) for p in program.graph.populations}

    def settle(
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        *,
        steps: int | None = None,
        probes: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> RunResult:
        """Settle inputs; see `targets.base.Session.settle`."""
        circuit = self._open()
        began = time.perf_counter()
        job = prepare(self._graph, x, y, steps=steps, probes=probes)
        records = {p.name: _Record(self._graph, job, p, self._fanouts) for p in job.phases}
        for first in range(0, len(job.x), CHUNK):
            part = slice(first, first + CHUNK)
            y_part = None if job.y is None else job.y[part]
            self._run(circuit, replace(job, x=job.x[part], y=y_part), part, records)
            if progress is not None:
                progress(min(first + CHUNK, len(job.x)), len(job.x))
        phases = {name: record.result() for name, record in records.items()}
        return RunResult(phases, time.perf_counter() - began)

    def _run(self, circuit: Circuit, job: Job, part: slice, records: Mapping[str, _Record]) -> None:
        constant = circuit.constant(job.x)
        ends: dict[str | None, Moment] = {None: _rest(circuit, len(job.x))}
        records[job.phases[0].name].speak(self._graph.sources[0].name, job.x, part)
        for phase in job.phases:
            moment, record = ends[phase.start], records[phase.name]
            # A network that diverges is reported once, as an error; not by NumPy, at every step.
            with np.errstate(over="ignore", invalid="ignore"):
                for step in range(phase.steps):
                    moment = _step(circuit, moment, constant, phase, job.y)
                    record.take(step, moment, part)
            ends[phase.name] = moment

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id, as the file's metadata holds them."""
        self._open()
        return {name: self._graph.arrays[name].copy() for name in self._graph.ties}

    def close(self) -> None:
        """Forget the nodes; closing twice is harmless."""
        self._circuit = None

    def _open(self) -> Circuit:
        if self._circuit is None:
            raise closed()
        return self._circuit


# --- dynamics ----------------------------------------------------------------------------------


def _rest(circuit: Circuit, samples: int) -> Moment:
    states = {}
    for p in circuit.graph.neurons:
        zero = np.zeros((samples, p.size))
        spiking = isinstance(p.dynamics, Spiking)
        z = zero if spiking else _clip(p, zero)
        v = zero + 0.5 if spiking else zero
        states[p.name] = State(v, zero, z, zero, zero, (zero,) * circuit.depth)
    return Moment(0, states)


def _step(
    circuit: Circuit,
    before: Moment,
    constant: Mapping[str, np.ndarray],
    phase: Phase,
    y: np.ndarray | None,
) -> Moment:
    past = {name: state.past for name, state in before.states.items()}
    states: dict[str, State] = {}
    for p in circuit.graph.neurons:
        state = before.states[p.name]
        current = circuit.current(p.name, past, constant[p.name])
        if phase.nudge and y is not None and p.name == circuit.graph.output:
            current = current + phase.nudge * (y.reshape(len(y), -1) - state.z)
        states[p.name] = _advance(circuit, p, state, current, before.t + 1)
    return Moment(before.t + 1, states)


def _advance(circuit: Circuit, p: Population, state: State, current: np.ndarray, t: int) -> State:
    if isinstance(p.dynamics, Spiking):
        u = circuit.leak(p.name, state.u, current)
        bound = p.dynamics.bound
        v = np.clip(state.v + circuit.gain(p.name) * u, -bound, 1 + bound)
        message = (v >= 1).astype(v.dtype)
        return State(v - message, u, message, message, state.sent, (message, *state.past[:-1]))
    v = circuit.leak(p.name, state.v, current)
    z = message = _clip(p, v)
    meant, sent = z, state.sent
    if isinstance(p.dynamics, SigmaDelta):
        change = z - state.sent
        message = change * (np.abs(change) >= p.dynamics.threshold(t))
        meant = sent = state.sent + message
    return State(v, state.u, z, message, sent, (meant, *state.past[:-1]))


def _clip(p: Population, v: np.ndarray) -> np.ndarray:
    return v if p.box is None else np.clip(v, *p.box)


# --- what is recorded --------------------------------------------------------------------------


class _Record:
    """What one phase did, for all samples; each chunk fills its part."""

    def __init__(
        self, graph: Graph, job: Job, phase: Phase, fanouts: Mapping[str, np.ndarray]
    ) -> None:
        self.graph, self.phase, self.job, self.fanouts = graph, phase, job, fanouts
        samples, steps = len(job.x), phase.steps
        names = [p.name for p in graph.populations]
        self.events = {name: np.zeros((steps, samples), np.int64) for name in names}
        self.synops = {name: np.zeros((steps, samples), np.int64) for name in names}
        self.output = graph.population(graph.output)
        self.shown = np.zeros((samples, *self.output.shape))
        self.probes = {
            probe.name: np.zeros((steps, samples, *graph.population(probe.population).shape))
            for probe in job.probes
        }

    def speak(self, name: str, x: np.ndarray, part: slice) -> None:
        """The input speaks once, at the start of a sample."""
        self._count(0, name, x.reshape(len(x), -1), part)

    def take(self, step: int, moment: Moment, part: slice) -> None:
        for name, state in moment.states.items():
            self._count(step, name, state.message, part)
        for probe in self.job.probes:
            value = getattr(moment.states[probe.population], probe.variable)
            place = self.probes[probe.name][step, part]
            place[...] = value.reshape(place.shape)
        z = moment.states[self.output.name].z
        place = self.shown[part]
        if not isinstance(self.output.dynamics, Spiking):
            place[...] = z.reshape(place.shape)
        elif step >= self.phase.steps // 2:
            place += z.reshape(place.shape) / (self.phase.steps - self.phase.steps // 2)

    def _count(self, step: int, name: str, message: np.ndarray, part: slice) -> None:
        sent = message != 0
        self.events[name][step, part] = sent.sum(1)
        self.synops[name][step, part] = sent @ self.fanouts[name]

    def result(self) -> PhaseResult:
        require_finite(self.shown, self.phase.name, self.phase.steps)
        readout = self.output.readout
        outputs = readout.offset + readout.gain * self.shown
        return PhaseResult(outputs, self.events, self.synops, self.probes)
