"""A loaded program: batches of samples go through a guarded network of Lava Processes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compilers.artifact import Program
from compilers.ir import Graph, Phase
from ep_neuro.errors import ConfigError, TargetError
from targets.base import Closing, LearnResult, PhaseResult, Progress, RunResult, closed
from targets.inputs import Job, Probe, prepare
from targets.lava.board import Board, Order
from targets.lava.copies import unlearnable
from targets.lava.fixed_point import check_input
from targets.lava.guard import Guard
from targets.lava.lesson import Lesson, check_lesson
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
from targets.lava.student import Student
from targets.records import require_finite

OPTIONS = {"batch": 128, "lowering": BATCHED, "start_limit": 60.0, "time_limit": None}
"""Options of a program and their defaults: most samples that settle at once (batched only), the
lowering, seconds that Lava has to start, and seconds that a phase of one batch has to end (None: by
its work)."""

BOARD_BYTES = 256 << 20
"""Shared memory that the records of one batch may take; probes make batches smaller."""

SPARE_SECONDS, STEP_SECONDS, OPERATION_SECONDS = 30.0, 0.05, 5e-8
"""Time limit of a phase: in all, by step, and by synaptic operation. Each is at least ten times
what two cores take."""


class LavaSession(Closing):
    """Settles inputs on Lava and learns from them; see `targets.base.LearningSession`.

    Lava starts with the first call of `settle` or `learn`, which says how many samples there are,
    and again where a later call needs more samples at once, more steps or other probes; or far
    fewer samples at once, to learn from.
    """

    def __init__(self, program: Program) -> None:
        self._graph: Graph = program.graph
        self._options = read_options(program.options)
        self._operations = synapses(program.graph)
        self._plan: Plan | None = None
        self._board: Board | None = None
        self._guard: Guard | None = None
        self._student = Student(program.graph) if program.graph.plasticity else None
        self._taught = False
        self._program = program
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
        self._refuse_closed()
        began = time.perf_counter()
        job = prepare(self._graph, x, y, steps=steps, probes=probes)
        plan = make_plan(self._graph, job, self._options["batch"], self.lowering)
        self._start(replace(plan, teaches=self._taught))
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

    def learn(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        batch: int = 1,
        rate_scale: float = 1.0,
        progress: Progress | None = None,
    ) -> LearnResult:
        """Learn from samples in their order; see `targets.base.LearningSession.learn`.

        Raises
        ------
        RunError
            If a process raises, dies or exceeds its time limit, or the session is closed. What has
            been learnt since the call is lost.
        ConfigError
            If `batch` exceeds the option of the same name.
        """
        student = self._teach()
        at_once = self._options["batch"] if self.lowering == BATCHED else batch
        check_lesson(batch, rate_scale, at_once)
        job = prepare(self._graph, x, y)
        if self.lowering == FAITHFUL and self._graph.quantised:
            check_input(job.x)
        self._start(make_lesson_plan(self._graph, job, batch, self.lowering))
        lesson = Lesson(student, len(job.x), rate_scale)
        for first in range(0, lesson.samples, batch):
            last = min(first + batch, lesson.samples)
            self._teach_batch(job, slice(first, last), lesson)
            if progress is not None:
                progress(last, lesson.samples)
        self._fetch()
        return lesson.result()

    def memory(self) -> dict[str, np.ndarray]:
        """A copy of what learning needs; see `targets.base.LearningSession.memory`."""
        student = self._teach()
        self._fetch()
        return student.learner.memory()

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        student = self._teach()
        self._fetch()
        student.restore(memory)
        if self._board is not None:
            student.write(self._board)

    def learnt(self) -> Program:
        """The program with the present weights and biases."""
        student = self._teach()
        self._fetch()
        return replace(self._program, graph=student.learner.learnt())

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id."""
        self._fetch()
        held = {} if self._student is None else self._student.learner.weights
        arrays = self._graph.arrays
        return {name: held.get(name, arrays[name]).copy() for name in self._graph.ties}

    def close(self) -> None:
        """End all processes and free the memory; closing twice is harmless."""
        self._closed = True
        self._stop()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise closed()

    # --- starting and stopping -----------------------------------------------------------------

    def _start(self, plan: Plan) -> None:
        if self._running and self._plan is not None and self._plan.fits(plan):
            return
        self._stop()
        self._plan, self._board = plan, plan.board()
        if self._student is not None:
            self._student.write(self._board)
        self._guard = Guard(
            "targets.lava.network:build",
            plan.message(self._board),
            start_limit=self._options["start_limit"],
            inherit=[self._board.fd],
        )

    @property
    def _running(self) -> bool:
        return self._guard is not None and self._guard.alive

    def _stop(self) -> None:
        self._fetch()
        if self._guard is not None:
            self._guard.close()
        if self._board is not None:
            self._board.close()
        self._plan = self._board = self._guard = None

    # --- learning ------------------------------------------------------------------------------

    def _teach(self) -> Student:
        self._refuse_closed()
        if self._student is None:
            self._student = Student(self._graph)  # it says that nothing learns
        if self.lowering == FAITHFUL and not self._taught:
            _refuse_unlearnable(self._graph)
            self._taught = True
        return self._student

    def _fetch(self) -> None:
        if self._running and self._student is not None and self._board is not None:
            self._student.read(self._board)

    def _teach_batch(self, job: Job, chunk: slice, lesson: Lesson) -> None:
        samples, faithful = chunk.stop - chunk.start, self.lowering == FAITHFUL
        each = 1 if faithful else samples
        for first in range(chunk.start, chunk.stop, each):
            count = self._put(job, slice(first, first + each))
            for index, phase in enumerate(job.phases):
                order = replace(
                    self._order(job.phases, index),
                    sign=phase.sign,
                    commit=int(phase.commit),
                    samples=samples,
                    commits=lesson.student.commits,
                )
                self._run_phase(phase, order, phase.nudge, lesson.rate_scale)
                lesson.note(phase, self._read(phase, count, ()))
                lesson.student.note(0 if faithful else lesson.commits_of(phase))
        if faithful:
            self._commit(job.phases[-1], samples, lesson)

    def _commit(self, last: Phase, samples: int, lesson: Lesson) -> None:
        """One word to a faithful network, a phase of no steps: the tags of a batch are complete."""
        self._orders += 1
        order = Order(self._orders, commit=1, samples=samples, commits=lesson.student.commits)
        self._run_phase(replace(last, name="commit", steps=0), order, 0.0, lesson.rate_scale)
        lesson.student.note(1)

    # --- running -------------------------------------------------------------------------------

    def _settle_batch(self, job: Job, chunk: slice) -> dict[str, PhaseResult]:
        count, results = self._put(job, chunk), {}
        for index, phase in enumerate(job.phases):
            nudge = phase.nudge if job.y is not None else 0.0
            self._run_phase(phase, self._order(job.phases, index), nudge)
            results[phase.name] = self._read(phase, count, job.probes)
        return results

    def _put(self, job: Job, chunk: slice) -> int:
        """Put the samples of `chunk` on the board; returns how many there are."""
        assert self._board is not None
        count = chunk.stop - chunk.start
        for field, values in ((INPUT, job.x), (TARGET, job.y)):
            self._board[field][:] = 0.0
            if values is not None:
                self._board[field][:count] = values[chunk]
        return count

    def _order(self, phases: Sequence[Phase], index: int) -> Order:
        phase, names = phases[index], [p.name for p in phases]
        self._orders += 1
        return Order(
            number=self._orders,
            phase=index,
            start=-1 if phase.start is None else names.index(phase.start),
            steps=phase.steps,
            keep=int(any(p.start == phase.name for p in phases)),
        )

    def _run_phase(self, phase: Phase, order: Order, nudge: float, rate_scale: float = 1.0) -> None:
        assert self._board is not None
        assert self._plan is not None
        assert self._guard is not None
        self._board.write_order(order, nudge, rate_scale)
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
        require_finite(shown, phase.name, phase.steps)
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
    one, two = (layout_bytes(Plan(graph, n, steps, job.probes).layout) for n in (1, 2))
    most = max(1, min(most, BOARD_BYTES // (two - one)))
    batches = math.ceil(len(job.x) / most)
    return Plan(graph, math.ceil(len(job.x) / batches), steps, job.probes)


def make_lesson_plan(graph: Graph, job: Job, batch: int, lowering: str = BATCHED) -> Plan:
    """The plan to learn from `job`, `batch` samples at a time."""
    steps = max(p.steps for p in job.phases)
    if lowering == FAITHFUL:
        return Plan(graph, 1, steps, lowering=lowering, teaches=True)
    return Plan(graph, min(batch, len(job.x)), steps, strict=True)


def _refuse_unlearnable(graph: Graph) -> None:
    violations = unlearnable(graph)
    if violations:
        first = violations[0]
        more = f" ({len(violations)} violations in all)" if len(violations) > 1 else ""
        limit = f"the {first.limit:g} of Lava's own learning rule (lowering {FAITHFUL})"
        raise TargetError(first.subject, f"{first.value:g} exceed {limit}{more}", first.remedy)


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
