"""A loaded program: samples go through the engine in chunks of bounded memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np

from compilers.artifact import Program
from compilers.ir import Conv, ConvTranspose, Graph
from ep_neuro.errors import RunError
from targets.base import PhaseResult, Progress, RunResult
from targets.inputs import prepare
from targets.reference.engine import Engine

CHUNK_BYTES = 16 << 20
"""Working memory of one chunk, probes apart: about what a cache holds, for larger is slower."""


class ReferenceSession:
    """Settles inputs; see `targets.base.Session`."""

    def __init__(self, program: Program) -> None:
        self._engine: Engine | None = Engine(program.graph)
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
            parts.append(engine.run(replace(job, x=job.x[chunk], y=targets)))
            if progress is not None:
                progress(min(first + self._chunk, samples), samples)
        phases = {p.name: PhaseResult.joined([part[p.name] for part in parts]) for p in job.phases}
        return RunResult(phases, time.perf_counter() - began)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id."""
        graph = self._open().graph
        return {name: graph.arrays[name].copy() for name in graph.ties}

    def close(self) -> None:
        """Forget the program; closing twice is harmless."""
        self._engine = None

    def _open(self) -> Engine:
        if self._engine is None:
            raise RunError("session", "it is closed", "open the program again")
        return self._engine

    def __enter__(self) -> ReferenceSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def bytes_per_sample(graph: Graph) -> int:
    """Working memory of one sample: states, sums, and the largest unrolled convolution."""
    states = sum(8 * p.size for p in graph.populations)
    sums = sum(graph.population(p.post).size for p in graph.projections)
    unrolled = 0
    for p in graph.projections:
        if isinstance(p.operator, Conv | ConvTranspose):
            _, fine_channels, *kernel = graph.arrays[p.weight].shape
            coarse = p.post if isinstance(p.operator, Conv) else p.pre
            places = math.prod(graph.population(coarse).shape[1:])
            unrolled = max(unrolled, fine_channels * math.prod(kernel) * places)
    return 8 * (states + sums + 2 * unrolled)
