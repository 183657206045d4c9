"""Runs a simulator in a process group that cannot outlive, or hang, its session."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any, ClassVar

from ep_neuro.errors import RunError
from targets.interface.supervised.fork_server import Forked, ForkServer
from targets.interface.supervised.messages import Fault, Message, Progress, Stop, receive, send

POLL_SECONDS = 0.05
"""Time between two looks at the process while it works."""

GRACE_SECONDS = 3.0
"""Time that a group has to vanish after SIGTERM; then it gets SIGKILL."""

LONGEST = 1e9
"""Seconds, 31 years, that the limit of a start or a run may be; of an integer without end no clock
can be set."""

LOGGED = 8000
"""Bytes of the end of its log that an error tells of."""

STOP_LIMIT = 8.0
"""Time that the process has to stop in good order."""


class ProcessTracebackError(Exception):
    """What a process printed and its traceback, as text; the cause of a `RunError`."""


class SupervisedProcess:
    """A process that answers commands.

    Parameters
    ----------
    server : ForkServer
        Forks it.
    start_limit : float
        Seconds until there has to be a process.
    inherit : sequence of int
        File descriptors that it has open, too.
    prepare : sequence of str
        See `ForkServer.fork`.

    Raises
    ------
    RunError
        If it does not start. Every failure ends the whole group before it is raised.
    """

    name: ClassVar[str]
    """Of the target."""
    serve: ClassVar[str]
    """``module:function`` that answers commands of `targets.interface.supervised.messages` on the
    connection with the file descriptor that it is called with."""
    repair: ClassVar[str]
    """What helps if it does not start."""
    memory: ClassVar[str]
    """What helps if it dies."""

    def __init__(
        self,
        server: ForkServer,
        *,
        start_limit: float,
        inherit: Sequence[int] = (),
        prepare: Sequence[str] = (),
    ) -> None:
        self._connection, theirs = Pipe()
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - lives as long as this
        try:
            self._process = server.fork(
                self.serve,
                theirs.fileno(),
                self._log.fileno(),
                inherit=inherit,
                prepare=prepare,
                limit=start_limit,
            )
        except OSError as error:
            self._connection.close()
            self._log.close()
            raise RunError(self.name, f"it does not start ({error})", self.repair) from error
        finally:
            theirs.close()
        self._finalizer = weakref.finalize(
            self, _end, self._process, self._connection, self._log, orderly=False
        )

    @property
    def pid(self) -> int:
        """Id of the process and of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still run."""
        return self._finalizer.alive

    def close(self) -> None:
        """End the group in good order; closing twice is harmless."""
        if self._finalizer.detach() is not None:
            _end(self._process, self._connection, self._log, orderly=True)

    def kill(self) -> None:
        """End the group at once."""
        self._finalizer()

    def ask(
        self,
        command: Message,
        limit: float,
        doing: str,
        option: str,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Have `command` done in `limit` seconds, the option `option`; `doing` names it in errors.

        Each `Progress` begins the limit anew and is passed on to `progress`.
        """
        if not self.alive:
            raise RunError(self.name, "the session has ended", "open the program again")
        late = RunError(
            self.name,
            f"'{doing}' had not ended after {limit:g} s, the limit '{option}'",
            f"raise {option}, or run fewer steps or samples at once",
        )
        try:
            answer = self._answer(command, limit, late)
            while isinstance(answer, Progress):
                if progress is not None:
                    progress(answer.done)
                answer = self._answer(None, limit, late)
        except BaseException:
            self.kill()
            raise
        if isinstance(answer, Fault):
            log = tail(self._log)
            self.kill()
            trace = "\n".join(dict.fromkeys(filter(None, (log, answer.trace))))
            cause = ProcessTracebackError(trace) if trace else None
            raise self.error(answer, doing, log) from cause

    def error(self, fault: Fault, doing: str, log: str) -> RunError:
        """One line about `fault`."""
        remedy = "see its traceback with --debug" if fault.trace or log else self.memory
        return RunError(fault.subject, f"{fault.problem} during '{doing}'", remedy)

    def _answer(self, command: Message | None, limit: float, late: RunError) -> Any:
        """The next message, that to `command` if there is one; raises `late` after `limit` s."""
        deadline = time.monotonic() + limit
        try:
            if command is not None:
                send(self._connection, command)
            while not self._connection.poll(POLL_SECONDS):
                if self._process.ended() is not None and not self._connection.poll():
                    return self._silent_end()
                if time.monotonic() > deadline:
                    raise late
            return receive(self._connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return self._silent_end()

    def _silent_end(self) -> Fault:
        """The fault of a process that left without an answer; what it printed says why."""
        log = tail(self._log)
        last = f" ({log.splitlines()[-1]})" if log else ""
        code = self._process.ended(GRACE_SECONDS)
        how = "closed its connection" if code is None else how_it_ended(code)
        return Fault(f"{self.name} runtime", f"it {how}{last}")


def _end(process: Forked, connection: Connection, log: IO[bytes], *, orderly: bool) -> None:
    """End the group of `process`; at once, or in good order if it is idle."""
    if orderly and process.ended() is None:
        with contextlib.suppress(OSError):
            send(connection, Stop())
            process.ended(STOP_LIMIT)
    # Python's resource tracker outlives SIGTERM and then frees Lava's shared memory, so SIGKILL
    # is for those who do not go by themselves. SIGCONT wakes the stopped ones up to die.
    for sign, wait in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        if not _signal_group(process.pid, sign, signal.SIGCONT):
            break
        deadline = time.monotonic() + wait
        while members(process.pid) and time.monotonic() < deadline:
            if process.ended(0.01) is not None:
                time.sleep(0.01)  # others of the group are still on their way
    process.ended(None)
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


def how_it_ended(code: int) -> str:
    """An exit code of a process in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def tail(log: IO[bytes]) -> str:
    """The end of what was printed to `log`."""
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - LOGGED))
    return log.read().decode("utf-8", "replace").strip()
