"""Runs a command in a process of its own, lets a fault happen, and looks at what is left."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io
import itertools
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.faults import SIGNALS, After, Disk, Fault, at_each_change, install
from tests.crash.jobs import JOBS, empty_figures, lay_out, results, shrink_demo

PATIENCE = 120.0
"""Seconds after which a command hangs."""

GONE = 10.0
"""Seconds in which the processes that a command started have to be gone, once it is."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code or minus the signal, what it said and left running."""

    code: int
    said: str
    seconds: float
    left: tuple[int, ...] = ()


@dataclass(frozen=True)
class Undisturbed:
    """A run without a fault: what it wrote, in which time, by how many changes and syncs."""

    results: dict[str, Any]
    seconds: float
    changes: int
    syncs: int
    bytes: int


class Harness:
    """Runs jobs on a disk of its own, again and again."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="crash-"))
        self.disk = Disk(self.folder / "disk")
        self.stopped = 0
        self._known: dict[str, Undisturbed] = {}
        _import_all()

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self.disk.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def undisturbed(self, name: str) -> Undisturbed:
        """The run of job `name` without a fault; once for all trials."""
        if name not in self._known:
            if not JOBS[name].prepared:
                self._prepare(name)
                _rehearse(JOBS[name].words, self.disk.place)
            self._prepare(name)
            before = _size(self.disk.place)
            counts = self.folder / "counts"
            ended = self._run(JOBS[name].words, prepare=lambda: _count(counts))
            if ended.code:
                raise RuntimeError(f"{name}: {ended.said}")
            changes, syncs = map(int, counts.read_text().split())
            grown = _size(self.disk.place) - before
            found = results(self.disk.place)
            self._known[name] = Undisturbed(found, ended.seconds, changes, syncs, grown)
        return self._known[name]

    def trial(self, name: str, fault: Fault) -> str | None:
        """What is wrong after `fault` in job `name`; None if nothing is."""
        job, whole = JOBS[name], self.undisturbed(name)
        self._prepare(name)
        if fault.kind == "full" and self.disk.real:
            self.disk.full(int(fault.moment * whole.bytes))
        disk = self.disk

        def prepare() -> None:
            install(fault, whole.changes, whole.syncs, disk)

        ended = self._run(job.words, prepare, fault, fault.moment * whole.seconds)
        self.disk.mend()
        self.stopped += ended.code != 0
        wrong = _judged(fault, ended)
        if wrong is not None:
            return wrong
        try:
            results(self.disk.place)
        except Exception as error:
            return f"what it left is not whole: {type(error).__name__}: {error}"
        ended = self._run((*job.words, *job.again))
        if ended.code:
            return f"afterwards, exit code {ended.code}: {ended.said}"
        return _difference(whole.results, results(self.disk.place))

    def _prepare(self, name: str) -> None:
        for path in self.disk.place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        lay_out(self.disk.place)
        for words in JOBS[name].prepared:
            ended = self._run(words)
            if ended.code:
                raise RuntimeError(f"{name}: {ended.said}")

    def _run(
        self,
        words: tuple[str, ...],
        prepare: Callable[[], None] = lambda: None,
        fault: Fault | None = None,
        moment: float = 0.0,
    ) -> Ended:
        said = self.folder / "said"
        child = _forked(lambda: _become(words, self.disk.place, said, prepare))
        started = time.monotonic()
        if fault is not None and not _ends_within(moment, child):
            self._strike(fault, child)
        if not _ends_within(PATIENCE, child):
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seconds = time.monotonic() - started
        return Ended(code, said.read_text(errors="replace"), seconds, _left(child))

    def _strike(self, fault: Fault, child: int) -> None:
        if fault.kind in SIGNALS:
            os.kill(child, SIGNALS[fault.kind])
        elif fault.kind == "read-only" and self.disk.real:
            self.disk.read_only()


def _import_all() -> None:
    """Import what the commands import, so that a process is ready as soon as it is forked."""
    import torch
    import typer

    torch.set_num_threads(1)
    for name in ("cli", "training.loop", "report.plots.learning"):
        importlib.import_module(f"ep_neuro.{name}")
    importlib.import_module("targets.experiments.demo")
    shrink_demo()
    empty_figures()
    typer.main.get_command = functools.cache(typer.main.get_command)
    # A fork copies each page that it writes, and a collection writes all.
    gc.collect()
    gc.freeze()


def _rehearse(words: tuple[str, ...], place: Path) -> None:
    """Do it here, for all that is imported on the way, which takes seconds of each process else."""
    from ep_neuro.cli import main

    before, sys.argv = Path.cwd(), ["ep-neuro", *words, "--json"]
    os.chdir(place)
    silence = io.StringIO()
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            main()
    except SystemExit as left:
        if left.code:
            raise RuntimeError(silence.getvalue()) from None
    finally:
        os.chdir(before)


def _count(place: Path) -> None:
    """Count changes of files and syncs of this process, and write both to `place` at the end."""
    counts, sync, descriptor = [0, 0], os.fsync, os.open(place, os.O_CREAT | os.O_WRONLY, 0o600)

    def note(which: int) -> None:
        counts[which] += 1
        os.pwrite(descriptor, b"%10d %10d" % tuple(counts), 0)

    def fsync(synced: int) -> None:
        note(1)
        sync(synced)

    os.fsync = fsync
    at_each_change(After(0, lambda: note(0)))


def _forked(work: Callable[[], int]) -> int:
    """A process that does `work` and ends with its code; it takes signals once it has begun."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, set(SIGNALS.values()))
    begun, telling = os.pipe()
    child = os.fork()
    if child:
        os.close(telling)
        os.read(begun, 1)
        os.close(begun)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return child
    code = 99
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(telling, b"!")
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _become(words: tuple[str, ...], place: Path, said: Path, prepare: Callable[[], None]) -> int:
    """Be the command `words` in the folder `place`; its exit code."""
    out = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    os.chdir(place)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
    sys.argv = ["ep-neuro", *words, "--json"]
    prepare()
    from ep_neuro.cli import main

    try:
        # From here on the command answers for what a signal does.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS.values()))
    except KeyboardInterrupt:
        return 130
    try:
        main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 98
    return 0


