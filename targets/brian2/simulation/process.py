"""The caller's end of the process that runs Brian2: starts it once, bounds every job in time."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from ep_neuro.errors import RunError
from targets.brian2.simulation.worker import LOG, Done, Ended, Fault, ScriptRun

POLL_SECONDS = 0.05
"""Time between two looks at the process while it works."""

START_SECONDS = 180.0
"""Time that importing Brian2 may take on top of the first job: it took 2 to 45 s."""

_BOOT = (
    "import sys; sys.path[:] = {path!r}; "
    "from targets.brian2.simulation.worker import main; main({fd})"
)
_QUIET = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_ERROR = re.compile(r"^.*\b(?:fatal )?error\b.*$", re.IGNORECASE | re.MULTILINE)


class Brian2TracebackError(Exception):
    """What Brian2 or the compiler printed last, as text; the cause of a `RunError`."""


class WorkerProcess:
    """One process for all sessions of this one; it starts with the first job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._folder: str | None = None

    def run(self, job: ScriptRun, limit: float, done: Callable[[int], None]) -> None:
        """Do `job`; `done` is told the first sample of each run as it ends.

        Parameters
        ----------
        job : ScriptRun
            What to settle.
        limit : float
            Seconds that one run may take, with compilation.
        done : callable
            Called with the first sample of each run.

        Raises
        ------
        RunError
            If the job raises, dies or exceeds the limit.
        """
        with self._lock:
            spare = START_SECONDS if self._start() else 0.0
            try:
                fault = self._follow(job, limit, spare, done)
            except BaseException:
                self.kill()
                raise
        if fault is not None:
            raise _error(fault, Path(job.folder)) from Brian2TracebackError(
                f"{_log(Path(job.folder))}\n{fault.trace}"
            )

    def kill(self) -> None:
        """End the process, and all that it started, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._connection = self._folder = None

    def _start(self) -> bool:
        """Start the process unless it runs; whether it had to be."""
        if self._process is not None and self._process.poll() is None:
            return False
        self.kill()
        self._connection, theirs = Pipe()
        self._folder = tempfile.mkdtemp(prefix="ep-neuro-brian2-")
        boot = _BOOT.format(path=[p or os.getcwd() for p in sys.path], fd=theirs.fileno())
        with open(Path(self._folder) / LOG, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, **_QUIET, "TMPDIR": self._folder},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        return True

    def _follow(
        self, job: ScriptRun, limit: float, spare: float, done: Callable[[int], None]
    ) -> Fault | None:
        assert self._connection is not None
        self._connection.send(job)
        deadline, fault = time.monotonic() + limit + spare, None
        while True:
            try:
                message = self._receive(deadline, limit)
            except (EOFError, ConnectionResetError):
                assert self._folder is not None
                raise RunError(
                    "brian2",
                    f"its process has ended ({_last_line(_log(Path(self._folder)))})",
                    "run it again, with fewer samples at once if memory ran out",
                ) from None
            if isinstance(message, Done):
                deadline = time.monotonic() + limit
                done(message.first)
            elif isinstance(message, Fault):
                fault = message
            else:
                assert isinstance(message, Ended)
                return fault or _silent(message, Path(job.folder))

    def _receive(self, deadline: float, limit: float) -> object:
        assert self._connection is not None
        while not self._connection.poll(POLL_SECONDS):
            if time.monotonic() > deadline:
                raise RunError(
                    "brian2",
                    f"a run had not ended after {limit:g} s, the limit 'time_limit'",
                    "raise time_limit, or run fewer steps or samples",
                )
        return self._connection.recv()


def _silent(end: Ended, folder: Path) -> Fault | None:
    """The fault of a job that left without a word, None if it did well."""
    if end.status == 0:
        return None
    code = os.waitstatus_to_exitcode(end.status)
    how = f"died of signal {-code}" if code < 0 else f"ended with {code}"
    return Fault(f"its process {how}", _log(folder))


def _error(fault: Fault, folder: Path) -> RunError:
    """One line about `fault`; where C++ did not compile, the compiler's own first complaint."""
    if "compilation failed" not in fault.problem:
        return RunError("brian2", fault.problem, "see its traceback with --debug")
    found = _ERROR.search(_log(folder))
    said = found.group().strip() if found else _last_line(_log(folder))
    remedy = "repair the compiler, or compile with the option mode=runtime; --debug shows its log"
    return RunError("brian2", f"C++ compilation failed ({said[:300]})", remedy)


def _log(folder: Path, size: int = 8000) -> str:
    """The end of what was printed."""
    try:
        data = (folder / LOG).read_bytes()
    except OSError:
        return ""
    return data[-size:].decode("utf-8", "replace").strip()


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else "it printed nothing"


GUARD = WorkerProcess()
atexit.register(GUARD.kill)
