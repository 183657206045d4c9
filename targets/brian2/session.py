"""A loaded program: samples go through its Brian2 script, in a supervised process."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compilers.ir.graph import Graph, Population
from compilers.ir.text import print_graph
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from targets.brian2.codegen.equations import synapses_per_sample
from targets.brian2.codegen.script import script, side_by_side, weights_file, write_arrays
from targets.brian2.monitors import phase_result, recorded
from targets.brian2.simulation.process import SERVER, do
from targets.brian2.simulation.worker import (
    ARRAYS,
    CHANGED,
    DATA,
    MEMORY,
    NETWORK,
    PLASTIC,
    WEIGHTS,
    ScriptRun,
    arrays_of,
    result_path,
)
from targets.interface.fanout import nonzero_synapses_of, synapses_of
from targets.interface.options import SECONDS, Values, checked
from targets.interface.protocols import PhaseResult
from targets.interface.request import RunRequest
from targets.interface.session import Session, Settled, classes, piece

AUTO, STANDALONE, RUNTIME = "auto", "standalone", "runtime"
OPTIONS: Mapping[str, Any] = {"mode": AUTO, "compilers": None, "time_limit": None}
"""Options of a program and their defaults: ``standalone`` is C++, ``runtime`` NumPy, ``auto`` C++
except for probes of states; compilers at work at once (None: one a core); seconds that a run may
take with compilation (None: by its work)."""

ALLOWED: Mapping[str, Values] = {
    "mode": (AUTO, STANDALONE, RUNTIME),
    "compilers": range(1, 1025),
    "time_limit": SECONDS,
}

MOST_SYNAPSES = 8_000_000
"""Synapses of the samples that NumPy settles side by side, at about 40 bytes each."""

RUN_BATCHES = 100
"""Batches that one run learns; progress is told in between."""

RECORD_BYTES = 2 << 30
"""Memory of one run: for messages, if every neuron spoke at every step, and for probes."""

EVENT_BYTES, STATE_BYTES = 12, 8
"""Memory of one message in a monitor (index, time), and of one probed value."""

BUILD_SECONDS, OPERATION_SECONDS = 600.0, 1e-6
"""Time limit of a run: to compile, and for each synapse and neuron at each step. Both are at
least ten times what one core takes."""


class Brian2Warning(UserWarning):
    """A run that is slower than it could be."""


class Brian2Session(Session):
    """Settles inputs and learns from them; see `targets.interface.session.Session`."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self._options = checked("brian2", OPTIONS, program.options, ALLOWED)
        self._fanouts = {p.name: _synapses(program.graph, p) for p in program.graph.populations}
        self._synapses = synapses_per_sample(program.graph)
        self._folder = tempfile.TemporaryDirectory(prefix="ep-neuro-brian2-")
        self._path = Path(self._folder.name)
        self._built = (0, 0)
        self._write_network()

    def _write_network(self) -> None:
        """The script that settles, with the present weights."""
        graph = self.graph if self._learner is None else self._learner.learnt()
        arrays = dict(graph.arrays)
        if self._learner is not None:
            learnt = self._learner.biases().items()
            biases = {graph.population(name).bias or "": bias for name, bias in learnt}
            arrays |= {**self._learner.operands(), **biases}
        graph = replace(graph, arrays=arrays, plasticity=())
        (self._path / NETWORK).write_text(script(graph, NETWORK, WEIGHTS), encoding="utf-8")
        (self._path / WEIGHTS).write_bytes(weights_file(graph))

    def _settle(self, job: RunRequest, settled: Settled) -> None:
        self._do(job, self._plan(job), settled)

    def _do(self, job: RunRequest, work: ScriptRun, settled: Settled) -> None:
        self._write(job)
        limit = self._limit(job, work)
        do(work, SERVER, limit, lambda first: settled(self._read(job, work, first)))

    def _free(self) -> None:
        self._folder.cleanup()

    # --- learning ------------------------------------------------------------------------------

    def _begun(self) -> PlasticWeights:
        text = script(self.graph, PLASTIC, WEIGHTS)
        learner = super()._begun()
        (self._path / PLASTIC).write_text(text, encoding="utf-8")
        return learner

    def _lesson(self, job: RunRequest, batch: int) -> int:
        # NumPy runs them, as C++ cannot change weights between batches; many batches a run.
        return batch * RUN_BATCHES

    def _teach(self, job: RunRequest, batch: int, rate_scale: float) -> np.ndarray:
        whole = len(job.x) - len(job.x) % batch
        shown = []
        try:
            for part, side in ((slice(0, whole), batch), (slice(whole, None), len(job.x) - whole)):
                if len(job.x[part]):
                    shown.append(self._learn(piece(job, part), side, rate_scale))
        finally:
            self._write_network()
        return np.concatenate(shown)

    def _learn(self, job: RunRequest, side: int, rate_scale: float) -> np.ndarray:
        learner, phases = self.learner, dict[str, PhaseResult]()
        folder, graph = self._path, print_graph(self.graph, arrays=False)
        write_arrays(folder / ARRAYS, self.graph.arrays)
        write_arrays(folder / MEMORY, learner.memory())
        work = ScriptRun(str(folder), len(job.x), side, None, {}, False, 1, graph, rate_scale)
        self._do(job, work, phases.update)
        memory = arrays_of(folder / MEMORY)
        learner.changed += float(memory.pop(CHANGED))
        learner.restore(memory)
        for phase in phases.values():
            self._count(phase)
        return classes(phases[job.phases[0].name].outputs)

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`; `RunError` if it is not that of the same program."""
        super().restore(memory)
        self._write_network()

    # --- one call ------------------------------------------------------------------------------

    def _plan(self, request: RunRequest) -> ScriptRun:
        """The job that does `request`."""
        probes: dict[str, list[str]] = {}
        for probe in request.probes:
            variable = recorded(self.graph, probe)
            if variable and variable not in probes.setdefault(probe.population, []):
                probes[probe.population].append(variable)
        standalone = self._standalone(bool(probes))
        samples, side = self._sizes(request, standalone)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        compilers = self._options["compilers"] or cores or 1
        folder, steps = str(self._path), request.steps
        return ScriptRun(folder, samples, side, steps, probes, standalone, compilers)

    def _sizes(self, request: RunRequest, standalone: bool) -> tuple[int, int]:
        """Samples of one run, and how many of them settle side by side."""
        most = max(1, int(self._memory(request)))
        samples = _share(len(request.x), most)
        if not standalone:
            return samples, _share(samples, max(1, MOST_SYNAPSES // max(1, self._synapses)))
        # Code that was built for more samples than these serves them too.
        if not samples <= self._built[0] <= most:
            self._built = samples, _share(samples, side_by_side(self.graph))
        return self._built

    def _standalone(self, probed: bool) -> bool:
        mode = self._options["mode"]
        if mode == RUNTIME or (mode == AUTO and probed):
            return False
        if missing := missing_tools():
            warnings.warn(f"brian2 runs in NumPy, slowly: {missing}", Brian2Warning, stacklevel=4)
        return not missing

    def _memory(self, request: RunRequest) -> float:
        """Samples whose records fit into `RECORD_BYTES`."""
        steps = sum(p.steps for p in request.phases)
        sizes = {p.name: p.size for p in self.graph.neurons}
        probed = sum(STATE_BYTES * sizes[q.population] for q in request.probes)
        return RECORD_BYTES / (steps * (EVENT_BYTES * sum(sizes.values()) + probed))

    def _write(self, request: RunRequest) -> None:
        readout = self.graph.population(self.graph.output).readout
        data = {"x": request.x.reshape(len(request.x), -1)}
        if request.y is not None:
            data["y"] = readout.offset + readout.gain * request.y.reshape(len(request.x), -1)
        write_arrays(self._path / DATA, data)

    def _read(self, request: RunRequest, job: ScriptRun, first: int) -> dict[str, PhaseResult]:
        """Results of the run from sample `first` on; its file goes."""
        path = result_path(job.folder, first)
        arrays = arrays_of(path)
        path.unlink()
        x = request.x[first : first + job.samples]
        found = {}
        for phase in request.phases:
            start = f"{phase.name}\n"
            record = {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}
            speaks = phase.name == self.graph.phases[0].name
            found[phase.name] = phase_result(
                self.graph, phase, record, request.probes, x, self._fanouts, speaks=speaks
            )
        return found

    def _limit(self, request: RunRequest, job: ScriptRun) -> float:
        if self._options["time_limit"] is not None:
            return float(self._options["time_limit"])
        steps = sum(p.steps for p in request.phases)
        places = 2 * self._synapses + sum(p.size for p in self.graph.neurons)
        return BUILD_SECONDS + OPERATION_SECONDS * steps * job.samples * places


def _synapses(graph: Graph, p: Population) -> tuple[np.ndarray, np.ndarray]:
    every, nonzero = synapses_of(graph, p), nonzero_synapses_of(graph, p)
    return every, every if nonzero is None else nonzero


def _share(samples: int, most: int) -> int:
    """The size of equal parts of so many samples, none above `most`."""
    return math.ceil(samples / math.ceil(samples / most))


def missing_tools() -> str:
    """What C++ code needs and is not here; empty if it can be compiled."""
    needed = (os.environ.get("CXX", "g++").split()[0], "make")
    missing = [tool for tool in needed if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not found; install a C++ compiler and make" if missing else ""
