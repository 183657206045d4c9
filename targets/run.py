"""Runs the phases of a job on the executor of a graph, and collects what they did."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from compilers.execution.engine import Engine, Moment
from compilers.execution.maps import inward, outward
from compilers.execution.neurons import State
from compilers.ir import Phase, Population, Spiking
from targets.base import PhaseResult
from targets.inputs import Job
from targets.records import require_finite, synapses_of


class Counter:
    """Counts messages and the synaptic operations that they cause.

    All channels of a place meet as many synapses, so messages are counted by place first.
    """

    def __init__(self, engine: Engine) -> None:
        self._fanouts: dict[str, Tensor] = {}
        for p in engine.graph.populations:
            fanout = synapses_of(engine.graph, p).reshape(p.shape[0], -1)[0]
            self._fanouts[p.name] = torch.from_numpy(fanout.astype(np.float64))

    def __call__(self, name: str, sent: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the neurons of population `name` and of their operations, (N,) each.

        `sent` (N, *shape), float32, says how often each neuron sent.
        """
        fanout = self._fanouts[name]
        flat = sent.reshape(len(sent) * len(fanout), -1)
        by_place = torch.mv(flat, flat.new_ones(flat.shape[1])).double().reshape(len(sent), -1)
        return by_place.sum(1), by_place @ fanout


def sent(message: Tensor) -> Tensor:
    """Where `message` is not zero, as ones in float32."""
    # Of two ways, the faster one for the type.
    return message.sign().abs_() if message.dtype == torch.float32 else (message != 0).float()


@torch.inference_mode()
def run(engine: Engine, counter: Counter, job: Job) -> dict[str, PhaseResult]:
    """All phases of `job`, from rest, as one batch."""
    numbers = engine.numbers
    numbers.saturations.clear()
    x = engine.message(job.x)
    y = None if job.y is None else inward(job.y)
    constant = engine.constant_drive(x)
    ends: dict[str | None, Moment] = {None: engine.rest(len(x))}
    results: dict[str, PhaseResult] = {}
    for phase in job.phases:
        before = dict(numbers.saturations) if results else {}
        recorder = _Recorder(engine, counter, job, phase)
        if not results:
            recorder.count(engine.graph.sources[0].name, x)
        moment = ends[phase.start]
        for _ in range(phase.steps):
            moment = engine.step(moment, constant, phase, y)
            recorder.record(moment)
        ends[phase.name] = moment
        results[phase.name] = recorder.result(moment, before)
    return results


class _Recorder:
    """Collects what one phase did; arrays grow step by step."""

    def __init__(self, engine: Engine, counter: Counter, job: Job, phase: Phase) -> None:
        self.engine, self.counter, self.phase = engine, counter, phase
        self.populations = {p.name: p for p in engine.graph.populations}
        shape = (phase.steps, len(job.x))
        self.events = {name: np.zeros(shape, np.int64) for name in self.populations}
        self.synops = {name: np.zeros(shape, np.int64) for name in self.populations}
        self.traces: dict[str, list[np.ndarray]] = {probe.name: [] for probe in job.probes}
        self.probes = job.probes
        self.spikes: Tensor | float = 0.0
        self.step = 0

    def record(self, moment: Moment) -> None:
        """The end of a step."""
        for name, state in moment.states.items():
            self.count(name, state.message)
        for probe in self.probes:
            p = self.populations[probe.population]
            values = probed(self.engine, p, moment.states[p.name], probe.variable)
            self.traces[probe.name].append(values)
        self.step += 1
        if self.step > self.phase.steps // 2:
            self.spikes = self.spikes + moment.states[self.engine.graph.output].message

    def count(self, name: str, message: Tensor) -> None:
        """What population `name` sends in this step."""
        events, synops = self.counter(name, sent(message))
        self.events[name][self.step] = events.numpy()
        self.synops[name][self.step] = synops.numpy()

    def result(self, last: Moment, saturated_before: Mapping[str, int]) -> PhaseResult:
        """Everything; `RunError` if the output diverged."""
        graph, numbers = self.engine.graph, self.engine.numbers
        saturations = {
            name: numbers.saturations[name] - saturated_before.get(name, 0)
            for name in (self.populations if graph.quantised else ())
        }
        return PhaseResult(
            outputs=self._outputs(last),
            events=self.events,
            synops=self.synops,
            probes={name: np.stack(trace) for name, trace in self.traces.items()},
            saturations=saturations,
        )

    def _outputs(self, last: Moment) -> np.ndarray:
        output = self.populations[self.engine.graph.output]
        if isinstance(output.dynamics, Spiking):
            steps = self.phase.steps - self.phase.steps // 2
            shown = outward(torch.as_tensor(self.spikes).double() / steps)
        else:
            shown = outward(self.engine.numbers.real(output, last.states[output.name].z))
        require_finite(shown, self.phase.name, self.phase.steps)
        return output.readout.offset + output.readout.gain * shown


def probed(engine: Engine, p: Population, state: State, variable: str) -> np.ndarray:
    """A variable of population `p`, (N, *shape): float64, or int64 in integers."""
    values = getattr(state, variable)
    if variable == ("u" if isinstance(p.dynamics, Spiking) else "v"):
        values = engine.numbers.plain(values)
    return outward(values.long() if engine.numbers.integers else values)
