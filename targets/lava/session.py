"""A loaded program: batches of samples go through a guarded network of Lava Processes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np

from compilers.artifact import Program
from compilers.ir import Graph, Phase
from ep_neuro.errors import ConfigError, RunError
from targets.base import PhaseResult, Progress, RunResult
from targets.inputs import Job, Probe, prepare
from targets.lava.board import Board, Order
from targets.lava.guard import Guard
from targets.lava.plan import (
    BATCHED,
    FAITHFUL,
    INPUT,
    OUTPUT,
    TARGET,
    Plan,
    events_field,
    layout_bytes,
    probe_field,
    saturations_field,
    synapses,
    synops_field,
)

OPTIONS = {"batch": 128, "lowering": BATCHED, "start_limit": 60.0, "time_limit": None}
"""Options of a program and their defaults: most samples that settle at once (batched only), the
lowering, seconds that Lava has to start, and seconds that a phase of one batch has to end (None: by
its work)."""

BOARD_BYTES = 256 << 20
"""Shared memory that the records of one batch may take; probes make batches smaller."""

SPARE_SECONDS, STEP_SECONDS, OPERATION_SECONDS = 30.0, 0.05, 5e-8
"""Time limit of a phase: in all, by step, and by synaptic operation. Each is at least ten times
what two cores take."""


class LavaSession:
    """Settles inputs on Lava; see `targets.base.Session`.

    Lava starts with the first call of `settle`, which says how many samples there are, and again
    where a later call needs more samples at once, more steps or other probes.
    """

    def __init__(self, program: Program) -> None:
        self._graph: Graph = program.graph
        self._options = read_options(program.options)
        self._operations = synapses(program.graph)
        self._plan: Plan | None = None
        self._board: Board | None = None
        self._guard: Guard | None = None
        self._orders = 0
        self._closed = False

    @property
    def lowering(self) -> str:
        """``batched`` or ``faithful``."""
        return str(self._options["lowering"])

    def settle(
        self,
        x: np.ndarray,
        y: np.ndarray | None = None,
        *,
        steps: int | None = None,
        probes: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> RunResult:
        """Settle inputs; see `targets.base.Session.settle`.

        Raises
        ------
        RunError
            If a process raises, dies or exceeds its time limit, or the session is closed.
        """
        if self._closed:
            raise RunError("session", "it is closed", "open the program again")
        began = time.perf_counter()
        job = prepare(self._graph, x, y, steps=steps, probes=probes)
        self._start(job)
        assert self._plan is not None
        samples, batch = len(job.x), self._plan.batch
        parts: list[dict[str, PhaseResult]] = []
        for first in range(0, samples, batch):
            last = min(first + batch, samples)
            parts.append(self._settle_batch(job, slice(first, last)))
            if progress is not None:
                progress(last, samples)
        phases = {p.name: PhaseResult.joined([part[p.name] for part in parts]) for p in job.phases}
        return RunResult(phases, time.perf_counter() - began)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id."""
        return {name: self._graph.arrays[name].copy() for name in self._graph.ties}

    def close(self) -> None:
        """End all processes and free the memory; closing twice is harmless."""
        self._closed = True
        self._stop()

    def __enter__(self) -> LavaSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- starting and stopping -----------------------------------------------------------------

    def _start(self, job: Job) -> None:
        plan = make_plan(self._graph, job, self._options["batch"], self.lowering)
        running = self._guard is not None and self._guard.alive
        if running and self._plan and self._plan.fits(plan.batch, plan.steps, plan.probes):
            return
        self._stop()
        self._board = Board.create(plan.layout)
        self._plan = replace(plan, fd=self._board.fd)
        self._guard = Guard(
            "targets.lava.network:build",
            self._plan,
            start_limit=self._options["start_limit"],
            inherit=[self._board.fd],
        )

    def _stop(self) -> None:
        if self._guard is not None:
            self._guard.close()
        if self._board is not None:
            self._board.close()
        self._plan = self._board = self._guard = None

    # --- running -------------------------------------------------------------------------------

    def _settle_batch(self, job: Job, chunk: slice) -> dict[str, PhaseResult]:
        assert self._board is not None
        count = chunk.stop - chunk.start
        for field, values in ((INPUT, job.x), (TARGET, job.y)):
            self._board[field][:] = 0.0
            if values is not None:
                self._board[field][:count] = values[chunk]
        results = {}
        for index, phase in enumerate(job.phases):
            self._run_phase(job.phases, index, nudge=phase.nudge if job.y is not None else 0.0)
            results[phase.name] = self._read(phase, count, job.probes)
        return results

    def _run_phase(self, phases: Sequence[Phase], index: int, nudge: float) -> None:
        assert self._board is not None
        assert self._plan is not None
        assert self._guard is not None
        phase = phases[index]
        names = [p.name for p in phases]
        self._orders += 1
        order = Order(
            number=self._orders,
            phase=index,
            start=-1 if phase.start is None else names.index(phase.start),
            steps=phase.steps,
            keep=int(any(p.start == phase.name for p in phases)),
        )
        self._board.write_order(order, nudge)
        limit = self._options["time_limit"]
        if limit is None:
            operations = self._plan.batch * self._operations
            step = STEP_SECONDS + OPERATION_SECONDS * operations
            limit = math.ceil(SPARE_SECONDS + phase.steps * step)
        steps = self._plan.lead + phase.steps
        self._guard.run(steps, limit, f"{phase.steps} steps of phase {phase.name}")

    def _read(self, phase: Phase, count: int, probes: Sequence[Probe]) -> PhaseResult:
        board = self._board
        assert board is not None
        output = self._graph.population(self._graph.output)
        shown = board[OUTPUT][:count]
        if not np.isfinite(shown).all():
            problem = f"the output is not finite after {phase.steps} steps"
            remedy = "lower the leak, or bound the populations"
            raise RunError(f"phase '{phase.name}'", problem, remedy)
        names, steps = [p.name for p in self._graph.populations], phase.steps
        return PhaseResult(
            outputs=output.readout.offset + output.readout.gain * shown,
            events={n: board[events_field(n)][:steps, :count].copy() for n in names},
            synops={n: board[synops_field(n)][:steps, :count].copy() for n in names},
            probes={
                p.name: board[probe_field(p.population, p.variable)][:steps, :count].copy()
                for p in probes
            },
            saturations={
                n: int(board[saturations_field(n)][:count].sum())
                for n in (names if self._graph.quantised else ())
            },
        )


