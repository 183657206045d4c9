"""The simulator of a graph that NEST runs: a phase goes to the worker, its record is read here."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from compilers.ir.graph import Graph, Phase, Projection, Spiking
from compilers.ir.operators import apply
from compilers.ir.text import print_graph
from ep_neuro.errors import RunError
from targets.interface.fanout import nonzero_synapses_of, synapses_of
from targets.interface.request import Probe, RunRequest
from targets.interface.simulator import AfterStep, PhaseRecord, Recorder, Simulator
from targets.interface.supervised.fork_server import ForkServer
from targets.interface.supervised.messages import Start
from targets.interface.supervised.process import SupervisedProcess
from targets.nest.network import REACH
from targets.nest.worker import (
    ARRAYS,
    DRIVE,
    GRAPH,
    RECORD,
    PhaseRun,
    read_arrays,
    write_arrays,
)

START_SECONDS = 180.0
"""Time that importing NEST may take: it took 0.4 s."""

BUILD_SECONDS, OPERATION_SECONDS = 600.0, 2e-6
"""Time limit of a phase: to build the network, and for each synapse and neuron at each step. Both
are at least ten times what one core takes."""

SERVER = ForkServer(sys.executable, path=[place for place in sys.path if place])
"""Forks for all sessions of this process; it starts with the first sample."""

_WORKER = "targets.nest.worker"


class NestProcess(SupervisedProcess):
    """A fork that holds one network."""

    name, serve = "nest", f"{_WORKER}:serve"
    repair = "see that `import nest` works"
    memory = "run it again; if memory ran out, a smaller network or a machine with more"


class NestSimulator(Simulator):
    """Runs the phases of one sample at a time on NEST.

    Parameters
    ----------
    graph : Graph
    threads : int
        Of NEST.
    time_limit : float, optional
        Seconds that a phase may take, with the building of the network; None: by its work.
    """

    at_once = 1

    def __init__(self, graph: Graph, threads: int, time_limit: float | None) -> None:
        self.graph, self._threads = graph, threads
        self.fanouts = {p.name: synapses_of(graph, p) for p in graph.populations}
        self.nonzero = {p.name: nonzero_synapses_of(graph, p) for p in graph.populations}
        work = sum(int(self.fanouts[p.name].sum()) + p.size for p in graph.neurons)
        self._limit, self._each = time_limit, OPERATION_SECONDS * work
        self._folder = tempfile.TemporaryDirectory(prefix="ep-neuro-nest-")
        self._path = Path(self._folder.name)
        (self._path / GRAPH).write_text(print_graph(graph, arrays=False), encoding="utf-8")
        write_arrays(self._path / ARRAYS, graph.arrays)
        self._process: NestProcess | None = None
        self.moment = -1

    def begin(self, job: RunRequest) -> None:
        """Clamp another sample: its drive, which neither phase nor step changes."""
        self.job, self.spoken, self._y = job, job.x, job.y
        self.clamped: dict[str, np.ndarray] = {}
        self._drive = {p.name: np.zeros((1, *p.shape)) for p in self.graph.neurons}
        for p in self.graph.neurons:
            if p.bias is not None:
                self._drive[p.name] += self.graph.arrays[p.bias]
        (source,) = self.graph.sources
        for name, arriving in self._through({source.name: job.x}, self.graph.projections).items():
            self._drive[name] += arriving
        self._ends: dict[str | None, dict[str, np.ndarray]] = {None: {}}

    def run(
        self, phase: Phase, probes: Sequence[Probe], after_step: AfterStep | None = None
    ) -> PhaseRecord:
        """Run `phase` in the worker, then read its steps one by one."""
        nudge = phase.nudge if self._y is not None else 0.0
        drive = dict(self._drive)
        if nudge and self._y is not None:
            drive[self.graph.output] = drive[self.graph.output] + nudge * self._y
        states = self.job.updates or any(probe.variable == "v" for probe in probes)
        self._do(
            PhaseRun(str(self._path), phase.name, phase.steps, nudge, phase.start, states), drive
        )
        self._record = read_arrays(self._path / RECORD)
        self._refuse_far()
        self._before, self._nudge, self._driven = self._ends[phase.start], nudge, drive
        self.moment = -1

        def step() -> None:
            self.moment += 1

        record = Recorder(self, phase, probes).follow(step, None)
        self._ends[phase.name] = {
            p.name: self.value(self.moment, p.name, "message") for p in self.graph.neurons
        }
        return record

    def value(self, moment: int, population: str, variable: str) -> np.ndarray:
        """A variable of the step `moment`, (1, *shape)."""
        p = self.graph.population(population)
        if variable == "u":
            return self._current(moment, population)
        spikes = isinstance(p.dynamics, Spiking) and variable == "message"
        values = self._record[f"{population}/{'spike' if spikes else 'v'}"][moment]
        values = values.reshape(1, *p.shape)
        return values if variable == "v" or spikes or p.box is None else np.clip(values, *p.box)

    def close(self) -> None:
        """End the worker, and remove what was written."""
        if self._process is not None:
            self._process.close()
        self._folder.cleanup()

    def _do(self, job: PhaseRun, drive: dict[str, np.ndarray]) -> None:
        write_arrays(self._path / DRIVE, {name: values.ravel() for name, values in drive.items()})
        build = self._process is None or not self._process.alive
        if self._process is None or build:
            self._process = NestProcess(
                SERVER, start_limit=START_SECONDS, prepare=["nest", _WORKER]
            )
        limit = BUILD_SECONDS * build + 10.0 + self._each * (job.steps + 10 * build)
        limit = limit if self._limit is None else self._limit
        self._process.ask(Start(job.argument(self._threads)), limit, "a phase", "time_limit")

    def _through(
        self, sent: dict[str, np.ndarray], projections: Iterable[Projection]
    ) -> dict[str, np.ndarray]:
        """What messages `sent`, (1, *shape) by population, drive each population with."""
        arrived: dict[str, np.ndarray] = {}
        for p in projections:
            if p.pre in sent:
                weight, shape = self.graph.arrays[p.weight], self.graph.population(p.post).shape
                found = p.scale * apply(p.operator, weight, sent[p.pre], shape)
                arrived[p.post] = arrived.get(p.post, 0.0) + found
        return arrived

    def _current(self, moment: int, population: str) -> np.ndarray:
        """The drive of a spiking population, which NEST does not show, from what was sent."""
        sent = self._before
        if moment > 0:
            sent = {p.name: self.value(moment - 1, p.name, "message") for p in self.graph.neurons}
        arrived = self._through(sent, self.graph.into(population))
        current = self._driven[population] + arrived.get(population, 0.0)
        if population == self.graph.output and population in sent:
            current = current - self._nudge * sent[population]
        return np.asarray(current)

    def _refuse_far(self) -> None:
        """Raise `RunError` if a linear population left the window that stands for it."""
        for p in self.graph.neurons:
            if p.box is None and not np.abs(self._record[f"{p.name}/v"]).max() < REACH:
                problem = f"a state is beyond {REACH:g}, up to which NEST takes linear ones"
                raise RunError(f"population '{p.name}'", problem, "give it a box")
