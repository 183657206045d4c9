"""What one phase did, collected step by step: outputs, events, operations, probes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compilers.ir import Graph, Phase, Spiking
from targets.base import PhaseResult
from targets.crossbar.dynamics import State
from targets.inputs import Job
from targets.records import require_finite


class Record:
    """Fills the arrays of a `PhaseResult` for one batch of samples."""

    def __init__(
        self, graph: Graph, job: Job, phase: Phase, fanouts: Mapping[str, np.ndarray]
    ) -> None:
        self._graph, self._phase, self._job, self._fanouts = graph, phase, job, fanouts
        shape = (phase.steps, len(job.x))
        self._events = {p.name: np.zeros(shape, np.int64) for p in graph.populations}
        self._synops = {p.name: np.zeros(shape, np.int64) for p in graph.populations}
        self._output = graph.population(graph.output)
        self._shown = np.zeros((len(job.x), *self._output.shape))
        self._probes = {
            probe.name: np.zeros((*shape, *graph.population(probe.population).shape))
            for probe in job.probes
        }

    def count(self, step: int, name: str, message: np.ndarray) -> None:
        """Events and synaptic operations of what population `name` sends at `step`, from 0."""
        sent = message.reshape(len(message), -1) != 0
        self._events[name][step] = sent.sum(1)
        self._synops[name][step] = sent @ self._fanouts[name]

    def take(self, step: int, states: Mapping[str, State]) -> None:
        """The states after `step`, from 0."""
        for name, state in states.items():
            self.count(step, name, state.message)
        for probe in self._job.probes:
            self._probes[probe.name][step] = getattr(states[probe.population], probe.variable)
        z, steps = states[self._output.name].z, self._phase.steps
        if not isinstance(self._output.dynamics, Spiking):
            self._shown = z
        elif step >= steps // 2:
            self._shown = self._shown + z / (steps - steps // 2)

    def result(self) -> PhaseResult:
        """Everything, in the order of the samples; `RunError` if the output diverged."""
        require_finite(self._shown, self._phase.name, self._phase.steps)
        readout = self._output.readout
        outputs = readout.offset + readout.gain * self._shown
        return PhaseResult(outputs, self._events, self._synops, self._probes)
