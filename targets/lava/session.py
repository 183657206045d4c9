"""A loaded program: batches of samples go through a guarded network of Lava Processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compilers.ir.graph import Graph, Phase
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from ep_neuro.errors import ConfigError
from targets.interface.fanout import require_finite
from targets.interface.protocols import PhaseResult
from targets.interface.refusals import refuse_first
from targets.interface.request import Probe, RunRequest
from targets.interface.session import Session, Settled, classes
from targets.lava.connections.loihi_rule import check_input
from targets.lava.connections.replicas import unlearnable
from targets.lava.learning.host_weights import HostWeights
from targets.lava.runtime.layout import (
    BATCHED,
    FAITHFUL,
    INPUT,
    OUTPUT,
    TARGET,
    NetworkLayout,
    layout_bytes,
    synapses,
)
from targets.lava.runtime.process import LavaProcess
from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays

OPTIONS = {"batch": 128, "lowering": BATCHED, "start_limit": 60.0, "time_limit": None}
"""Options of a program and their defaults: most samples that settle at once (batched only), the
lowering, seconds that Lava has to start, and seconds that a phase of one batch has to end (None: by
its work)."""

BOARD_BYTES = 256 << 20
"""Shared memory that the records of one batch may take; probes make batches smaller."""

KEPT = 3
"""Networks of one session that wait for work: one that settles many samples, one that learns from
few, and one that is looked at."""

LEARNING_LIMIT = f"the {{:g}} of Lava's own learning rule (lowering {FAITHFUL})"
"""What a program exceeds that asks too much of it."""

SPARE_SECONDS, STEP_SECONDS, OPERATION_SECONDS = 30.0, 0.05, 5e-8
"""Time limit of a phase: in all, by step, and by synaptic operation. Each is at least ten times
what two cores take."""


@dataclass(frozen=True)
class Network:
    """A network that runs: what it was planned for, what is shared with it, who guards it."""

    plan: NetworkLayout
    board: SharedArrays
    guard: LavaProcess

    def close(self) -> None:
        """End its processes and free the memory."""
        self.guard.close()
        self.board.close()


class LavaSession(Session):
    """Settles inputs on Lava and learns from them; see `targets.interface.session.Session`.

    Lava starts with the first call of `settle` or `learn`, which says how many samples there are.
    A call that needs more samples at once, more steps or other probes, or far fewer samples at
    once, to learn from, starts another network; the last `KEPT` of them wait for more work, and
    weights that one has learnt go over to the next that works.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._options = read_options(program.options)
        self._operations = synapses(program.graph)
        self._networks: list[Network] = []  # the one that works is the last
        self._student = HostWeights(program.graph) if program.graph.plasticity else None
        self._taught = False
        self._orders = 0

    @property
    def lowering(self) -> str:
        """``batched`` or ``faithful``."""
        return str(self._options["lowering"])

    def _settle(self, job: RunRequest, settled: Settled) -> None:
        plan = make_plan(self.graph, job, self._options["batch"], self.lowering)
        self._start(replace(plan, teaches=self._taught))
        batch = self._network.plan.batch
        for first in range(0, len(job.x), batch):
            settled(self._settle_batch(job, slice(first, min(first + batch, len(job.x)))))

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        self._fetch()
        super().restore(memory)
        if self._running:
            self._taking_part().write(self._network.board)

    def _free(self) -> None:
        while self._networks:
            self._networks.pop().close()

    # --- starting and stopping -----------------------------------------------------------------

    def _start(self, plan: NetworkLayout) -> None:
        """Let the network that works from now on be one that `plan` fits."""
        self._fetch()
        fitting = [n for n in self._networks if n.guard.alive and n.plan.fits(plan)]
        if self._running and self._network in fitting:
            return
        if fitting:
            self._networks.remove(fitting[-1])
            self._networks.append(fitting[-1])
        else:
            self._make_room()
            self._networks.append(self._started(plan))
        if self._student is not None:
            self._student.write(self._network.board)

    def _started(self, plan: NetworkLayout) -> Network:
        board = plan.board()
        if self._student is not None:
            self._student.write(board)
        try:
            guard = LavaProcess(
                "targets.lava.builders.batched:build",
                plan.message(board),
                start_limit=self._options["start_limit"],
                inherit=[board.fd],
            )
        except BaseException:
            board.close()
            raise
        return Network(plan, board, guard)

    def _make_room(self) -> None:
        """End the networks that have failed, and the one that has waited longest."""
        for network in [n for n in self._networks if not n.guard.alive]:
            self._networks.remove(network)
            network.close()
        while len(self._networks) >= KEPT:
            self._networks.pop(0).close()

    @property
    def _network(self) -> Network:
        """The network that works."""
        return self._networks[-1]

    @property
    def _running(self) -> bool:
        return bool(self._networks) and self._network.guard.alive

    # --- learning ------------------------------------------------------------------------------

    def _begun(self) -> PlasticWeights:
        if self.lowering == FAITHFUL:
            refuse_first(unlearnable(self.graph), LEARNING_LIMIT)
            self._taught = True
        return self._taking_part().learner

    def _taking_part(self) -> HostWeights:
        self._refuse_closed()
        if self._student is None:
            self._student = HostWeights(self.graph)  # it says that nothing learns
        return self._student

    def _fetch(self) -> None:
        if self._running and self._student is not None:
            self._student.read(self._network.board)

    def _lesson(self, job: RunRequest, batch: int) -> int:
        most = self._options["batch"]
        if self.lowering == BATCHED and batch > most:
            problem = f"{batch} samples exceed the {most} that settle at once, the option 'batch'"
            raise ConfigError("batch", problem, "raise the option, or learn from fewer at a time")
        if self.lowering == FAITHFUL and self.graph.quantised:
            check_input(job.x)
        self._start(make_lesson_plan(self.graph, job, batch, self.lowering))
        return batch

    def _teach(self, job: RunRequest, batch: int, rate_scale: float) -> np.ndarray:
        samples, faithful = len(job.x), self.lowering == FAITHFUL
        student, shown = self._taking_part(), []
        each = 1 if faithful else samples
        for first in range(0, samples, each):
            count = self._put(job, slice(first, first + each))
            for index, phase in enumerate(job.phases):
                order = replace(
                    self._order(job.phases, index),
                    sign=phase.sign,
                    commit=int(phase.commit and not faithful),
                    samples=samples,
                    commits=student.commits,
                )
                self._run_phase(phase, order, phase.nudge, rate_scale)
                result = self._read(phase, count, ())
                self._count(result)
                student.note(0 if faithful else self._commits_of(phase))
                if index == 0:
                    shown.append(classes(result.outputs))
        if faithful:
            self._commit(job.phases[-1], samples, rate_scale)
        return np.concatenate(shown)

    def _commits_of(self, phase: Phase) -> int:
        """How often weights change in `phase`, all samples at once."""
        stepwise = any(r.rule.when == "step" for r in self.graph.plasticity)
        return int(phase.commit) * (phase.steps if stepwise and phase.sign else 1)

    def _commit(self, last: Phase, samples: int, rate_scale: float) -> None:
        """A phase of no steps of a faithful network: the tags of a batch are complete."""
        student = self._taking_part()
        self._orders += 1
        order = PhaseCommand(self._orders, commit=1, samples=samples, commits=student.commits)
        self._run_phase(replace(last, name="commit", steps=0), order, 0.0, rate_scale)
        student.note(1)

    # --- running -------------------------------------------------------------------------------

    def _settle_batch(self, job: RunRequest, chunk: slice) -> dict[str, PhaseResult]:
        count, results = self._put(job, chunk), {}
        for index, phase in enumerate(job.phases):
            nudge = phase.nudge if job.y is not None else 0.0
            self._run_phase(phase, self._order(job.phases, index), nudge)
            results[phase.name] = self._read(phase, count, job.probes)
        return results

    def _put(self, job: RunRequest, chunk: slice) -> int:
        """Put the samples of `chunk` on the board; returns how many there are."""
        board, count = self._network.board, chunk.stop - chunk.start
        for field, values in ((INPUT, job.x), (TARGET, job.y)):
            board[field][:] = 0.0
            if values is not None:
                board[field][:count] = values[chunk]
        return count

    def _order(self, phases: Sequence[Phase], index: int) -> PhaseCommand:
        phase, names = phases[index], [p.name for p in phases]
        self._orders += 1
        return PhaseCommand(
            number=self._orders,
            phase=index,
            start=-1 if phase.start is None else names.index(phase.start),
            steps=phase.steps,
            keep=int(any(p.start == phase.name for p in phases)),
        )

    def _run_phase(
        self, phase: Phase, order: PhaseCommand, nudge: float, rate_scale: float = 1.0
    ) -> None:
        network = self._network
        network.board.write_order(order, nudge, rate_scale)
        limit = self._options["time_limit"]
        if limit is None:
            operations = network.plan.batch * self._operations
            step = STEP_SECONDS + OPERATION_SECONDS * operations
            limit = math.ceil(SPARE_SECONDS + phase.steps * step)
        steps = network.plan.lead + phase.steps
        network.guard.run(steps, limit, f"{phase.steps} steps of phase {phase.name}")

    def _read(self, phase: Phase, count: int, probes: Sequence[Probe]) -> PhaseResult:
        board = self._network.board
        output = self.graph.population(self.graph.output)
        shown = board[OUTPUT][:count]
        require_finite(shown, phase.name, phase.steps)
        names, steps = [p.name for p in self.graph.populations], phase.steps
        return PhaseResult(
            outputs=output.readout.offset + output.readout.gain * shown,
            events={n: board["events", n][:steps, :count].copy() for n in names},
            synops={n: board["synops", n][:steps, :count].copy() for n in names},
            probes={p.name: board["probe", p.name][:steps, :count].copy() for p in probes},
            saturations={
                n: int(board["saturations", n][:count].sum())
                for n in (names if self.graph.quantised else ())
            },
        )


def make_plan(graph: Graph, job: RunRequest, most: int, lowering: str = BATCHED) -> NetworkLayout:
    """The plan for `job`: batches of equal size, at most `most`, within the memory for records."""
    steps = max(p.steps for p in job.phases)
    if lowering == FAITHFUL:
        return NetworkLayout(graph, 1, steps, job.probes, lowering=lowering)
    one, two = (layout_bytes(NetworkLayout(graph, n, steps, job.probes).layout) for n in (1, 2))
    most = max(1, min(most, BOARD_BYTES // (two - one)))
    batches = math.ceil(len(job.x) / most)
    return NetworkLayout(graph, math.ceil(len(job.x) / batches), steps, job.probes)


def make_lesson_plan(
    graph: Graph, job: RunRequest, batch: int, lowering: str = BATCHED
) -> NetworkLayout:
    """The plan to learn from `job`, `batch` samples at a time."""
    steps = max(p.steps for p in job.phases)
    if lowering == FAITHFUL:
        return NetworkLayout(graph, 1, steps, lowering=lowering, teaches=True)
    return NetworkLayout(graph, min(batch, len(job.x)), steps, strict=True)


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
