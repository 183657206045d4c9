"""A loaded program: batches of samples go through a supervised network of Lava Processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compilers.ir.graph import Graph, Phase
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from ep_neuro.errors import ConfigError
from targets.interface.fanout import require_finite, synapses_of
from targets.interface.protocols import PhaseResult
from targets.interface.refusals import refuse_first
from targets.interface.request import RunRequest
from targets.interface.session import Session, Settled, classes, piece
from targets.interface.supervised.process import LONGEST
from targets.lava.connections.loihi_rule import check_input
from targets.lava.connections.replicas import unlearnable
from targets.lava.runtime.host_weights import HostWeights
from targets.lava.runtime.layout import BATCHED, FAITHFUL, INPUT, OUTPUT, TARGET, NetworkLayout
from targets.lava.runtime.process import LavaProcess
from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays

OPTIONS = {"batch": 128, "lowering": BATCHED, "start_limit": 60.0, "time_limit": None}
"""Options of a program and their defaults: most samples that settle at once (batched only), the
lowering, seconds that Lava has to start, and seconds that a phase of one batch has to end (None: by
its work)."""

SHARED_BYTES = 256 << 20
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

    Lava starts with the first call of `settle` or `learn`, which says how many samples there are.
    A call that needs more samples at once, more steps or other probes, or far fewer samples at
    once, to learn from, starts another network; the last `KEPT` of them wait for more work, and
    weights that one has learnt go over to the next that works.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        graph = program.graph
        self._options = read_options(program.options)
        # Of one step in which every neuron sends.
        self._operations = sum(int(synapses_of(graph, p).sum()) for p in graph.neurons)
        self._networks: list[Network] = []  # the one that works is the last
        self._host = HostWeights(graph) if graph.plasticity else None

    @property
    def lowering(self) -> str:
        """``batched`` or ``faithful``."""
        return str(self._options["lowering"])

    def _settle(self, job: RunRequest, settled: Settled) -> None:
        learnt = self.lowering == FAITHFUL and self._learner is not None
        most = self._options["batch"]
        self._start(layout_for(self.graph, job, most, self.lowering, teaches=learnt))
        batch = self._network.layout.batch
        for first in range(0, len(job.x), batch):
            settled(self._run(piece(job, slice(first, first + batch))))

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        self._fetch()
        super().restore(memory)
        if self._running:
            self._weights.write(self._network.shared)

    def _free(self) -> None:
        while self._networks:
            self._networks.pop().close()

    # --- starting and stopping -----------------------------------------------------------------

    def _start(self, layout: NetworkLayout) -> None:
        """Let the network that works from now on be one that does what `layout` is for."""
        self._fetch()
        fitting = [n for n in self._networks if n.process.alive and n.layout.fits(layout)]
        if self._running and self._network in fitting:
            return
        if fitting:
            self._networks.remove(fitting[-1])
            self._networks.append(fitting[-1])
        else:
            self._make_room()
            self._networks.append(self._started(layout))
        if self._host is not None:
            self._host.write(self._network.shared)

    def _started(self, layout: NetworkLayout) -> Network:
        shared = layout.allocate()
        try:
            process = LavaProcess(
                "targets.lava.builders.batched:build",
                layout.message(shared),
                start_limit=self._options["start_limit"],
                inherit=[shared.fd],
            )
        except BaseException:
            shared.close()
            raise
        return Network(layout, shared, process)

    def _make_room(self) -> None:
        """End the networks that have failed, and the one that has waited longest."""
        for network in [n for n in self._networks if not n.process.alive]:
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
        return bool(self._networks) and self._network.process.alive

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
        if self._running and self._host is not None:
            self._host.read(self._network.shared)

    def _lesson(self, job: RunRequest, batch: int) -> int:
        most = self._options["batch"]
        if self.lowering == BATCHED and batch > most:
            problem = f"{batch} samples exceed the {most} that settle at once, the option 'batch'"
            raise ConfigError("batch", problem, "raise the option, or learn from fewer at a time")
        if self.lowering == FAITHFUL and self.graph.quantised:
            check_input(job.x)
        self._start(layout_for(self.graph, job, batch, self.lowering, teaches=True))
        return batch

    def _teach(self, job: RunRequest, batch: int, rate_scale: float) -> np.ndarray:
        faithful, shown = self.lowering == FAITHFUL, []
        lesson = PhaseCommand(samples=len(job.x), rate_scale=rate_scale)
        each = 1 if faithful else len(job.x)
        for first in range(0, len(job.x), each):
            results = self._run(piece(job, slice(first, first + each)), lesson)
            for result in results.values():
                self._count(result)
            shown.append(classes(results[job.phases[0].name].outputs))
        if faithful:
            # The tags of all samples are complete; a phase of no steps.
            self._do("commit", replace(lesson, commit=1, commits=self._weights.commits))
            self._weights.ahead += 1
        return np.concatenate(shown)

    def _commits_of(self, phase: Phase) -> int:
        """How often weights change in `phase`, where they do so within the phases."""
        if not phase.commit or self.lowering == FAITHFUL:
            return 0
        stepwise = any(r.rule.when == "step" for r in self.graph.plasticity)
        return phase.steps if stepwise and phase.sign else 1

    # --- running -------------------------------------------------------------------------------

    def _run(self, job: RunRequest, lesson: PhaseCommand | None = None) -> dict[str, PhaseResult]:
        """Run the phases of `job`, all samples at once; they teach if there is a lesson."""
        for name, values in ((INPUT, job.x), (TARGET, job.y)):
            array = self._network.shared[name]
            array[:] = 0.0
            if values is not None:
                array[: len(values)] = values
        names, results = [p.name for p in job.phases], {}
        for index, phase in enumerate(job.phases):
            command = PhaseCommand(
                phase=index,
                start=-1 if phase.start is None else names.index(phase.start),
                steps=phase.steps,
                keep=int(any(p.start == phase.name for p in job.phases)),
                nudge=phase.nudge if job.y is not None else 0.0,
            )
            commits = 0
            if lesson is not None:
                commits = self._commits_of(phase)
                command = replace(
                    command,
                    sign=phase.sign,
                    commit=int(commits > 0),
                    samples=lesson.samples,
                    commits=self._weights.commits,
                    rate_scale=lesson.rate_scale,
                )
            self._do(f"{phase.steps} steps of phase {phase.name}", command)
            results[phase.name] = self._read(phase, job)
            if commits:
                self._weights.ahead += commits
        return results

    def _do(self, what: str, command: PhaseCommand) -> None:
        """Have the network that works do `command`; `what` names it in errors."""
        network, limit = self._network, self._options["time_limit"]
        network.shared.command = replace(command, number=network.shared.number + 1)
        if limit is None:
            operations = network.layout.batch * self._operations
            step = STEP_SECONDS + OPERATION_SECONDS * operations
            limit = math.ceil(SPARE_SECONDS + command.steps * step)
        # A faithful network loads its state in a time step of its own.
        network.process.run(command.steps + (self.lowering == FAITHFUL), limit, what)

    def _read(self, phase: Phase, job: RunRequest) -> PhaseResult:
        shared, steps, count = self._network.shared, phase.steps, len(job.x)
        output = self.graph.population(self.graph.output)
        shown = shared[OUTPUT][:count]
        require_finite(shown, phase.name, steps)
        names = [p.name for p in self.graph.populations]
        still = () if self.graph.plasticity else names
        neurons = self.graph.neurons if job.updates and phase.start is None else ()
        return PhaseResult(
            outputs=output.readout.offset + output.readout.gain * shown,
            events={n: shared["events", n][:steps, :count].copy() for n in names},
            synops={n: shared["synops", n][:steps, :count].copy() for n in names},
            nonzero_synops={n: shared["nonzero_synops", n][:steps, :count].sum(0) for n in still},
            updates={p.name: shared["updates", p.name][1:steps, :count].sum(0) for p in neurons},
            probes={p.name: shared["probe", p.name][:steps, :count].copy() for p in job.probes},
            saturations={
                n: int(shared["saturations", n][:count].sum())
                for n in (names if self.graph.quantised else ())
            },
        )


def layout_for(
    graph: Graph, job: RunRequest, most: int, lowering: str = BATCHED, *, teaches: bool = False
) -> NetworkLayout:
    """The layout for `job`, `most` samples at once.

    Batches are of equal size, within the memory for records; those of a lesson stay as they are.
    """
    steps = max(p.steps for p in job.phases)
    if lowering == FAITHFUL:
        return NetworkLayout(graph, 1, steps, job.probes, lowering, teaches)
    if teaches:
        return NetworkLayout(graph, min(int(most), len(job.x)), steps, teaches=True)
    one, two = (NetworkLayout(graph, n, steps, job.probes).size for n in (1, 2))
    most = max(1, min(most, SHARED_BYTES // (two - one)))
    batches = math.ceil(len(job.x) / most)
    return NetworkLayout(graph, math.ceil(len(job.x) / batches), steps, job.probes)


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """`OPTIONS` with those that a program brings; `ConfigError` for one out of range."""
    options = {**OPTIONS, **given}
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
        if not unlimited and not (isinstance(value, int | float) and 0 < value <= LONGEST):
            remedy = f"give seconds above 0, {LONGEST:g} at most"
            raise ConfigError(f"option {name}", f"{value!r} is no time", remedy)
    return options
