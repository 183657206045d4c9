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
from compilers.learning.traces import Traces, spike_weights, trace
from compilers.program import Program
from ep_neuro.errors import RunError
from targets.interface.fanout import nonzero_synapses_of, require_finite, synapses_of
from targets.interface.protocols import PhaseResult
from targets.interface.request import Probe, RunRequest
from targets.interface.session import Session, Settled, classes, piece

AfterStep = Callable[[Traces, Traces], None]
"""Told of the traces after a step, and of those before it."""


@dataclass(frozen=True)
class PhaseRecord:
    """What a phase did, and what a rule reads at its end."""

    result: PhaseResult
    traces: Traces = field(default_factory=dict)
    """By population, (N, *shape) (`compilers.learning.traces.trace`); empty if nothing learns."""
    free: Traces = field(default_factory=dict)
    """Those of the phase from which this one sends differences."""


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

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id that are others than those of the learner."""
        return {}


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
        """A copy of the weights by id, as the target holds them."""
        return {**super().weights(), **self._simulator.weights()}

    def _free(self) -> None:
        self._simulator.close()

    # --- learning ------------------------------------------------------------------------------

    def _begun(self) -> PlasticWeights:
        learner = super()._begun()
        self._simulator.sense(learner)
        return learner

    def _teach(self, job: RunRequest, batch: int, rate_scale: float) -> np.ndarray:
        simulator, learner, outputs = self._simulator, self.learner, []
        stepwise = any(record.rule.when == "step" for record in self.graph.plasticity)
        simulator.begin(job)
        for phase in job.phases:

            def learn(before: Traces, now: Traces, phase: Phase = phase) -> None:
                if phase.sign:
                    learner.accumulate(phase.sign, now, before)
                if phase.commit:
                    self._commit(len(job.x), rate_scale)

            each = stepwise and phase.sign
            record = simulator.run(phase, (), learn if each else None)
            if not each:
                learn(record.free, record.traces)
            self._count(record.result)
            outputs.append(record.result.outputs)
        return classes(outputs[0])

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


# --- what a phase did --------------------------------------------------------------------------


class Recorder:
    """Collects what one phase of a batch does, step by step.

    Parameters
    ----------
    simulator : Simulator
        With the ``job`` that its batch was begun with, ``clamped`` (traces of the input),
        ``spoken`` (messages of the input), ``fanouts`` (synapses that those of a neuron meet) and
        ``nonzero`` (the same without weights of zero, None where there are none).
    phase : Phase
    probes : sequence of Probe
    number : type
        Of what probes give.
    """

    def __init__(
        self, simulator: Any, phase: Phase, probes: Sequence[Probe], number: type = np.float64
    ) -> None:
        self.simulator, self.phase, self.probes, self.number = simulator, phase, probes, number
        self.graph: Graph = simulator.graph
        self.fanouts = simulator.fanouts
        self.learns, self.output = learning(self.graph), self.graph.population(self.graph.output)
        self.first = phase.name == simulator.job.phases[0].name
        self.watches_updates = self.first and simulator.job.updates
        shape = (phase.steps, len(simulator.job.x))
        self.events = {p.name: np.zeros(shape, np.int64) for p in self.graph.populations}
        self.synops = {p.name: np.zeros(shape, np.int64) for p in self.graph.populations}
        self.nonzero_synops = {p.name: np.zeros(shape[1]) for p in self.graph.populations}
        self.updates = {p.name: np.zeros(shape[1], np.int64) for p in self.graph.neurons}
        self.before: dict[str, np.ndarray] = {}
        self.probed: dict[str, list[np.ndarray]] = {probe.name: [] for probe in probes}
        self.weights = spike_weights(phase.steps, from_rest=phase.start is None)
        self.steps = 0
        self.spikes: dict[str, np.ndarray] = {}

    def follow(self, step: Callable[[], None], after_step: AfterStep | None) -> PhaseRecord:
        """What the phase does, which takes each of its steps by `step`."""
        if self.first:
            # The input speaks once, at the start of a sample.
            self._count(self.graph.sources[0], self.simulator.spoken)
        now = self.traces() if after_step else {}
        for _ in range(self.phase.steps):
            self.watch()
            step()
            self.take()
            if after_step is not None:
                before, now = now, self.traces()
                after_step(before, now)
        return self.record()

    def value(self, p: Population, variable: str) -> np.ndarray:
        """A variable, or ``told``, the sum of all messages, now: (N, *shape)."""
        found = self.simulator.value(self.simulator.moment, p.name, variable)
        return found.reshape(len(found), *p.shape)

    def weighted(self, p: Population) -> np.ndarray:
        """Sum of the spikes of `p`, each with its weight, (N, *shape)."""
        return self.spikes[p.name] if self.steps else np.zeros_like(self.value(p, "message"))

    def shown(self) -> np.ndarray:
        """What the output is read from at the end, in graph units, (N, *shape)."""
        if not isinstance(self.output.dynamics, Spiking):
            return self.value(self.output, "z")
        return np.asarray(self.weighted(self.output) / self.weights.sum())

    def saturated(self) -> dict[str, int]:
        """Values that met the end of their format, by population."""
        return {}

    def unsettled(self) -> np.ndarray | None:
        """Samples (N,) of which a state still moved in the last step; None if that is not known."""
        return None

    def watch(self) -> None:
        """See membranes before a step, in order to tell afterwards which of them it changed."""
        if self.watches_updates and self.steps:
            self.before = {p.name: self.value(p, "v") for p in self.graph.neurons}

    def take(self) -> None:
        """The end of a step: count its messages, keep what is probed."""
        self.count_step()
        self.count_updates()
        for probe in self.probes:
            values = self.value(self.graph.population(probe.population), probe.variable)
            self.probed[probe.name].append(np.array(values, self.number))
        self.steps += 1

    def count_updates(self) -> None:
        """Count the membranes that the step changed."""
        for name, before in self.before.items():
            changed = self.value(self.graph.population(name), "v") != before
            self.updates[name] += changed.reshape(len(before), -1).sum(1)

    def count_step(self) -> None:
        """Count the messages of all neurons."""
        weight = float(self.weights[self.steps])
        for p in self.graph.neurons:
            message = self.value(p, "message")
            self._count(p, message)
            if isinstance(p.dynamics, Spiking):
                self.spikes[p.name] = self.spikes.get(p.name, 0.0) + weight * message

    def _count(self, p: Population, message: Any) -> None:
        sent = message.reshape(len(message), -1) != 0
        self.events[p.name][self.steps] = sent.sum(1)
        self.synops[p.name][self.steps] = sent @ self.fanouts[p.name]
        if (met := self.simulator.nonzero[p.name]) is not None:
            self.nonzero_synops[p.name] += sent @ met

    def _not_of_zero(self) -> dict[str, np.ndarray]:
        nonzero = self.simulator.nonzero
        return {
            name: self.synops[name].sum(0) if nonzero[name] is None else counts
            for name, counts in self.nonzero_synops.items()
        }

    def traces(self) -> Traces:
        """Traces by population of what learns, of the steps taken so far."""
        return {**self.simulator.clamped, **{p.name: self._trace(p) for p in self.learns}}

    def _trace(self, p: Population) -> np.ndarray:
        if isinstance(p.dynamics, Spiking):
            return trace(p, self.weighted(p), int(self.weights.sum()))
        return trace(p, self.value(p, "told" if isinstance(p.dynamics, SigmaDelta) else "z"))

    def record(self) -> PhaseRecord:
        """All of it; `RunError` if the output is not finite."""
        shown, readout = self.shown(), self.output.readout
        require_finite(shown, self.phase.name, self.phase.steps)
        result = PhaseResult(
            outputs=readout.offset + readout.gain * shown,
            events=self.events,
            synops=self.synops,
            probes={name: np.stack(values) for name, values in self.probed.items()},
            saturations=self.saturated(),
            nonzero_synops={} if self.graph.plasticity else self._not_of_zero(),
            updates=self.updates if self.watches_updates else {},
            unsettled=self.unsettled(),
        )
        learns = self.graph.plasticity and self.phase.sign
        return PhaseRecord(result, self.traces() if learns else {})


def learning(graph: Graph) -> list[Population]:
    """Populations whose traces a rule reads, inputs apart."""
    learnt = {record.weight for record in graph.plasticity}
    ends = {end for p in graph.projections if p.weight in learnt for end in (p.pre, p.post)}
    return [p for p in graph.neurons if p.name in ends or p.bias in learnt]


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
        self.fanouts = {p.name: synapses_of(graph, p) for p in graph.populations}
        self.nonzero = {p.name: nonzero_synapses_of(graph, p) for p in graph.populations}
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
        (source,) = self.graph.sources
        self.job, self.spoken, self._constant = job, job.x, None
        self.clamped = {source.name: trace(source, job.x)}
        self.ends = {None: self.rest(len(job.x))}

    def run(
        self, phase: Phase, probes: Sequence[Probe], after_step: AfterStep | None = None
    ) -> PhaseRecord:
        """Run `phase`, step by step."""
        self.moment = self.ends[phase.start]

        def step() -> None:
            if self._constant is None:
                self._constant = self.constant(self.job.x)
            self.moment = self.step(self.moment, self._constant, phase, self.job.y)

        # A network that diverges is reported once, as an error; not by NumPy, at every step.
        with np.errstate(over="ignore", invalid="ignore"):
            record = Recorder(self, phase, probes).follow(step, after_step)
        self.ends[phase.name] = self.moment
        return record
