"""Simulators: the dynamics of a target for one batch, and the session around them.

The author of a target writes a `Simulator`, which runs the phases of one batch; where that is a
matter of steps, a `SteppedSimulator`, which only has to know one step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from compilers.ir.graph import Graph, Phase, Population, SigmaDelta, Spiking
from compilers.learning.plastic_weights import PlasticWeights
from compilers.learning.synapses import Traces, spike_weights, trace
from compilers.program import Program
from ep_neuro.errors import RunError
from targets.interface.fanout import require_finite, synapses_of
from targets.interface.protocols import PhaseResult
from targets.interface.request import Probe, RunRequest
from targets.interface.session import Session, Settled, classes, piece

AfterStep = Callable[[Traces, Traces], None]
"""Told of the traces after a step, and of those before it."""


@dataclass(frozen=True)
class PhaseRecord:
    """What a phase did, and what a rule reads at its end.

    Attributes
    ----------
    result : PhaseResult
    traces : mapping of ndarray, (N, *shape)
        By population (`compilers.learning.synapses.trace`); empty where nothing learns.
    """

    result: PhaseResult
    traces: Traces = field(default_factory=dict)


class Simulator(ABC):
    """The dynamics of a target, for one batch of samples after another."""

    at_once: int
    """Samples that it settles as one batch."""

    @abstractmethod
    def begin(self, job: RunRequest) -> None:
        """Bring a new batch to rest under the inputs and targets of `job`."""

    @abstractmethod
    def run(
        self, phase: Phase, probes: Sequence[Probe], after_step: AfterStep | None = None
    ) -> PhaseRecord:
        """Run `phase` of the batch, from rest or from the end of the phase that it names.

        `after_step` is called after every step, and may `load`.
        """

    def close(self) -> None:
        """Free what is held."""
        return

    # --- of those that learn -------------------------------------------------------------------

    def load(self, learner: PlasticWeights) -> None:
        """Go on with the weights and biases of `learner`, which a commit has changed."""
        raise NotImplementedError

    def sense(self, learner: PlasticWeights) -> None:
        """Correct `learner`, which begins with the weights of the program, by what is held."""
        return

    def memory(self) -> dict[str, np.ndarray]:
        """A copy of what is needed to go on, beside the learner's own memory."""
        return {}

    def restore(self, memory: Mapping[str, np.ndarray], learner: PlasticWeights) -> None:
        """Go on from `memory` and from `learner`, which was restored before."""
        self.load(learner)

    def weights(self, graph: Graph, learner: PlasticWeights | None) -> dict[str, np.ndarray]:
        """A copy of the weights by id."""
        held = {} if learner is None else learner.weights
        return {name: held.get(name, graph.arrays[name]).copy() for name in graph.ties}


