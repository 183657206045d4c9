"""Learning on the reference: a batch runs through the phases, tags fill, weights change."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from compilers.execution.engine import Engine, Moment
from compilers.execution.maps import inward, outward
from compilers.ir import Phase, Population, SigmaDelta, Spiking
from compilers.learner import Learner
from compilers.synapses import spike_weights, trace
from ep_neuro.errors import RunError
from targets.inputs import Job
from targets.run import Counter, sent


class Teacher:
    """Lets the plastic weights of an engine learn.

    Attributes
    ----------
    learner : Learner
        What has been learnt.
    events, synops : int
        Messages sent so far and synaptic operations that they caused, all phases.
    """

    def __init__(self, engine: Engine, counter: Counter) -> None:
        self.engine, self.learner, self._counter = engine, Learner(engine.graph), counter
        self.events, self.synops = 0, 0
        (self._source,) = engine.graph.sources
        ends = [p for s in self.learner.synapses for p in (s.pre, s.post) if p is not None]
        self._traced = [p for p in engine.graph.neurons if p in ends]
        self._stepwise = any(r.rule.when == "step" for r in engine.graph.plasticity)

    @torch.inference_mode()
    def teach(self, job: Job, rate_scale: float = 1.0) -> np.ndarray:
        """Run the phases of `job` as one batch, and commit where they say; (N,) predictions."""
        x, y = self.engine.message(job.x), None if job.y is None else inward(job.y)
        constant: Mapping[str, Tensor] | None = None
        clamped = {self._source.name: trace(self._source, outward(x.double()))}
        ends: dict[str | None, Moment] = {None: self.engine.rest(len(x))}
        self._count({self._source.name: sent(x)})
        shown: np.ndarray | None = None
        for phase in job.phases:
            course = _Course(self.engine, self._traced, phase, ends[phase.start], clamped)
            if self._stepwise and phase.sign:
                self._teach_stepwise(course, y, x, rate_scale)
            else:
                constant = self.engine.constant_drive(x) if constant is None else constant
                course.run(constant, y, phase.steps)
                if phase.sign:
                    self.learner.accumulate(phase.sign, course.traces(), {})
                if phase.commit:
                    self.commit(len(x), rate_scale)
                    constant = None
            ends[phase.name] = course.moment
            self._count(course.sent)
            if shown is None:
                shown = course.output()
        assert shown is not None
        return shown.reshape(len(x), -1).argmax(1)

    def _teach_stepwise(
        self, course: _Course, y: Tensor | None, x: Tensor, rate_scale: float
    ) -> None:
        now = course.traces()
        for _ in range(course.phase.steps):
            before = now
            course.run(self.engine.constant_drive(x), y, 1)
            now = course.traces()
            self.learner.accumulate(course.phase.sign, now, before)
            if course.phase.commit:
                self.commit(len(x), rate_scale)

    def commit(self, samples: int, rate_scale: float) -> None:
        """Change the weights by their tags, and compute with the new ones."""
        self.learner.commit(samples, rate_scale)
        self.load()

    def load(self) -> None:
        """Compute with the learner's weights and biases."""
        self.engine.load(self.learner.operands(), self.learner.biases())

    def _count(self, counts: Mapping[str, Tensor]) -> None:
        for name, sent_by in counts.items():
            events, synops = self._counter(name, sent_by)
            self.events += int(events.sum())
            self.synops += int(synops.sum())


class _Course:
    """One phase of a batch on its way.

    Attributes
    ----------
    moment : Moment
        Where it stands.
    sent : dict of Tensor
        Messages of each neuron so far, by population.
    """

    def __init__(
        self,
        engine: Engine,
        traced: Collection[Population],
        phase: Phase,
        moment: Moment,
        clamped: Mapping[str, np.ndarray],
    ) -> None:
        self.engine, self.traced, self.phase = engine, traced, phase
        self.moment, self.clamped = moment, clamped
        self._spiking = {p.name for p in engine.graph.neurons if isinstance(p.dynamics, Spiking)}
        messages = {name: state.message for name, state in moment.states.items()}
        self.sent = {n: torch.zeros_like(m, dtype=torch.float32) for n, m in messages.items()}
        # Spikes of what is traced, weighted, and those of the output before the half that is read.
        weighed = [p.name for p in traced if p.name in self._spiking and phase.sign]
        self._weighted = {name: torch.zeros_like(messages[name]) for name in weighed}
        self._weights = spike_weights(phase.steps, from_rest=phase.start is None)
        self._early = self.sent[engine.graph.output].clone()
        self._steps = 0

    def run(self, constant: Mapping[str, Tensor], y: Tensor | None, steps: int) -> None:
        """`steps` steps of the engine, whose messages are counted."""
        for _ in range(steps):
            if self._steps == self.phase.steps // 2:
                self._early = self.sent[self.engine.graph.output].clone()
            self.moment = self.engine.step(self.moment, constant, self.phase, y)
            weight = int(self._weights[self._steps])
            self._steps += 1
            for name, weighted in self._weighted.items():
                if weight:
                    weighted.add_(self.moment.states[name].message, alpha=weight)
            for name, state in self.moment.states.items():
                spiking = name in self._spiking
                self.sent[name] += state.message if spiking else sent(state.message)

    def traces(self) -> dict[str, np.ndarray]:
        """Traces by population."""
        return {**self.clamped, **{p.name: self._trace(p) for p in self.traced}}

    def _trace(self, p: Population) -> np.ndarray:
        state = self.moment.states[p.name]
        if isinstance(p.dynamics, Spiking):
            return trace(p, outward(self._weighted[p.name].double()), int(self._weights.sum()))
        shown = state.sent if isinstance(p.dynamics, SigmaDelta) else state.z
        return trace(p, outward(shown.double()))

    def output(self) -> np.ndarray:
        """What the output shows, up to a gain; `RunError` if it is not finite."""
        output = self.engine.graph.population(self.engine.graph.output)
        # The readout of sigma-delta neurons is their state, of which receivers know a part.
        late = self.sent[output.name] - self._early
        shown = outward(late if output.name in self._spiking else self.moment.states[output.name].z)
        if not np.isfinite(shown).all():
            raise RunError(
                f"phase '{self.phase.name}'",
                f"the output is not finite after {self.phase.steps} steps",
                "lower the learning rate or the leak, or bound the populations",
            )
        return shown
