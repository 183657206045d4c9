"""Runs a Lava network in a supervised process group that cannot outlive, or hang, its session.

Why not in this process: Lava needs a Python and a NumPy of its own. Besides, its `run` waits
forever once a model raises or dies, its finalisers hang the interpreter, it sets the start method
of multiprocessing for everyone, and it forks, which no program with the threads of a numerical
library survives for sure. A fork of an interpreter that has imported Lava and no more
(`targets.lava.runtime.fork_server`) has none of these troubles, and can be killed as a group.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any

from ep_neuro.errors import RunError
from targets.lava.runtime.environment import interpreter
from targets.lava.runtime.fork_server import Forked, fork
from targets.lava.runtime.messages import Done, Fault, Run, Start, Stop, receive, send
from targets.lava.runtime.supervisor import how_it_ended

POLL_SECONDS = 0.05
"""Time between two looks at the supervisor while it works."""

GRACE_SECONDS = 3.0
"""Time that a group has to vanish after SIGTERM; then it gets SIGKILL."""

STOP_LIMIT = 8.0
"""Time that the supervisor has to stop Lava in good order."""

_PACKAGES = ("ep_neuro", "compilers", "targets")

_TRACE = "see its traceback with --debug"
_MEMORY = "lower the option batch if memory ran out, or run it again"


class LavaTracebackError(Exception):
    """The traceback of a process of Lava, as text; the cause of a `RunError`."""


class SupervisedProcess:
    """A Lava network that runs elsewhere.

    Parameters
    ----------
    builder : str
        ``module:function`` that takes `argument` and returns connected Lava Processes, each with
        its ProcessModel, as a dictionary.
    argument : object
        JSON values; arrays go by shared memory.
    start_limit : float
        Seconds that Lava has to start.
    inherit : sequence of int
        File descriptors that the processes inherit.

    Raises
    ------
    RunError
        If it does not start. Every failure ends the whole group before it is raised.
    """

    def __init__(
        self,
        builder: str,
        argument: Any = None,
        *,
        start_limit: float = 60.0,
        inherit: Sequence[int] = (),
    ) -> None:
        self._connection, theirs = Pipe()
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - lives as long as the guard
        names = sorted({*_PACKAGES, builder.partition(".")[0]})
        packages = {name: _folder(name) for name in names}
        try:
            self._process = fork(
                interpreter(), packages, theirs.fileno(), self._log.fileno(), inherit
            )
        except OSError as error:
            self._connection.close()
            self._log.close()
            raise RunError("lava", f"it does not start ({error})", "run `make setup`") from error
        finally:
            theirs.close()
        self._finalizer = weakref.finalize(
            self, _end, self._process, self._connection, self._log, orderly=False
        )
        self._ask(Start(builder, argument), start_limit, "start", "start_limit")

    @property
    def pid(self) -> int:
        """Id of the supervisor and of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still run."""
        return self._finalizer.alive

    def run(self, steps: int, limit: float, doing: str) -> None:
        """Run `steps` time steps within `limit` seconds; `doing` names the work in errors."""
        self._ask(Run(steps), limit, doing, "time_limit")

    def close(self) -> None:
        """Stop Lava in good order and end the group; closing twice is harmless."""
        if self._finalizer.detach() is not None:
            _end(self._process, self._connection, self._log, orderly=True)

    def kill(self) -> None:
        """End the group at once."""
        self._finalizer()

    def _ask(self, command: Start | Run, limit: float, doing: str, option: str) -> None:
        if not self.alive:
            raise RunError("lava", "the session has ended", "open the program again")
        try:
            fault = self._answer(command, limit, doing, option)
        except BaseException:
            self.kill()
            raise
        if fault is None:
            return
        trace = fault.trace or _tail(self._log)
        self.kill()
        problem, remedy = f"{fault.problem} during '{doing}'", _TRACE if fault.trace else _MEMORY
        raise RunError(fault.subject, problem, remedy) from (
            LavaTracebackError(trace) if trace else None
        )

    def _answer(self, command: Start | Run, limit: float, doing: str, option: str) -> Fault | None:
        deadline = time.monotonic() + limit
        try:
            send(self._connection, command)
            while not self._connection.poll(POLL_SECONDS):
                if self._process.poll() is not None and not self._connection.poll():
                    return self._silent_end()
                if time.monotonic() > deadline:
                    raise RunError(
                        "lava",
                        f"'{doing}' had not ended after {limit:g} s, the limit '{option}'",
                        f"raise {option}, or run fewer steps or samples at once",
                    )
            answer = receive(self._connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return self._silent_end()
        return None if isinstance(answer, Done) else answer

    def _silent_end(self) -> Fault:
        """The fault of a supervisor that left without an answer; what it printed says why."""
        log = _tail(self._log)
        last = f" ({log.splitlines()[-1]})" if log else ""
        try:
            how = how_it_ended(self._process.wait(GRACE_SECONDS))
        except subprocess.TimeoutExpired:
            how = "closed its connection"
        return Fault("lava runtime", f"it {how}{last}", log)


def _folder(package: str) -> str:
    """The folder of one of our packages, which Lava's Python reads as well."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return os.path.abspath(next(iter(spec.submodule_search_locations)))


def _end(process: Forked, connection: Connection, log: IO[bytes], *, orderly: bool) -> None:
    """End the group of `process`; at once, or in good order if it is idle."""
    if orderly and process.poll() is None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            send(connection, Stop())
            process.wait(STOP_LIMIT)
    # Python's resource tracker outlives SIGTERM and then frees Lava's shared memory, so SIGKILL
    # is for those who do not go by themselves. SIGCONT wakes the stopped ones up to die.
    for sign, wait in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        if not _signal_group(process.pid, sign, signal.SIGCONT):
            break
        deadline = time.monotonic() + wait
        while members(process.pid) and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.01)
    process.wait()
    connection.close()
    log.close()


def _signal_group(group: int, *signals: int) -> bool:
    try:
        for sign in signals:
            os.killpg(group, sign)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def members(group: int) -> list[int]:
    """Living processes of a process group; the dead whom nobody has collected do not count."""
    if not os.path.isdir("/proc/self"):
        return [group] if _signal_group(group, 0) else []  # no /proc: not Linux
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:
                state, _, pgrp = file.read().rpartition(")")[2].split()[:3]
                if int(pgrp) == group and state != "Z":
                    found.append(int(entry))
    return found


def _tail(log: IO[bytes], size: int = 8000) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - size))
    return log.read().decode("utf-8", "replace").strip()