class SimulatorSession(Session):
    """Settles inputs on a `Simulator`, and learns on it."""

    def __init__(self, program: Program, simulator: Simulator) -> None:
        super().__init__(program)
        self._simulator = simulator

    def _settle(self, job: RunRequest, settled: Settled) -> None:
        simulator = self._simulator
        for first in range(0, len(job.x), simulator.at_once):
            simulator.begin(piece(job, slice(first, first + simulator.at_once)))
            settled({p.name: simulator.run(p, job.probes).result for p in job.phases})

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id."""
        self._refuse_closed()
        return self._simulator.weights(self.graph, self._learner)

    def _free(self) -> None:
        self._simulator.close()

    # --- learning ------------------------------------------------------------------------------

    def _begun(self) -> PlasticWeights:
        learner = super()._begun()
        self._simulator.sense(learner)
        return learner

    def _teach(self, job: RunRequest, batch: int, rate_scale: float) -> np.ndarray:
        simulator, learner, shown = self._simulator, self.learner, None
        stepwise = any(record.rule.when == "step" for record in self.graph.plasticity)
        simulator.begin(job)
        for phase in job.phases:
            each = stepwise and phase.sign != 0

            def after(before: Traces, now: Traces, phase: Phase = phase) -> None:
                learner.accumulate(phase.sign, now, before)
                if phase.commit:
                    self._commit(len(job.x), rate_scale)

            record = simulator.run(phase, (), after if each else None)
            if not each and phase.sign:
                learner.accumulate(phase.sign, record.traces, {})
            if not each and phase.commit:
                self._commit(len(job.x), rate_scale)
            self._count(record.result)
            shown = record.result.outputs if shown is None else shown
        assert shown is not None
        return classes(shown)

    def _commit(self, samples: int, rate_scale: float) -> None:
        self.learner.commit(samples, rate_scale)
        self._simulator.load(self.learner)

    def memory(self) -> dict[str, np.ndarray]:
        """A copy of what learning needs, what the simulator holds beside the learner included."""
        return {**super().memory(), **self._simulator.memory()}

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        learner, own = self.learner, set(self._simulator.memory())
        if missing := sorted(own - set(memory)):
            problem = f"'{missing[0]}' is not in the memory"
            raise RunError("memory", problem, "give the memory of a session of this program")
        learner.restore({name: value for name, value in memory.items() if name not in own})
        self._simulator.restore({name: memory[name] for name in own}, learner)


# --- step by step ------------------------------------------------------------------------------


M = TypeVar("M")


class SteppedSimulator(Simulator, Generic[M]):
    """Dynamics of which one step is known; what each step did is recorded here.

    A moment is whatever the next step depends on; it is never written to, for other phases may
    start from it.

    Attributes
    ----------
    graph : Graph
    ends : dict
        The moment at the end of each phase of the batch, by name; that of None is rest.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ends: dict[str | None, M] = {}
        self._fanouts = {p.name: synapses_of(graph, p) for p in graph.populations}
        self._job: RunRequest | None = None
        self._constant: Any = None

    @abstractmethod
    def rest(self, samples: int) -> M:
        """The moment before the first step."""

    @abstractmethod
    def constant(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """What bias and inputs `x` (N, *input shape) drive each population with at every step."""

    @abstractmethod
    def step(
        self,
        before: M,
        constant: Mapping[str, np.ndarray],
        phase: Phase,
        y: np.ndarray | None,
    ) -> M:
        """The moment after one more step of `phase`; targets `y` are in graph units."""

    @abstractmethod
    def value(self, moment: M, population: str, variable: str) -> np.ndarray:
        """``v``, ``u``, ``z``, ``message``, or ``told``, the sum of all messages; (N, ...)."""

    def changed(self) -> None:
        """What the step depends on beside moments is another from now on."""
        self._constant = None

    def begin(self, job: RunRequest) -> None:
        """Bring a new batch to rest."""
        self._job, self._constant = job, None
        self.ends = {None: self.rest(len(job.x))}

    def run(
        self, phase: Phase, probes: Sequence[Probe], after_step: AfterStep | None = None
    ) -> PhaseRecord:
        """Run `phase`, step by step."""
        job = self._job
        assert job is not None
        recorder = Recorder(self, job, phase, probes, self._fanouts)
        moment = self.ends[phase.start]
        # A network that diverges is reported once, as an error; not by NumPy, at every step.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(phase.steps):
                before = recorder.traces(moment) if after_step else {}
                if self._constant is None:
                    self._constant = self.constant(job.x)
                moment = self.step(moment, self._constant, phase, job.y)
                recorder.take(moment)
                if after_step is not None:
                    after_step(before, recorder.traces(moment))
        self.ends[phase.name] = moment
        learns = bool(self.graph.plasticity) and phase.sign != 0
        return PhaseRecord(recorder.result(moment), recorder.traces(moment) if learns else {})


class Recorder(Generic[M]):
    """Collects what one phase of a batch does, step by step."""

    def __init__(
        self,
        simulator: SteppedSimulator[M],
        job: RunRequest,
        phase: Phase,
        probes: Sequence[Probe],
        fanouts: Mapping[str, np.ndarray],
    ) -> None:
        self.simulator, self.phase, self.probes, self.fanouts = simulator, phase, probes, fanouts
        self.graph = graph = simulator.graph
        self.output, self.samples = graph.population(graph.output), len(job.x)
        shape = (phase.steps, self.samples)
        self.events = {p.name: np.zeros(shape, np.int64) for p in graph.populations}
        self.synops = {p.name: np.zeros(shape, np.int64) for p in graph.populations}
        self.probed: dict[str, list[np.ndarray]] = {probe.name: [] for probe in probes}
        self.weights = spike_weights(phase.steps, from_rest=phase.start is None)
        spiking = [p for p in graph.neurons if isinstance(p.dynamics, Spiking)]
        self.weighted = {p.name: self._blank(p) for p in spiking}
        self.late = self._blank(self.output)
        self.steps = 0
        (source,) = graph.sources
        self.clamped = {source.name: trace(source, job.x)}
        if phase.name == job.phases[0].name:
            # The input speaks once, at the start of a sample.
            self._count(source.name, job.x)

    def take(self, moment: M) -> None:
        """`moment` is that after the next step."""
        weight = float(self.weights[self.steps])
        for p in self.graph.neurons:
            message = self._shaped(moment, p.name, "message")
            self._count(p.name, message)
            if p.name in self.weighted and weight:
                self.weighted[p.name] = self.weighted[p.name] + weight * message
            if p.name == self.output.name and self.steps >= self.phase.steps // 2:
                self.late = self.late + message
        for probe in self.probes:
            self.probed[probe.name].append(self._shaped(moment, probe.population, probe.variable))
        self.steps += 1

    def _count(self, name: str, message: np.ndarray) -> None:
        sent = message.reshape(len(message), -1) != 0
        self.events[name][self.steps] = sent.sum(1)
        self.synops[name][self.steps] = sent @ self.fanouts[name]

    def _blank(self, p: Population) -> np.ndarray:
        return np.zeros((self.samples, *p.shape))

    def _shaped(self, moment: M, population: str, variable: str) -> np.ndarray:
        shape = self.graph.population(population).shape
        return self.simulator.value(moment, population, variable).reshape(self.samples, *shape)

    def traces(self, moment: M) -> Traces:
        """Traces by population, of the steps taken so far."""
        found = dict(self.clamped)
        for p in self.graph.neurons:
            if p.name in self.weighted:
                found[p.name] = trace(p, self.weighted[p.name], int(self.weights.sum()))
            else:
                told = "told" if isinstance(p.dynamics, SigmaDelta) else "z"
                found[p.name] = trace(p, self._shaped(moment, p.name, told))
        return found

    def result(self, last: M) -> PhaseResult:
        """All of it; `RunError` if the output is not finite."""
        if self.output.name in self.weighted:
            shown = self.late / (self.phase.steps - self.phase.steps // 2)
        else:
            shown = self._shaped(last, self.output.name, "z")
        require_finite(shown, self.phase.name, self.phase.steps)
        readout = self.output.readout
        return PhaseResult(
            outputs=readout.offset + readout.gain * shown,
            events=self.events,
            synops=self.synops,
            probes={name: np.stack(values) for name, values in self.probed.items()},
        )
