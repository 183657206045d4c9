"""A loaded program: samples go through the engine in chunks of bounded memory, or teach it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compilers.execution.engine import Engine
from compilers.ir.graph import Graph
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from targets.interface.phase_runner import Counter, run
from targets.interface.request import RunRequest
from targets.interface.session import Session, Settled, piece
from targets.reference.learning import ReferenceLearner

CHUNK_BYTES = 64 << 20
"""Working memory of one chunk, probes apart: a few caches, so that calls into torch pay."""


class ReferenceSession(Session):
    """Settles inputs and learns from them; see `targets.interface.session.Session`."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._teacher: ReferenceLearner | None = None
        self._engine = Engine(program.graph)
        self._counter = Counter(self._engine)
        self._chunk = max(1, CHUNK_BYTES // bytes_per_sample(program.graph))

    def _settle(self, job: RunRequest, settled: Settled) -> None:
        for first in range(0, len(job.x), self._chunk):
            part = piece(job, slice(first, first + self._chunk))
            settled(run(self._engine, self._counter, part))

    def _begun(self) -> PlasticWeights:
        self._teacher = ReferenceLearner(self._engine, self._counter)
        return self._teacher.learner

    def _teach(self, job: RunRequest, batch: int, rate_scale: float) -> np.ndarray:
        teacher = self._teacher
        assert teacher is not None
        teacher.events = teacher.synops = 0
        predictions = teacher.teach(job, rate_scale)
        self._events += teacher.events
        self._synops += teacher.synops
        return predictions

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        super().restore(memory)
        assert self._teacher is not None
        self._teacher.load()


def bytes_per_sample(graph: Graph) -> int:
    """Working memory of one sample: what neurons hold between two steps, and sums that arrive."""
    states = sum(p.size for p in graph.populations)
    sums = sum(graph.population(p.post).size for p in graph.projections)
    return 8 * (10 * states + 2 * sums)
