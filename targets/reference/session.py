"""A loaded program: samples go through the engine in chunks of bounded memory, or teach it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from compilers.artifact import Program
from compilers.execution.engine import Engine
from compilers.ir import Graph
from targets.base import Closing, LearnResult, PhaseResult, Progress, RunResult, closed
from targets.inputs import prepare
from targets.lessons import learn
from targets.reference.learning import Teacher
from targets.run import Counter, run

CHUNK_BYTES = 64 << 20
"""Working memory of one chunk, probes apart: a few caches, so that calls into torch pay."""


class ReferenceSession(Closing):
    """Settles inputs and learns from them; see `targets.base.LearningSession`."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._teacher: Teacher | None = None
        self._engine: Engine | None = Engine(program.graph)
        self._counter = Counter(self._engine)
        self._chunk = max(1, CHUNK_BYTES // bytes_per_sample(program.graph))

    def settle(
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        *,
        steps: int | None = None,
        probes: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> RunResult:
        """Settle inputs; see `targets.base.Session.settle`."""
        engine = self._open()
        began = time.perf_counter()
        job = prepare(engine.graph, x, y, steps=steps, probes=probes)
        samples, parts = len(job.x), []
        for first in range(0, samples, self._chunk):
            chunk = slice(first, first + self._chunk)
            targets = None if job.y is None else job.y[chunk]
            parts.append(run(engine, self._counter, replace(job, x=job.x[chunk], y=targets)))
            if progress is not None:
                progress(min(first + self._chunk, samples), samples)
        phases = {p.name: PhaseResult.joined([part[p.name] for part in parts]) for p in job.phases}
        return RunResult(phases, time.perf_counter() - began)

    def learn(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        batch: int = 1,
        rate_scale: float = 1.0,
        progress: Progress | None = None,
    ) -> LearnResult:
        """Learn from samples in their order; see `targets.base.LearningSession.learn`."""
        teacher = self._teach()
        return learn(
            teacher,
            teacher.engine.graph,
            x,
            y,
            batch=batch,
            rate_scale=rate_scale,
            progress=progress,
        )

    def memory(self) -> dict[str, np.ndarray]:
        """A copy of what learning needs; see `targets.base.LearningSession.memory`."""
        return self._teach().learner.memory()

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        teacher = self._teach()
        teacher.learner.restore(memory)
        teacher.load()

    def learnt(self) -> Program:
        """The program with the present weights and biases."""
        return replace(self._program, graph=self._teach().learner.learnt())

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id."""
        graph = self._open().graph
        held = {} if self._teacher is None else self._teacher.learner.weights
        return {name: held.get(name, graph.arrays[name]).copy() for name in graph.ties}

    def _teach(self) -> Teacher:
        # Made when it is first asked for: most sessions only settle.
        if self._teacher is None:
            self._teacher = Teacher(self._open(), self._counter)
        self._open()
        return self._teacher

    def close(self) -> None:
        """Forget the program; closing twice is harmless."""
        self._engine = self._teacher = None

    def _open(self) -> Engine:
        if self._engine is None:
            raise closed()
        return self._engine


def bytes_per_sample(graph: Graph) -> int:
    """Working memory of one sample: what neurons hold between two steps, and sums that arrive."""
    states = sum(p.size for p in graph.populations)
    sums = sum(graph.population(p.post).size for p in graph.projections)
    return 8 * (5 * states + 2 * sums)