def _ends_within(seconds: float, child: int) -> bool:
    """Whether `child` ends in this time; it is not asked for its exit code."""
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _left(session: int) -> tuple[int, ...]:
    """Processes that still run in `session` after a while; they are ended."""
    deadline = time.monotonic() + GONE
    while (found := _session(session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


def _session(session: int) -> tuple[int, ...]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return tuple(found)


def _size(place: Path) -> int:
    return sum(p.stat().st_size for p in place.rglob("*") if p.is_file())


def _judged(fault: Fault, ended: Ended) -> str | None:
    if ended.left:
        return f"{len(ended.left)} processes are left"
    if ended.seconds > PATIENCE:
        return f"hangs: no end after {PATIENCE:.0f} s"
    allowed = {0, 1, 2}
    if fault.kind in SIGNALS:
        allowed |= {-SIGNALS[fault.kind]} | ({130} if fault.kind == "SIGINT" else set())
    elif fault.kind == "SIGKILL at a file":
        allowed = {0, -signal.SIGKILL}
    if ended.code not in allowed:
        return f"exit code {ended.code}: {ended.said}"
    if "Traceback" in ended.said or "unforeseen" in ended.said:
        return f"says {ended.said}"
    if ended.code > 0 and ended.said.count("error: ") != 1:
        return f"exit code {ended.code} says {ended.said}"
    return None


def _difference(whole: dict[str, Any], found: dict[str, Any]) -> str | None:
    """What differs from the run that was not disturbed; None if nothing does."""
    if whole.keys() != found.keys():
        return f"{', '.join(sorted(whole.keys() ^ found.keys()))} on one side only"
    for name, value in whole.items():
        if found[name] != value:
            return f"{name} is not that of the undisturbed run" + _first(value, found[name])
    return None


def _first(mine: Any, theirs: Any) -> str:
    """The first line in which two lists differ."""
    if not isinstance(mine, list):
        return ""
    lines = itertools.zip_longest(mine, theirs)
    return next(f": {a} is {b}" for a, b in lines if a != b)
