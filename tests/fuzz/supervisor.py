"""Keeps a child that tries inputs, within limits of time and memory; a dead one is replaced."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.bases import memory
from tests.fuzz.case import Case, Outcome
from tests.fuzz.claims import MEMORY, fault_of

ROOT = Path(__file__).resolve().parents[2]

SECONDS = 20.0
"""Processor time that an input may take: on a busy machine the clock measures the others."""

PATIENCE = 120.0
"""Seconds on the clock, whatever the process does."""

START = 300.0
"""Seconds in which a child has to be there."""

LOST = 8
"""Children that may die one after the other without an answer: then it is not the inputs."""

TICK = 0.05
_NOWHERE = "http://127.0.0.1:9"


class Supervisor:
    """Tries cases one after another, in a process that outlives most of them."""

    child = ("-m", "tests.fuzz.child")
    """Words of the Python that tries them."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory()))
        self.children, self._lost = 0, 0
        self.answered = False
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self.place, ignore_errors=True)

    def fault(self, case: Case) -> str | None:
        """What is wrong with how the command line takes `case`; None if nothing is."""
        found = self.run(case)
        self.answered = isinstance(found, Outcome) and found.code == 0
        return found if isinstance(found, str) else fault_of(case, found)

    def run(self, case: Case) -> Outcome | str:
        """What `case` left behind, or how it ended the child; `RuntimeError` if each one dies."""
        if self._lost >= LOST:
            raise RuntimeError(f"{LOST} children that try inputs died one after the other")
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._connection is not None
        try:
            self._connection.send(case)
            ended = self._wait(self._process.pid)
            found = None if ended else self._connection.recv()
        except (EOFError, OSError):
            ended, found = f"died by exit code {self._process.wait()}", None
        if isinstance(found, Outcome):
            self._lost = 0
            return found
        self._lost += 1
        self._end()
        return ended or "sent no outcome"

    def _wait(self, pid: int) -> str | None:
        """Wait for an outcome; how the case broke a limit, or None."""
        assert self._connection is not None
        start, before = time.monotonic(), _processor_seconds(pid)
        while not self._connection.poll(TICK):
            if _resident(pid) > MEMORY:
                return "took more than 2 GiB"
            if _processor_seconds(pid) - before > SECONDS:
                return f"took more than {SECONDS:.0f} s"
            if time.monotonic() - start > PATIENCE:
                return f"did not answer in {PATIENCE:.0f} s"
        return None

    def _start(self) -> None:
        inside = self.place / "inside"
        shutil.rmtree(inside, ignore_errors=True)
        ours, theirs = Pipe()
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.place.parent / "nobody"),
            "MPLBACKEND": "Agg",
            "OMP_NUM_THREADS": "1",
            # Names of public data sets are drawn, too, and no test downloads.
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE),
        }
        command = [sys.executable, *self.child, str(theirs.fileno()), str(self.place)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        self._connection = ours
        self.children += 1
        if not ours.poll(START) or ours.recv() != "ready":
            self._end()
            raise RuntimeError("the child that tries inputs did not start")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        for path in self.place.iterdir():
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
