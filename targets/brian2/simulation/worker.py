"""What a fork for a job does: it runs the job's script on Brian2, run after run."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from compilers.ir.text import parse_graph
from targets.brian2.codegen.script import FLAGS, write_arrays
from targets.brian2.simulation.online_learning import CommitLoop
from targets.interface.supervised.fork_server import die_with
from targets.interface.supervised.messages import Done, Fault, Progress, receive, send

NETWORK, WEIGHTS, DATA, BUILD = "network.py", "network.npz", "data.npz", "build"
"""Files of a job's folder, and the folder in it where C++ is built."""

PLASTIC, ARRAYS, MEMORY = "plastic.py", "arrays.npz", "memory.npz"
"""The script of a network that learns, the arrays of its graph, and what it has learnt."""

CHANGED = "changed"
"""Key, beside a memory, of the mean change of a weight summed over the commits of a run."""

HEADERS = (
    *("algorithm", "climits", "cmath", "cstdlib", "ctime", "fstream", "iostream", "iterator"),
    *("map", "random", "set", "string", "tuple", "utility", "vector"),
)
"""What every file that Brian2 generates includes: four fifths of the time that it compiles."""

_flags = [*FLAGS]  # with a header that is compiled in advance, once there is one


@dataclass(frozen=True)
class ScriptRun:
    """Samples to settle: `folder` holds the script, its weights and the inputs.

    One run takes `samples` of them, `side` side by side; the last run is filled up, as C++ is built
    for a number of them. With the text of a `graph` they learn, in one run of NumPy: `side` samples
    side by side commit together, then the next ones come.
    """

    folder: str
    samples: int
    side: int
    steps: int | None
    probes: Mapping[str, Sequence[str]]
    standalone: bool
    compilers: int
    graph: str = ""
    rate_scale: float = 1.0

    @property
    def build(self) -> Path:
        """Where C++ is built: code is made for samples side by side, and for what is recorded."""
        recorded = repr((self.side, {name: list(v) for name, v in self.probes.items()}))
        return Path(self.folder) / BUILD / hashlib.sha256(recorded.encode()).hexdigest()[:16]


def result_path(folder: str | Path, first: int) -> Path:
    """Where the records of the samples from `first` on are."""
    return Path(folder) / f"result{first}.npz"


def serve(fd: int) -> None:
    """Do the job that comes by the connection `fd`; ends with the program that sent it."""
    die_with(os.getppid())()
    connection = Connection(fd)
    try:
        for first in _settle(ScriptRun(**receive(connection).argument)):
            send(connection, Progress(first))
        send(connection, Done())
    except Exception as error:
        text = " ".join(str(error).split())
        problem = f"{type(error).__name__}: {text}"
        send(connection, Fault("brian2", problem, traceback.format_exc()))


def _settle(job: ScriptRun) -> Iterator[int]:
    """Do run after run, and say which is done."""
    import brian2

    folder = Path(job.folder)
    script = _load(folder / (PLASTIC if job.graph else NETWORK))
    build = None
    if job.standalone:
        build = job.build
        brian2.prefs.codegen.cpp.extra_compile_args_gcc = _flags
        # Sources of one build differ in constants only, so that dependencies need not be listed.
        arguments = [f"-j{job.compilers}", "-o", "make.deps"]
        brian2.prefs.devices.cpp_standalone.extra_make_args_unix = arguments
    data = arrays_of(folder / DATA)
    x, y = data["x"], data.get("y")
    for first in range(0, len(x), job.samples):
        part = slice(first, first + job.samples)
        targets = None if y is None else filled(y[part], job.samples)
        inputs = filled(x[part], job.samples)
        lesson = None
        if job.graph:
            graph = parse_graph(job.graph, arrays_of(folder / ARRAYS))
            lesson = CommitLoop(graph, arrays_of(folder / MEMORY), job.side, job.rate_scale, inputs)
        more = lesson and lesson.objects
        records = script.settle(
            inputs, targets, job.steps, job.probes, build, batch=job.side, further=more
        )
        if lesson is not None:
            learner = lesson.learner
            write_arrays(folder / MEMORY, {**learner.memory(), CHANGED: learner.changed})
        found = {f"{p}\n{key}": v for p, record in records.items() for key, v in record.items()}
        write_arrays(result_path(folder, first), found)
        yield first


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """What is in an .npz file."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


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


def prepare_compiler() -> None:
    """Compile a header in advance, and have Brian2 try its flags, once for all forks."""
    import brian2
    from brian2.codegen.cpp_prefs import get_compiler_and_args

    _flags.append(f"-include{precompiled(Path(os.environ['TMPDIR']), FLAGS)}")
    brian2.prefs.codegen.cpp.extra_compile_args_gcc = _flags
    get_compiler_and_args()


def precompiled(folder: Path, flags: Sequence[str]) -> Path:
    """A header with all of `HEADERS`, which GCC reads in its compiled form where that exists."""
    header = folder / "standard.h"
    header.write_text("".join(f"#include <{name}>\n" for name in HEADERS))
    command = [*os.environ.get("CXX", "g++").split(), *flags, "-x", "c++-header", str(header)]
    # Whatever the compiler objects to here, it will again, and more to the point, later on.
    with contextlib.suppress(OSError):
        subprocess.run([*command, "-o", f"{header}.gch"], check=False)
    return header
