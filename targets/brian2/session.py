"""A loaded program: batches of samples go through its Brian2 script in a guarded process."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from compilers.artifact import Program
from compilers.ir import Graph
from compilers.operators import fanout
from ep_neuro.errors import ConfigError, RunError
from targets.base import PhaseResult, Progress, RunResult
from targets.brian2.equations import ties
from targets.brian2.guard import GUARD
from targets.brian2.records import fan_out, phase_result, variable_of
from targets.brian2.script import script, weights_file
from targets.brian2.worker import DATA, NETWORK, WEIGHTS, Job, result_path
from targets.inputs import Job as Request
from targets.inputs import prepare

AUTO, STANDALONE, RUNTIME = "auto", "standalone", "runtime"
OPTIONS = {"mode": AUTO, "compilers": None, "time_limit": None}
"""Options of a program and their defaults: ``standalone`` is C++, ``runtime`` NumPy, ``auto`` C++
except for probes of states; compilers at work at once (None: one a core); seconds that a batch may
take with compilation (None: by its work)."""

MOST_SYNAPSES = 8_000_000
"""Synapses of one run, in all samples. Each takes 24 bytes in C++ and 16 bytes on disk."""

RECORD_BYTES = 512 << 20
"""Memory that the messages and probes of one run may take."""

EVENT_BYTES, STATE_BYTES = 12, 8
"""Memory of one message in a monitor (index, time), and of one probed value."""

BUILD_SECONDS, OPERATION_SECONDS = 600.0, 1e-6
"""Time limit of a batch: to compile, and for each synapse and neuron at each step. Both are at
least ten times what one core takes."""


class Brian2Warning(UserWarning):
    """A run that is slower than it could be."""


class Brian2Session:
    """Settles inputs in Brian2; see `targets.base.Session`."""

    def __init__(self, program: Program) -> None:
        self._graph: Graph = program.graph
        self._options = read_options(program.options)
        self._fanouts = {p.name: fan_out(program.graph, p) for p in program.graph.populations}
        self._synapses = synapses_per_sample(program.graph)
        self._folder: tempfile.TemporaryDirectory[str] | None = tempfile.TemporaryDirectory(
            prefix="ep-neuro-brian2-"
        )
        self._built = 0
        path = Path(self._folder.name)
        (path / NETWORK).write_text(script(self._graph, NETWORK, WEIGHTS), encoding="utf-8")
        (path / WEIGHTS).write_bytes(weights_file(self._graph))

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
            If C++ does not compile, the run dies or exceeds its time limit, or the session is
            closed.
        """
        if self._folder is None:
            raise RunError("session", "it is closed", "open the program again")
        began = time.perf_counter()
        request = prepare(self._graph, x, y, steps=steps, probes=probes)
        job = self._plan(request, steps, self._folder.name)
        parts: list[dict[str, PhaseResult]] = []

        def collect(first: int) -> None:
            parts.append(self._read(request, job, first))
            if progress is not None:
                progress(min(first + job.batch, len(request.x)), len(request.x))

        GUARD.run(job, self._limit(request, job), collect)
        phases = {
            p.name: PhaseResult.joined([part[p.name] for part in parts]) for p in request.phases
        }
        return RunResult(phases, time.perf_counter() - began)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights by id."""
        return {name: self._graph.arrays[name].copy() for name in self._graph.ties}

    def close(self) -> None:
        """Remove the build and all files; closing twice is harmless."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Brian2Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- one call ------------------------------------------------------------------------------

    def _plan(self, request: Request, steps: int | None, folder: str) -> Job:
        """The job that does `request`, its data written to `folder`."""
        recorded: dict[str, list[str]] = {}
        for probe in request.probes:
            population = self._graph.population(probe.population)
            name = variable_of(population, probe).removeprefix(f"{population.name}.")
            if name != "message" and name not in recorded.setdefault(population.name, []):
                recorded[population.name].append(name)
        recorded = {name: variables for name, variables in recorded.items() if variables}
        standalone = self._standalone(bool(recorded))
        most = max(1, int(min(MOST_SYNAPSES / max(1, self._synapses), self._memory(request))))
        batch = math.ceil(len(request.x) / math.ceil(len(request.x) / most))
        if standalone:
            # Code that was built for more samples than these serves them too.
            batch = self._built = self._built if batch <= self._built <= most else batch
        self._write(request, Path(folder))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        compilers = self._options["compilers"] or cores or 1
        return Job(folder, batch, steps, recorded, standalone, compilers)

    def _standalone(self, probed: bool) -> bool:
        mode = self._options["mode"]
        if mode == RUNTIME or (mode == AUTO and probed):
            return False
        if missing := missing_tools():
            warnings.warn(f"brian2 runs in NumPy, slowly: {missing}", Brian2Warning, stacklevel=4)
        return not missing

    def _memory(self, request: Request) -> float:
        """Samples whose records fit into `RECORD_BYTES`."""
        steps = sum(p.steps for p in request.phases)
        sizes = {p.name: p.size for p in self._graph.neurons}
        probed = sum(STATE_BYTES * sizes[q.population] for q in request.probes)
        return RECORD_BYTES / (steps * (EVENT_BYTES * sum(sizes.values()) + probed))

    def _write(self, request: Request, folder: Path) -> None:
        readout = self._graph.population(self._graph.output).readout
        data = {"x": request.x.reshape(len(request.x), -1)}
        if request.y is not None:
            data["y"] = readout.offset + readout.gain * request.y.reshape(len(request.x), -1)
        np.savez(folder / DATA, **data)

    def _read(self, request: Request, job: Job, first: int) -> dict[str, PhaseResult]:
        """Results of the batch from sample `first` on; its file goes."""
        path = result_path(job.folder, first)
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        path.unlink()
        x = request.x[first : first + job.batch]
        found = {}
        for phase in request.phases:
            start = f"{phase.name}\n"
            record = {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}
            speaks = phase.name == self._graph.phases[0].name
            found[phase.name] = phase_result(
                self._graph, phase, record, request.probes, x, self._fanouts, speaks=speaks
            )
        return found

    def _limit(self, request: Request, job: Job) -> float:
        if self._options["time_limit"] is not None:
            return float(self._options["time_limit"])
        steps = sum(p.steps for p in request.phases)
        places = 2 * self._synapses + sum(p.size for p in self._graph.neurons)
        return BUILD_SECONDS + OPERATION_SECONDS * steps * job.batch * places


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a program with their defaults; `ConfigError` names one that is out of range."""
    options = {**OPTIONS, **given}
    modes = (AUTO, STANDALONE, RUNTIME)
    if options["mode"] not in modes:
        problem = f"is {options['mode']!r}"
        raise ConfigError("target 'brian2', mode", problem, f"choose from {', '.join(modes)}")
    for name, kinds in (("compilers", int), ("time_limit", (int, float))):
        value = options[name]
        number = isinstance(value, kinds) and not isinstance(value, bool)
        if value is not None and not (number and 0 < value < math.inf):
            remedy = "give a number above 0, or none"
            raise ConfigError(f"target 'brian2', {name}", f"is {value!r}", remedy)
    return options


def missing_tools() -> str:
    """What C++ code needs and is not here; empty if it can be compiled."""
    needed = (os.environ.get("CXX", "g++").split()[0], "make")
    missing = [tool for tool in needed if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not found; install a C++ compiler and make" if missing else ""


def synapses_per_sample(graph: Graph) -> int:
    """Synapses of one sample, those of both directions of a weight counted once."""
    fanouts: dict[str, int] = {}
    for tie in ties(graph):
        p = tie.forward or tie.backward
        assert p is not None
        pre, post = graph.population(p.pre).shape, graph.population(p.post).shape
        counts = fanout(p.operator, graph.arrays[p.weight].shape, pre, post)
        fanouts[f"{tie.weight} {tie.pre} {tie.post}"] = int(counts.sum())
    return sum(fanouts.values())
