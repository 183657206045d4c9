"""A session, written once: it checks, divides, joins, times, learns and remembers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from compilers.ir.graph import Graph
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from ep_neuro.errors import DataError, RunError
from targets.interface.protocols import LearnResult, PhaseResult, Progress, RunResult
from targets.interface.request import RunRequest, prepare

S = TypeVar("S", bound="Session")

Settled = Callable[[Mapping[str, PhaseResult]], None]
"""Told of the phases of the next samples."""


class Session:
    """A program that is loaded and ready; a context manager that frees what it holds.

    A target overrides `_settle`, and, if it learns, `_teach`.

    Attributes
    ----------
    graph : Graph
        What runs.
    """

    def __init__(self, program: Program) -> None:
        self.graph: Graph = program.graph
        self._program = program
        self._learner: PlasticWeights | None = None
        self._closed = False
        self._events = self._synops = 0

    # --- what a target does --------------------------------------------------------------------

    def _settle(self, job: RunRequest, settled: Settled) -> None:
        """Run the phases of `job`, as many samples at a time as fit."""
        raise NotImplementedError

    def _teach(self, job: RunRequest, batch: int, rate_scale: float) -> np.ndarray:
        """Learn from the samples of `job`, `batch` at a time; predictions (N,) of before.

        `_count` has to be told of every phase.
        """
        raise NotImplementedError

    def _lesson(self, job: RunRequest, batch: int) -> int:
        """Get ready to learn from `job`; how many samples `_teach` is to be given at a time."""
        return batch

    def _fetch(self) -> None:
        """Bring the learner up to date with what runs."""

    def _free(self) -> None:
        """Free what is held."""

    # --- settling ------------------------------------------------------------------------------

    def settle(
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        *,
        steps: int | None = None,
        probes: Sequence[str] = (),
        updates: bool = False,
        progress: Progress | None = None,
    ) -> RunResult:
        """Settle inputs `x` (N, *input shape), in raw units; every sample starts at rest.

        Without `y` only the first (free) phase runs; with labels `y` (N,) or targets
        (N, classes) in real units, every phase of the program does. `steps` replaces the length
        of each phase. Each name in `probes` is ``population.variable``. With `updates`, targets
        that can count the membranes that change in the first phase.

        Raises
        ------
        DataError, GraphError, TargetError
            If inputs, targets, steps or probes do not fit the graph
            (`targets.interface.request.prepare`).
        RunError
            If the session is closed, the output is not finite, or what runs fails or takes too
            long.
        """
        self._refuse_closed()
        began = time.perf_counter()
        job = prepare(self.graph, x, y, steps=steps, probes=probes, updates=updates)
        parts: list[Mapping[str, PhaseResult]] = []
        done = 0

        def settled(part: Mapping[str, PhaseResult]) -> None:
            nonlocal done
            parts.append(part)
            done += len(next(iter(part.values())).outputs)
            if progress is not None:
                progress(done, len(job.x))

        self._settle(job, settled)
        phases = {p.name: PhaseResult.joined([part[p.name] for part in parts]) for p in job.phases}
        return RunResult(phases, time.perf_counter() - began)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id, as the target holds them."""
        self._refuse_closed()
        self._fetch()
        held = {} if self._learner is None else self._learner.weights
        arrays = self.graph.arrays
        return {name: held.get(name, arrays[name]).copy() for name in self.graph.ties}

    # --- learning ------------------------------------------------------------------------------

    @property
    def learner(self) -> PlasticWeights:
        """What has been learnt; made when it is first asked for, as most sessions only settle."""
        self._refuse_closed()
        if self._learner is None:
            self._learner = self._begun()
        return self._learner

    def _begun(self) -> PlasticWeights:
        """A learner that has learnt nothing."""
        return PlasticWeights(self.graph)

    def learn(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        batch: int = 1,
        rate_scale: float = 1.0,
        progress: Progress | None = None,
    ) -> LearnResult:
        """Learn from inputs `x` (N, *input shape) and labels (N,) or targets `y`, in this order.

        Samples run through the phases of the program `batch` at a time, and each batch commits as
        the program says: weights move by the mean over its samples. `rate_scale` multiplies every
        rate, as the controller of a chip may set it from call to call.

        Raises
        ------
        DataError, GraphError
            If inputs or targets do not fit, a batch or a rate makes no sense, or nothing learns.
        RunError
            As `settle`. Weights are then those of before the call.
        """
        began = time.perf_counter()
        learner = self.learner
        if batch < 1:
            raise DataError("batch", f"{batch} samples are below 1", "give 1, for instance")
        if not 0 < rate_scale < math.inf:
            raise DataError("rate_scale", f"{rate_scale} is not above 0", "give 1, for instance")
        job, before = prepare(self.graph, x, y), self.memory()
        each, samples, shown = self._lesson(job, batch), len(job.x), []
        commits, clipped = learner.commits, learner.clipped
        # From zero: a difference of sums is rounded by what came before, and a resumed run differs.
        learner.changed = 0.0
        self._events = self._synops = 0
        try:
            for first in range(0, samples, each):
                part = piece(job, slice(first, first + each))
                shown.append(self._teach(part, batch, rate_scale))
                if progress is not None:
                    progress(min(first + each, samples), samples)
            self._fetch()
        except RunError:
            self.restore(before)
            raise
        made = learner.commits - commits
        return LearnResult(
            predictions=np.concatenate(shown),
            commits=made,
            events_per_sample=self._events / samples,
            synops_per_sample=self._synops / samples,
            changed=learner.changed / max(1, made),
            clipped=learner.clipped - clipped,
            seconds=time.perf_counter() - began,
        )

    def _count(self, result: PhaseResult) -> None:
        self._events += sum(int(counts.sum()) for counts in result.events.values())
        self._synops += sum(int(counts.sum()) for counts in result.synops.values())

    def memory(self) -> dict[str, np.ndarray]:
        """A copy of all that learning needs in order to go on bit for bit, by name."""
        learner = self.learner
        self._fetch()
        return learner.memory()

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from the `memory` of a session; `RunError` if it is not of the same program."""
        self.learner.restore(memory)

    def learnt(self) -> Program:
        """The program with the present weights and biases."""
        learner = self.learner
        self._fetch()
        return replace(self._program, graph=learner.learnt())

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Free processes, memory and files; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._free()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RunError("session", "it is closed", "open the program again")

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def piece(job: RunRequest, part: slice) -> RunRequest:
    """The samples `part` of `job`."""
    return replace(job, x=job.x[part], y=None if job.y is None else job.y[part])


def classes(outputs: np.ndarray) -> np.ndarray:
    """The class with the largest output, (N,)."""
    return outputs.reshape(len(outputs), -1).argmax(1)
