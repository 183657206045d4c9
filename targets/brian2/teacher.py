"""The caller's end of a lesson: batches become runs that learn, and what was learnt comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from compilers.ir import Graph
from compilers.learner import Learner
from targets.base import PhaseResult
from targets.brian2.lesson import Syllabus
from targets.inputs import Job as Request

Run = Callable[[Request, Syllabus], tuple[dict[str, PhaseResult], dict[str, np.ndarray]]]
"""Runs samples that learn; gives their phases, and the memory afterwards."""

CHANGED = "changed"
"""Key, beside a memory, of the mean change of a weight summed over the commits of a run."""


class Teacher:
    """Lets the plastic weights of a graph learn; see `targets.lessons.Teacher`.

    Attributes
    ----------
    batch : int
        Samples that commit together.
    """

    def __init__(self, graph: Graph, run: Run) -> None:
        self.learner, self.batch = Learner(graph), 1
        self.events, self.synops = 0, 0
        self._graph, self._run = graph, run

    def teach(self, job: Request, rate_scale: float) -> np.ndarray:
        """Learn from many batches, the last of which may be smaller; (N,) predictions."""
        whole = len(job.x) - len(job.x) % self.batch
        shown = []
        for part, side in ((slice(0, whole), self.batch), (slice(whole, None), len(job.x) - whole)):
            assert job.y is not None
            piece = replace(job, x=job.x[part], y=job.y[part])
            if len(piece.x):
                shown.append(self._learn(piece, side, rate_scale))
        return np.concatenate(shown)

    def _learn(self, job: Request, side: int, rate_scale: float) -> np.ndarray:
        syllabus = Syllabus(self._graph, self.learner.memory(), side, rate_scale)
        phases, memory = self._run(job, syllabus)
        self.learner.changed += float(memory.pop(CHANGED))
        self.learner.restore(memory)
        for phase in phases.values():
            self.events += sum(int(e.sum()) for e in phase.events.values())
            self.synops += sum(int(e.sum()) for e in phase.synops.values())
        free = phases[job.phases[0].name].outputs
        return free.reshape(len(free), -1).argmax(1)
