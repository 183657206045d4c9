"""The process that runs Brian2: it imports it once, and forks for every job.

Why not in the caller's process: Brian2 keeps clocks, devices and preferences for a whole process,
a C++ build cannot be interrupted from inside, and importing takes seconds. A fork starts with
Brian2 imported, has its state to itself, and can be killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from targets.brian2.codegen.script import FLAGS
from targets.brian2.simulation.online_learning import CommitLoop, CommitSchedule

NETWORK, WEIGHTS, DATA, LOG, BUILD = "network.py", "network.npz", "data.npz", "log.txt", "build"
"""Files of a job's folder, and the folder in it where C++ is built."""

PLASTIC, MEMORY = "plastic.py", "memory.npz"
"""The script of a network that learns, and what it has learnt."""

CHANGED = "changed"
"""Key, beside a memory, of the mean change of a weight summed over the commits of a run."""

HEADERS = (
    *("algorithm", "climits", "cmath", "cstdlib", "ctime", "fstream", "iostream", "iterator"),
    *("map", "random", "set", "string", "tuple", "utility", "vector"),
)
"""What every file that Brian2 generates includes: four fifths of the time that it compiles."""


@dataclass(frozen=True)
class ScriptRun:
    """Samples to settle: `folder` holds the script, its weights and the inputs.

    One run takes `samples` of them, `side` side by side; the last run is filled up, as C++ is built
    for a number of them. With a `syllabus` they learn, in one run of NumPy.
    """

    folder: str
    samples: int
    side: int
    steps: int | None
    probes: Mapping[str, Sequence[str]]
    standalone: bool
    compilers: int
    syllabus: CommitSchedule | None = None

    @property
    def build(self) -> Path:
        """Where C++ is built: code is made for samples side by side, and for what is recorded."""
        recorded = repr((self.side, {name: list(v) for name, v in self.probes.items()}))
        return Path(self.folder) / BUILD / hashlib.sha256(recorded.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Done:
    """The samples from `first` on are settled; `result_path` has what they did."""

    first: int


@dataclass(frozen=True)
class Fault:
    """What was raised, in a line, and its traceback."""

    problem: str
    trace: str


@dataclass(frozen=True)
class Ended:
    """The process of a job left with this wait status."""

    status: int


def result_path(folder: str | Path, first: int) -> Path:
    """Where the records of the samples from `first` on are."""
    return Path(folder) / f"result{first}.npz"


def main(fd: int) -> None:
    """Serve jobs from the connection at `fd` until it is closed."""
    import brian2  # noqa: F401 - every fork has it from here

    connection = Connection(fd)
    flags: list[str] = []
    while True:
        try:
            job = connection.recv()
        except EOFError:
            shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
            return
        if job.standalone and not flags:
            flags = compiler_flags(Path(os.environ["TMPDIR"]))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _serve(job, connection, flags)
                status = 0
            finally:
                os._exit(status)
        connection.send(Ended(os.waitpid(child, 0)[1]))


def _serve(job: ScriptRun, connection: Connection, flags: Sequence[str]) -> None:
    with open(Path(job.folder) / LOG, "wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        for first in _settle(job, flags):
            connection.send(Done(first))
    except Exception as error:
        text = " ".join(str(error).split())
        connection.send(Fault(f"{type(error).__name__}: {text}", traceback.format_exc()))


def _settle(job: ScriptRun, flags: Sequence[str]) -> Iterator[int]:
    """Do run after run, and say which is done."""
    import brian2

    folder = Path(job.folder)
    script = _load(folder / (PLASTIC if job.syllabus else NETWORK))
    build = None
    if job.standalone:
        build = job.build
        brian2.prefs.codegen.cpp.extra_compile_args_gcc = flags
        # Sources of one build differ in constants only, so that dependencies need not be listed.
        arguments = [f"-j{job.compilers}", "-o", "make.deps"]
        brian2.prefs.devices.cpp_standalone.extra_make_args_unix = arguments
    with np.load(folder / DATA) as data:
        x, y = data["x"], data.get("y")
    for first in range(0, len(x), job.samples):
        part = slice(first, first + job.samples)
        targets = None if y is None else filled(y[part], job.samples)
        inputs = filled(x[part], job.samples)
        lesson = None if job.syllabus is None else CommitLoop(job.syllabus, inputs)
        more = None if lesson is None else lesson.objects
        records = script.settle(
            inputs, targets, job.steps, job.probes, build, batch=job.side, further=more
        )
        if lesson is not None:
            learnt: dict[str, Any] = {
                **lesson.learner.memory(),
                CHANGED: np.array(lesson.learner.changed),
            }
            np.savez(folder / MEMORY, **learnt)
        np.savez(
            result_path(folder, first),
            **{f"{p}\n{key}": v for p, record in records.items() for key, v in record.items()},
        )
        yield first


def filled(values: np.ndarray, samples: int) -> np.ndarray:
    """`values` with zeros behind them, up to so many samples."""
    return np.concatenate([values, np.zeros((samples - len(values), *values.shape[1:]))])


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("brian2_network", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiler_flags(folder: Path) -> list[str]:
    """Flags with a header in `folder` that is compiled in advance.

    Brian2 tries every flag once in a process: here, forks need not do it again.
    """
    import brian2
    from brian2.codegen.cpp_prefs import get_compiler_and_args

    flags = [*FLAGS, f"-include{precompiled(folder, FLAGS)}"]
    brian2.prefs.codegen.cpp.extra_compile_args_gcc = flags
    get_compiler_and_args()
    return flags


def precompiled(folder: Path, flags: Sequence[str]) -> Path:
    """A header with all of `HEADERS`, which GCC reads in its compiled form where that exists."""
    header = folder / "standard.h"
    header.write_text("".join(f"#include <{name}>\n" for name in HEADERS))
    command = [*os.environ.get("CXX", "g++").split(), *flags, "-x", "c++-header", str(header)]
    # Whatever the compiler objects to here, it will again, and more to the point, later on.
    with contextlib.suppress(OSError):
        subprocess.run([*command, "-o", f"{header}.gch"], check=False)
    return header
