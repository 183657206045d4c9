"""A session that learns by the graph's own rules: tags in digital, changes as ideal writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from compilers.ir import Phase, Population, SigmaDelta, Source, Spiking
from compilers.learner import Learner
from compilers.synapses import spike_weights, trace
from ep_neuro.errors import RunError
from targets.inputs import Job

if TYPE_CHECKING:
    from targets.crossbar.session import CrossbarSession, Moment

WRITTEN = 1e-9
"""Difference, relative to the largest weight, from which a write did not get where it should."""


class Teacher:
    """Lets the plastic weights of a session learn.

    A weight is what its devices hold: after every commit it is read back from them.

    Attributes
    ----------
    learner : Learner
        What has been learnt.
    events, synops : int
        Messages sent so far and synaptic operations that they caused, all phases.
    """

    def __init__(self, session: CrossbarSession) -> None:
        graph = session.graph
        self.session, self.learner = session, Learner(graph)
        self.events, self.synops = 0, 0
        plastic = set(self.learner.weights)
        self._arrays = {
            p.weight: session.arrays[p.name] for p in graph.projections if p.weight in plastic
        }
        self.sense()
        (self._source,) = graph.sources
        ends = [p for s in self.learner.synapses for p in (s.pre, s.post) if p is not None]
        self._traced = {p.name: p for p in ends if not isinstance(p.dynamics, Source)}
        self._stepwise = any(r.rule.when == "step" for r in graph.plasticity)

    def sense(self) -> None:
        """Take over the weights that the devices hold."""
        for name, array in self._arrays.items():
            self.learner.weights[name] = array.weights()

    def teach(self, job: Job, rate_scale: float) -> np.ndarray:
        """Run the phases of `job` as one batch, and commit where they say; (N,) predictions."""
        session, x = self.session, job.x
        constant = session.constant(x)
        clamped = {self._source.name: trace(self._source, x)}
        ends: dict[str | None, Moment] = {None: session.rest(len(x))}
        self._count(self._source.name, x)
        predictions: np.ndarray | None = None
        for phase in job.phases:
            moment, spikes = ends[phase.start], _Spikes(phase)
            for _ in range(phase.steps):
                before = {**clamped, **self._traces(moment, spikes)} if self._stepwise else {}
                moment = session.step(moment, constant, phase, job.y)
                spikes.add(moment)
                for name, state in moment.states.items():
                    self._count(name, state.message)
                if self._stepwise and phase.sign:
                    now = {**clamped, **self._traces(moment, spikes)}
                    self.learner.accumulate(phase.sign, now, before)
                    if phase.commit:
                        self._commit(len(x), rate_scale)
                        constant = session.constant(x)
            ends[phase.name] = moment
            if predictions is None:
                predictions = self._answers(moment, spikes)
            if not self._stepwise:
                if phase.sign:
                    now = {**clamped, **self._traces(moment, spikes)}
                    self.learner.accumulate(phase.sign, now, {})
                if phase.commit:
                    self._commit(len(x), rate_scale)
        assert predictions is not None
        return predictions

    def _commit(self, samples: int, rate_scale: float) -> None:
        held = {name: self.learner.weights[name] for name in self._arrays}
        self.learner.commit(samples, rate_scale)
        for name, array in self._arrays.items():
            wanted = self.learner.weights[name]
            array.update(wanted - held[name])
            found = array.weights()
            missed = np.abs(found - wanted) > WRITTEN * np.abs(found).max(initial=1e-12)
            self.learner.clipped += int(np.count_nonzero(missed))
            self.learner.weights[name] = found
        self.session.biases.update(self.learner.biases())

    def _traces(self, moment: Moment, spikes: _Spikes) -> Mapping[str, np.ndarray]:
        return {name: self._trace(p, moment, spikes) for name, p in self._traced.items()}

    def _trace(self, p: Population, moment: Moment, spikes: _Spikes) -> np.ndarray:
        state = moment.states[p.name]
        if isinstance(p.dynamics, Spiking):
            return trace(p, spikes.weighted[p.name], spikes.window)
        return trace(p, state.held[0] if isinstance(p.dynamics, SigmaDelta) else state.z)

    def _answers(self, moment: Moment, spikes: _Spikes) -> np.ndarray:
        output = self.session.graph.population(self.session.graph.output)
        spiking = isinstance(output.dynamics, Spiking)
        shown = spikes.late[output.name] if spiking else moment.states[output.name].z
        if not np.isfinite(shown).all():
            problem = "the output is not finite after the free phase"
            remedy = "lower the learning rate or the leak, or bound the populations"
            raise RunError(f"graph '{self.session.graph.name}'", problem, remedy)
        return shown.reshape(len(shown), -1).argmax(1)

    def _count(self, name: str, message: np.ndarray) -> None:
        sent = np.count_nonzero(message.reshape(len(message), -1), axis=0)
        self.events += int(sent.sum())
        self.synops += int(sent @ self.session.fanouts[name])


class _Spikes:
    """Messages of a phase, added up by population: spikes, where those are.

    Attributes
    ----------
    late : dict of ndarray
        Those of the last half, which is what an output shows.
    weighted : dict of ndarray
        Each with its weight in a trace.
    window : int
        Sum of these weights.
    """

    def __init__(self, phase: Phase) -> None:
        self.late: dict[str, np.ndarray] = {}
        self.weighted: dict[str, np.ndarray] = {}
        self._weights = spike_weights(phase.steps, from_rest=phase.start is None)
        self.window = int(self._weights.sum())
        self._half, self._step = phase.steps // 2, 0

    def add(self, moment: Moment) -> None:
        """Take one more step."""
        weight, late = float(self._weights[self._step]), self._step >= self._half
        for name, state in moment.states.items():
            self.weighted[name] = self.weighted.get(name, 0) + weight * state.message
            self.late[name] = self.late.get(name, 0) + late * state.message
        self._step += 1
