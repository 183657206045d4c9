"""A loaded program: batches of samples go through a supervised network of Lava Processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compilers.ir.graph import Phase
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from ep_neuro.errors import ConfigError, GraphError, RunError
from targets.interface.fanout import require_finite, synapses_of
from targets.interface.options import COUNT, SECONDS, Values, checked
from targets.interface.protocols import PhaseResult
from targets.interface.refusals import refuse_first
from targets.interface.request import Probe, RunRequest
from targets.interface.session import Session, Settled, classes, piece
from targets.lava.connections.loihi_rule import check_input
from targets.lava.connections.replicas import unlearnable
from targets.lava.runtime.host_weights import HostWeights
from targets.lava.runtime.layout import (
    BATCHED,
    FAITHFUL,
    INPUT,
    OUTPUT,
    PROBED,
    TARGET,
    NetworkLayout,
)
from targets.lava.runtime.process import LavaProcess
from targets.lava.runtime.shared_memory import (
    ALIGNMENT,
    PLANNED,
    PhaseCommand,
    SharedArrays,
    size_of,
)

OPTIONS: Mapping[str, Any] = {
    "batch": 128,
    "lowering": BATCHED,
    "start_limit": 60.0,
    "time_limit": None,
}
"""Options of a program and their defaults: most samples that settle at once (batched only), the
lowering, seconds that Lava has to start, and seconds that a phase of one batch has to end (None: by
its work)."""

ALLOWED: Mapping[str, Values] = {
    "batch": COUNT,
    "lowering": (BATCHED, FAITHFUL),
    "start_limit": SECONDS,
    "time_limit": SECONDS,
}

BUILDER = "targets.lava.builders.batched"
"""The module that builds what a layout says, inside Lava's own Python."""

SHARED_BYTES = 256 << 20
"""Shared memory that the records of one batch may take, in equal shares for its phases; probes make
batches smaller. One sample, or those of a lesson, may take more."""

LEARNING_LIMIT = f"the {{:g}} of Lava's own learning rule (lowering {FAITHFUL})"
"""What a program exceeds that asks too much of it."""

SPARE_SECONDS, STEP_SECONDS, OPERATION_SECONDS = 30.0, 0.05, 5e-8
"""Time limit of a phase: in all, by step, and by synaptic operation. Each is at least ten times
what two cores take."""


SMALL = 10**9
"""Synaptic operations, if all neurons send, of the batches that learn in one run of Lava. A run
costs milliseconds; of one with more to do nobody would see how far it is."""


@dataclass(frozen=True)
class Network:
    """A network that runs: its layout, what is shared with it, and its process."""

    layout: NetworkLayout
    shared: SharedArrays
    process: LavaProcess

    def close(self) -> None:
        """End its processes and free the memory."""
        self.process.close()
        self.shared.close()


