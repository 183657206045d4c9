"""A fork server: an interpreter that imports Lava once, and forks for every network.

Importing Lava takes longer than starting a network. The server has no thread and runs no network,
so that a fork of it is sound; it ends with the program that started it. Between server and network
stands a minder, which tells the program, through a pipe, which process the network's supervisor is
and how it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PRELOAD = (
    "lava.magma.core.run_configs",
    "lava.magma.core.run_conditions",
    "lava.magma.compiler.compiler",
    "lava.magma.runtime.runtime",
    "targets.lava.builders.batched",
    "targets.lava.runtime.supervisor",
)
"""What every network needs."""

MESSAGE_BYTES, MOST_DESCRIPTORS = 1 << 16, 16
"""Bounds of a request."""

APART = 300
"""Descriptors from here on are nobody's number in the program."""

_QUIET = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_BOOT = Path(__file__).with_name("boot.py")


class Forked:
    """A process that a fork server made; like a `subprocess.Popen`."""

    def __init__(self, status: int) -> None:
        self._status, self._said = status, b""
        self._code: int | None = None
        self.pid = int(self._line(None) or 0)
        if not self.pid:
            os.close(status)
            raise OSError("the fork server has ended")

    def poll(self) -> int | None:
        """Its exit code, as in `subprocess`; None while it lives."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises `subprocess.TimeoutExpired`."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self._code is None:
            line = self._line(timeout)
            if line is None:
                return None
            # A minder that was killed says nothing, and its process has died of the same.
            self._code = int(line or -signal.SIGKILL)
            os.close(self._status)
        return self._code

    def _line(self, timeout: float | None) -> str | None:
        """What the minder says next, empty if it has ended; None if it says nothing in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._said:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._status], [], [], left)[0]:
                return None
            more = os.read(self._status, 64)
            if not more:
                return ""
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()


class ForkServer:
    """The program's end of a fork server.

    Parameters
    ----------
    python : str
        The interpreter that it runs on.
    packages : mapping of str to str
        Folder of each of our packages that it finds.
    """

    def __init__(self, python: str, packages: Mapping[str, str]) -> None:
        self.owner = os.getpid()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        boot = {"fd": theirs.fileno(), "packages": dict(packages)}
        self._process = subprocess.Popen(
            [python, "-I", str(_BOOT), json.dumps(boot)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_QUIET},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    @property
    def alive(self) -> bool:
        """Whether it is ours and runs."""
        return self.owner == os.getpid() and self._process.poll() is None

    def fork(self, connection: int, log: int, inherit: Sequence[int]) -> Forked:
        """A supervisor that serves `connection`, prints to `log` and has `inherit` open.

        Raises
        ------
        OSError
            If the server has ended.
        """
        status, theirs = os.pipe()
        try:
            request = json.dumps({"connection": connection, "inherit": list(inherit)}).encode()
            given = [theirs, log, connection, *inherit]
            socket.send_fds(self._socket, [request], given)
        except OSError:
            os.close(status)
            raise
        finally:
            os.close(theirs)
        return Forked(status)


_servers: dict[str, ForkServer] = {}
_lock = threading.Lock()


def fork(
    python: str,
    packages: Mapping[str, str],
    connection: int,
    log: int,
    inherit: Sequence[int],
) -> Forked:
    """`ForkServer.fork` of the server for `python` and `packages`, which starts if it has to."""
    key = json.dumps([python, dict(packages)])
    with _lock:
        for _ in range(2):
            server = _servers.get(key)
            if server is None or not server.alive:
                server = _servers[key] = ForkServer(python, packages)
            with contextlib.suppress(OSError):
                return server.fork(connection, log, inherit)
            _servers.pop(key)
    raise OSError(f"{python} does not start")


# --- in Lava's room ----------------------------------------------------------------------------


def serve(fd: int) -> None:
    """Fork at every request of the socket `fd`, until the program at its other end has ended."""
    # What is broken here is so in every fork, which says so in its place.
    for module in PRELOAD:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    here = socket.socket(fileno=fd)
    while True:
        request, given, _, _ = socket.recv_fds(here, MESSAGE_BYTES, MOST_DESCRIPTORS)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            here.close()
            _mind(json.loads(request), given)
        for descriptor in given:
            os.close(descriptor)


def _mind(request: Mapping[str, Any], given: Sequence[int]) -> None:
    """Fork the supervisor, say who it is, wait for it, say how it ended."""
    from targets.lava.runtime import supervisor

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _die_with_parent()
    status, log, *rest = given
    pid = os.fork()
    if pid == 0:
        os.close(status)
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        _place(rest, [request["connection"], *request["inherit"]])
        supervisor.serve(request["connection"])
    for descriptor in (log, *rest):
        os.close(descriptor)
    with contextlib.suppress(OSError):
        os.write(status, f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, f"{code}\n".encode())
    os._exit(0)


def _place(descriptors: Sequence[int], numbers: Sequence[int]) -> None:
    """Give `descriptors` the `numbers` that they have in the program."""
    apart = [fcntl.fcntl(d, fcntl.F_DUPFD, APART) for d in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(apart, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _die_with_parent() -> None:
    from targets.lava.runtime.supervisor import die_with

    bind: Callable[[], None] = die_with(os.getppid())
    bind()


__all__ = ["ForkServer", "Forked", "fork", "serve"]
