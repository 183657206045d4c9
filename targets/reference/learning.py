"""Learning on the reference: a batch runs through the phases, tags fill, weights change."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from compilers.execution.engine import Batch, Engine
from compilers.execution.maps import outward
from compilers.ir.graph import Phase, Population, SigmaDelta, Spiking
from compilers.learning.plastic_weights import PlasticWeights
from compilers.learning.synapses import spike_weights, trace
from ep_neuro.errors import RunError
from targets.interface.phase_runner import Counter, Walk, sent
from targets.interface.request import RunRequest


class ReferenceLearner:
    """Lets the plastic weights of an engine learn.

    Attributes
    ----------
    learner : PlasticWeights
        What has been learnt.
    events, synops : int
        Messages sent so far and synaptic operations that they caused, all phases.
    """

    def __init__(self, engine: Engine, counter: Counter) -> None:
        self.engine, self.learner, self._counter = engine, PlasticWeights(engine.graph), counter
        self.events, self.synops = 0, 0
        (self._source,) = engine.graph.sources
        ends = [p for s in self.learner.synapses for p in (s.pre, s.post) if p is not None]
        self._traced = [p for p in engine.graph.neurons if p in ends]
        self._stepwise = any(r.rule.when == "step" for r in engine.graph.plasticity)

    @torch.inference_mode()
    def teach(self, job: RunRequest, rate_scale: float = 1.0) -> np.ndarray:
        """Run the phases of `job` as one batch, and commit where they say; (N,) predictions."""
        x, batch = self.engine.message(job.x), self.engine.batch(len(job.x))
        y = None if job.y is None else self.engine.target(job.y)
        clamped = {self._source.name: trace(self._source, outward(x.double()))}
        self._count(self._source.name, sent(x))
        batch.clamp(x, y)
        walk, stale = Walk(batch, job.phases), False
        shown: np.ndarray | None = None
        for phase in job.phases:
            walk.enter(phase)
            course = _PhaseRun(batch, self._traced, phase, y, clamped)
            if stale:
                batch.clamp(x, y)
            if self._stepwise and phase.sign:
                self._teach_stepwise(course, x, rate_scale)
            else:
                course.run(phase.steps)
                if phase.sign:
                    self.learner.accumulate(phase.sign, course.traces(), {})
                if phase.commit:
                    self.commit(len(x), rate_scale)
            stale = phase.commit
            walk.leave(phase)
            for p in self.engine.graph.neurons:
                self._count(p.name, course.sent(p.name))
            if shown is None:
                shown = course.output()
        assert shown is not None
        return shown.reshape(len(x), -1).argmax(1)

    def _teach_stepwise(self, course: _PhaseRun, x: Tensor, rate_scale: float) -> None:
        now = course.traces()
        for _ in range(course.phase.steps):
            before = now
            course.batch.clamp(x, course.y)
            course.run(1)
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

    def _count(self, name: str, sent: Tensor) -> None:
        events, synops = self._counter(name, sent)
        self.events += int(events.sum())
        self.synops += int(synops.sum())


class _PhaseRun:
    """One phase of a batch on its way.

    Parameters
    ----------
    batch : Batch
        Where the phase starts.
    traced : collection of Population
    phase : Phase
    y : Tensor, optional
        Targets, as the executor takes them.
    clamped : dict of ndarray
        Traces of the input.
    """

    def __init__(
        self,
        batch: Batch,
        traced: Collection[Population],
        phase: Phase,
        y: Tensor | None,
        clamped: Mapping[str, np.ndarray],
    ) -> None:
        self.batch, self.traced, self.phase, self.y = batch, traced, phase, y
        self.clamped = clamped
        self._sent = [torch.zeros_like(cells.message) for cells in batch.cells]
        # Spikes of what is traced, weighted, and those of the output before the half that is read.
        weighs = phase.sign and any(isinstance(p.dynamics, Spiking) for p in traced)
        self._weighted = [torch.zeros_like(sent) for sent in self._sent if weighs]
        self._weights = spike_weights(phase.steps, from_rest=phase.start is None)
        self._output = batch.engine.graph.population(batch.engine.graph.output)
        self._early = self.sent(self._output.name).clone()
        self._steps = 0

    def run(self, steps: int) -> None:
        """`steps` steps, whose messages are counted."""
        for _ in range(steps):
            if self._steps == self.phase.steps // 2:
                self._early = self.sent(self._output.name).clone()
            self.batch.step(self.phase, self.y)
            weight = int(self._weights[self._steps])
            self._steps += 1
            for cells, total in zip(self.batch.cells, self._sent, strict=True):
                spiking = isinstance(cells.dynamics, Spiking)
                total.add_(cells.message if spiking else sent(cells.message))
            if weight:
                for cells, weighted in zip(self.batch.cells, self._weighted, strict=False):
                    weighted.add_(cells.message, alpha=weight)

    def sent(self, name: str) -> Tensor:
        """How often the neurons of population `name` have sent, (N, *shape); it changes."""
        return self._part(self._sent, name)

    def _part(self, held: list[Tensor], name: str) -> Tensor:
        cells = self.batch.of[name]
        return cells.part(held[self.batch.cells.index(cells)], name)

    def traces(self) -> dict[str, np.ndarray]:
        """Traces by population."""
        return {**self.clamped, **{p.name: self._trace(p) for p in self.traced}}

    def _trace(self, p: Population) -> np.ndarray:
        if isinstance(p.dynamics, Spiking):
            weighted = outward(self._part(self._weighted, p.name).double())
            return trace(p, weighted, int(self._weights.sum()))
        shown = self.batch.view("sent" if isinstance(p.dynamics, SigmaDelta) else "z", p.name)
        return trace(p, outward(shown.double()))

    def output(self) -> np.ndarray:
        """What the output shows, up to a gain; `RunError` if it is not finite."""
        output = self._output
        # The readout of sigma-delta neurons is their state, of which receivers know a part.
        if isinstance(output.dynamics, Spiking):
            shown = outward(self.sent(output.name) - self._early)
        else:
            shown = np.array(outward(self.batch.view("z", output.name).double()))
        if not np.isfinite(shown).all():
            raise RunError(
                f"phase '{self.phase.name}'",
                f"the output is not finite after {self.phase.steps} steps",
                "lower the learning rate or the leak, or bound the populations",
            )
        return shown