def make_plan(graph: Graph, job: Job, most: int, lowering: str = BATCHED) -> Plan:
    """The plan for `job`: batches of equal size, at most `most`, within the memory for records."""
    steps = max(p.steps for p in job.phases)
    if lowering == FAITHFUL:
        return Plan(graph, 1, steps, job.probes, lowering=lowering)
    one = layout_bytes(Plan(graph, 1, steps, job.probes).layout)
    most = max(1, min(most, BOARD_BYTES // one))
    batches = math.ceil(len(job.x) / most)
    return Plan(graph, math.ceil(len(job.x) / batches), steps, job.probes)


def read_options(given: Any) -> dict[str, Any]:
    """`OPTIONS` with those that a program brings; `ConfigError` for one out of range."""
    options = {**OPTIONS, **{k: v for k, v in dict(given).items() if k in OPTIONS}}
    batch = options["batch"]
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise ConfigError("option batch", f"{batch!r} is no count of samples", "give 1 or more")
    lowering = options["lowering"]
    if lowering not in (BATCHED, FAITHFUL):
        how = f"choose {BATCHED} or {FAITHFUL}"
        raise ConfigError("option lowering", f"{lowering!r} is no lowering", how)
    for name in ("start_limit", "time_limit"):
        value = options[name]
        unlimited = value is None and OPTIONS[name] is None
        if not unlimited and not (isinstance(value, int | float) and value > 0):
            raise ConfigError(f"option {name}", f"{value!r} is no time", "give seconds above 0")
    return options
