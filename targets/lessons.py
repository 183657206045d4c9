"""Batch after batch of samples to a teacher: what `LearningSession.learn` is, on any target."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Protocol

import numpy as np

from compilers.ir import Graph
from compilers.learner import Learner
from ep_neuro.errors import DataError
from targets.base import LearnResult, Progress
from targets.inputs import Job, prepare


class Teacher(Protocol):
    """Runs the phases of a batch; counts the messages sent and the operations they caused."""

    learner: Learner
    events: int
    synops: int

    def teach(self, job: Job, rate_scale: float) -> np.ndarray:
        """Predictions (N,) of a batch before it commits."""
        ...


def learn(
    teacher: Teacher,
    graph: Graph,
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch: int,
    rate_scale: float,
    progress: Progress | None,
) -> LearnResult:
    """Learn from samples in their order; see `targets.base.LearningSession.learn`."""
    began = time.perf_counter()
    if batch < 1:
        raise DataError("batch", f"{batch} samples are below 1", "give 1, for instance")
    if not 0 < rate_scale < math.inf:
        raise DataError("rate_scale", f"{rate_scale} is not above 0", "give 1, for instance")
    job = prepare(graph, x, y)
    assert job.y is not None
    learner, samples = teacher.learner, len(job.x)
    commits, clipped = learner.commits, learner.clipped
    # From zero: a difference of sums is rounded by what came before, and a resumed run differs.
    learner.changed = 0.0
    teacher.events = teacher.synops = 0
    predictions = []
    for first in range(0, samples, batch):
        part = slice(first, first + batch)
        piece = replace(job, x=job.x[part], y=job.y[part])
        predictions.append(teacher.teach(piece, rate_scale))
        if progress is not None:
            progress(min(first + batch, samples), samples)
    made = learner.commits - commits
    return LearnResult(
        predictions=np.concatenate(predictions),
        commits=made,
        events_per_sample=teacher.events / samples,
        synops_per_sample=teacher.synops / samples,
        changed=learner.changed / max(1, made),
        clipped=learner.clipped - clipped,
        seconds=time.perf_counter() - began,
    )
