"""One call of a session's `learn`: what it was asked, and what it comes to."""

from __future__ import annotations

import math
import time

import numpy as np

from compilers.ir import Phase
from ep_neuro.errors import ConfigError, DataError
from targets.base import LearnResult, PhaseResult
from targets.lava.student import Student


def check_lesson(batch: int, rate_scale: float, most: int) -> None:
    """Refuse a batch or a rate that makes no sense, or more than `most` samples at once."""
    if batch < 1:
        raise DataError("batch", f"{batch} samples are below 1", "give 1, for instance")
    if not 0 < rate_scale < math.inf:
        raise DataError("rate_scale", f"{rate_scale} is not above 0", "give 1, for instance")
    if batch > most:
        problem = f"{batch} samples exceed the {most} that settle at once, the option 'batch'"
        raise ConfigError("batch", problem, "raise the option, or learn from fewer at a time")


class Lesson:
    """Collects a `LearnResult`, phase by phase.

    Attributes
    ----------
    student : Student
    samples : int
        How many will teach.
    rate_scale : float
    """

    def __init__(self, student: Student, samples: int, rate_scale: float) -> None:
        self.student, self.samples, self.rate_scale = student, samples, rate_scale
        learner = student.learner
        self._before = learner.commits, learner.clipped
        # From zero: a difference of sums is rounded by what came before, and a resumed run differs.
        learner.changed = 0.0
        self._began = time.perf_counter()
        self._first = learner.graph.phases[0].name
        self._stepwise = any(r.rule.when == "step" for r in learner.graph.plasticity)
        self._predictions: list[np.ndarray] = []
        self._events = self._synops = 0

    def note(self, phase: Phase, result: PhaseResult) -> None:
        """`phase` of the next batch has ended with `result`."""
        if phase.name == self._first:
            self._predictions.append(result.outputs.reshape(len(result.outputs), -1).argmax(1))
        self._events += sum(int(counts.sum()) for counts in result.events.values())
        self._synops += sum(int(counts.sum()) for counts in result.synops.values())

    def commits_of(self, phase: Phase) -> int:
        """How often weights change in `phase`, all samples at once."""
        if not phase.commit:
            return 0
        return phase.steps if self._stepwise and phase.sign else 1

    def result(self) -> LearnResult:
        """What all batches came to, as the student has read it."""
        learner = self.student.learner
        commits, clipped = self._before
        made = learner.commits - commits
        return LearnResult(
            predictions=np.concatenate(self._predictions),
            commits=made,
            events_per_sample=self._events / self.samples,
            synops_per_sample=self._synops / self.samples,
            changed=learner.changed / max(1, made),
            clipped=learner.clipped - clipped,
            seconds=time.perf_counter() - self._began,
        )