class LavaSession(Session):
    """Settles inputs on Lava and learns from them; see `targets.interface.session.Session`.

    Lava starts once, with the first call of `settle` or `learn`, and does all that follows. Another
    start is due only after a failure, and where the records of one sample do not fit.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        graph = program.graph
        self._options = checked("lava", OPTIONS, program.options, ALLOWED)
        if self.lowering == FAITHFUL and any(p.difference for p in graph.phases):
            problem = "its nudged phases send differences, and Lava's own processes send states"
            raise GraphError(f"graph '{graph.name}'", problem, f"use lowering {BATCHED}")
        # Of one step in which every neuron sends.
        self._operations = sum(int(synapses_of(graph, p).sum()) for p in graph.neurons)
        self._held: Network | None = None
        self._host = HostWeights(graph) if graph.plasticity else None

    @property
    def lowering(self) -> str:
        """``batched`` or ``faithful``."""
        return str(self._options["lowering"])

    def _settle(self, job: RunRequest, settled: Settled) -> None:
        steps = max(p.steps for p in job.phases)
        layout = self._started(steps, 1, job.probes).layout
        batch = layout.rows(len(job.x), steps, job.probes)
        for first in range(0, len(job.x), batch):
            settled(*self._run([piece(job, slice(first, first + batch))]))

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        self._fetch()
        super().restore(memory)
        if self._running:
            self._weights.write(self._running.shared)

    def _free(self) -> None:
        if self._held is not None:
            self._held.close()

    # --- starting and stopping -----------------------------------------------------------------

    def _started(self, steps: int, rows: int, probes: Sequence[Probe] = ()) -> Network:
        """The network, with room for the records of so many steps, samples and probes."""
        most = 1 if self.lowering == FAITHFUL else self._options["batch"]
        share = SHARED_BYTES // max(1, len(self.graph.phases)) // ALIGNMENT * ALIGNMENT
        layout = NetworkLayout(self.graph, most, share, self.lowering)
        room = size_of(layout.records(steps, rows, probes))
        if self._running and room <= self._running.layout.room:
            return self._running
        self._fetch()
        self._free()
        self._held = self._start(replace(layout, room=max(room, layout.room)))
        if self._host is not None:
            self._host.write(self._held.shared)
        return self._held

    def _start(self, layout: NetworkLayout) -> Network:
        shared = layout.allocate()
        try:
            process = LavaProcess(
                f"{BUILDER}:build",
                layout.message(shared),
                start_limit=self._options["start_limit"],
                inherit=[shared.fd],
                prepare=[f"{BUILDER}:compile_steps"] if layout.graph.quantised else [],
            )
        except BaseException:
            shared.close()
            raise
        return Network(layout, shared, process)

    @property
    def _running(self) -> Network | None:
        """The network, if there is one that has not failed."""
        return self._held if self._held is not None and self._held.process.alive else None

    @property
    def _network(self) -> Network:
        """The network, which has started."""
        assert self._held is not None
        return self._held

    # --- learning ------------------------------------------------------------------------------

    @property
    def _weights(self) -> HostWeights:
        if self._host is None:
            self._host = HostWeights(self.graph)  # it says that nothing learns
        return self._host

    def _begun(self) -> PlasticWeights:
        if self.lowering == FAITHFUL:
            refuse_first(unlearnable(self.graph), LEARNING_LIMIT)
        return self._weights.learner

    def _fetch(self) -> None:
        if self._host is None:
            return
        if self._running:
            self._host.read(self._running.shared)
        elif self._host.ahead:
            self._host.ahead = 0
            problem = "the session has ended, and with it what was learnt since the call"
            raise RunError("lava", problem, "learn again")

    def _lesson(self, job: RunRequest, batch: int) -> int:
        most = self._options["batch"]
        if self.lowering == BATCHED and batch > most:
            problem = f"{batch} samples exceed the {most} that settle at once, the option 'batch'"
            raise ConfigError("batch", problem, "raise the option, or learn from fewer at a time")
        if self.lowering == FAITHFUL and self.graph.quantised:
            check_input(job.x)
        steps = [p.steps for p in job.phases]
        if self.lowering == FAITHFUL:
            self._started(max(steps), 1)
            return batch
        self._started(max(steps), batch)
        work = max(1, sum(steps) * batch * self._operations)
        return batch * max(1, min(PLANNED // len(steps), most // batch, SMALL // work))

    def _teach(self, job: RunRequest, batch: int, rate_scale: float) -> np.ndarray:
        faithful = self.lowering == FAITHFUL
        each = 1 if faithful else batch
        parts = [piece(job, slice(at, at + each)) for at in range(0, len(job.x), each)]
        lesson = PhaseCommand(samples=len(job.x) if faithful else 0, rate_scale=rate_scale)
        groups = [[part] for part in parts] if faithful else [parts]
        ran = [results for group in groups for results in self._run(group, lesson)]
        for result in (result for results in ran for result in results.values()):
            self._count(result)
        if faithful:
            # The tags of all samples are complete; a phase of no steps.
            self._do("commit", [replace(lesson, commit=1, commits=self._weights.commits)])
            self._weights.ahead += 1
        return np.concatenate([classes(results[job.phases[0].name].outputs) for results in ran])

    def _commits_of(self, phase: Phase) -> int:
        """How often weights change in `phase`, where they do so within the phases."""
        if not phase.commit or self.lowering == FAITHFUL:
            return 0
        stepwise = any(r.rule.when == "step" for r in self.graph.plasticity)
        return phase.steps if stepwise and phase.sign else 1

    # --- running -------------------------------------------------------------------------------

    def _run(
        self, jobs: Sequence[RunRequest], lesson: PhaseCommand | None = None
    ) -> list[dict[str, PhaseResult]]:
        """Run the phases of each of `jobs`, all of its samples at once; they teach if `lesson`.

        The samples of all fit into the shared input.
        """
        shared, first = self._network.shared, 0
        commands: list[PhaseCommand] = []
        planned: list[tuple[RunRequest, list[PhaseCommand]]] = []
        for job in jobs:
            own, first = self._plan(job, len(commands), first, lesson), first + len(job.x)
            for name, values in ((INPUT, job.x), (TARGET, job.y)):
                if values is not None:
                    shared[name][own[0].at] = values
            planned.append((job, own))
            commands += own
        shared[PROBED][:] = [probe in jobs[0].probes for probe in self._network.layout.probes]
        phases = [phase for job in jobs for phase in job.phases]
        each = 1 if self.lowering == FAITHFUL else PLANNED
        for first in range(0, len(commands), each):
            told = (f"{p.steps} steps of phase {p.name}" for p in phases[first : first + each])
            self._do(" and ".join(dict.fromkeys(told)), commands[first : first + each])
        return [
            {p.name: self._read(c, p, job) for c, p in zip(own, job.phases, strict=True)}
            for job, own in planned
        ]

    def _plan(
        self, job: RunRequest, slot: int, first: int, lesson: PhaseCommand | None
    ) -> list[PhaseCommand]:
        """A command for each phase of `job`, from `slot` on, whose samples begin at `first`."""
        names, commands = [p.name for p in job.phases], []
        for index, phase in enumerate(job.phases):
            command = PhaseCommand(
                phase=index,
                start=-1 if phase.start is None else names.index(phase.start),
                steps=phase.steps,
                first=first,
                rows=len(job.x),
                slot=slot + index,
                keep=int(any(p.start == phase.name for p in job.phases)),
                nudge=phase.nudge if job.y is not None else 0.0,
                difference=int(phase.difference),
            )
            if lesson is not None:
                command = replace(
                    command,
                    sign=phase.sign,
                    commit=int(self._commits_of(phase) > 0),
                    samples=lesson.samples or len(job.x),
                    commits=self._weights.commits,
                    rate_scale=lesson.rate_scale,
                )
                self._weights.ahead += self._commits_of(phase)
            commands.append(command)
        return self._abreast(commands)

    def _abreast(self, commands: Sequence[PhaseCommand]) -> list[PhaseCommand]:
        """The same, with those marked that run side by side: fewer messages to wait for.

        They start from one state, no other phase does from theirs, and no weight has changed since
        the sample began.
        """
        apart = self.lowering == FAITHFUL
        apart = apart or any(r.rule.when == "step" for r in self.graph.plasticity)
        found, before, rows = [], None, 0
        for command in commands:
            kind = (command.start, command.steps, command.difference, bool(command.sign))
            own = None if apart or command.keep or command.start < 0 else kind
            fits = rows + command.rows <= self._options["batch"]
            beside = own is not None and own == before and fits
            rows = rows + command.rows if beside else command.rows
            found.append(replace(command, beside=int(beside)))
            before, apart = own, apart or bool(command.commit)
        return found

    def _do(self, what: str, commands: Sequence[PhaseCommand]) -> None:
        """Have the network do `commands`; `what` names them in errors."""
        network, limit = self._network, self._options["time_limit"]
        network.shared.plan = commands
        if limit is None:
            step = STEP_SECONDS + OPERATION_SECONDS * commands[0].rows * self._operations
            limit = math.ceil(SPARE_SECONDS + step * sum(c.steps for c in commands))
        elif len(commands) > 1:
            what = f"{what}, {limit:g} s for each of {len(commands)} phases"
            limit *= len(commands)
        # A faithful network loads its state in a time step of its own; a batched one runs phases.
        steps = commands[0].steps + 1 if self.lowering == FAITHFUL else 1
        try:
            network.process.run(steps, limit, what)
        except RunError:
            if self._host is not None:
                self._host.ahead = 0  # What they made is lost.
            raise

    def _read(self, command: PhaseCommand, phase: Phase, job: RunRequest) -> PhaseResult:
        shared, steps, count = self._network.shared, phase.steps, len(job.x)
        output = self.graph.population(self.graph.output)
        shown = shared[OUTPUT][command.slot, :count]
        require_finite(shown, phase.name, steps)
        names = [p.name for p in self.graph.populations]
        found = self._network.layout.recorded(shared, command)
        still = () if self.graph.plasticity else names
        neurons = self.graph.neurons if job.updates and command.phase == 0 else ()
        return PhaseResult(
            outputs=output.readout.offset + output.readout.gain * shown,
            events={n: found[f"events/{n}"].copy() for n in names},
            synops={n: found[f"synops/{n}"].copy() for n in names},
            nonzero_synops={n: found[f"nonzero_synops/{n}"].sum(0) for n in still},
            updates={p.name: found[f"updates/{p.name}"][1:].sum(0) for p in neurons},
            probes={p.name: found[f"probe/{p.name}"].copy() for p in job.probes},
            saturations={
                n: int(shared["saturations", n][command.slot, :count].sum())
                for n in (names if self.graph.quantised else ())
            },
        )
