"""A fork server: an interpreter that imports a simulator once, and forks for every run of it.

Importing takes longer than starting a run. The server has no thread and runs nothing, so that a
fork of it is sound; it ends with the program that started it. Between server and run stands a
minder, which tells the program, through a pipe, which process runs and how it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

PACKAGES = ("ep_neuro", "compilers", "targets")
"""Packages of ours that a server finds."""

MESSAGE_BYTES, MOST_DESCRIPTORS = 1 << 16, 16
"""Bounds of a request."""

APART = 300
"""Descriptors from here on are nobody's number in the program."""

PR_SET_PDEATHSIG = 1
"""``<linux/prctl.h>``: the signal that a process gets when its parent ends."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a process whose libraries shall compute on one thread."""

KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""Environment in which glibc does not give back the arrays of a step, only to ask for them again."""

_BOOT = Path(__file__).with_name("boot.py")


class Forked:
    """A process that a fork server made; its minder speaks through the pipe `status`.

    Raises
    ------
    OSError
        If the server has ended; `TimeoutError` if there is no process after `limit` seconds.
    """

    def __init__(self, status: Connection, limit: float) -> None:
        self._status = status
        self._code: int | None = None
        said = self._said(limit)
        if not said:
            status.close()
            raise OSError("it has ended") if said == b"" else TimeoutError("it takes too long")
        self.pid = int(said)

    def ended(self, timeout: float | None = 0.0) -> int | None:
        """Its exit code, as in `subprocess`; None if it lives longer than `timeout`, in seconds."""
        if self._code is None and (said := self._said(timeout)) is not None:
            # A minder that was killed says nothing, and its process has died of the same.
            self._code = int(said or -signal.SIGKILL)
            self._status.close()
        return self._code

    def _said(self, timeout: float | None) -> bytes | None:
        """What the minder says next, empty if it has ended; None if it says nothing in time."""
        try:
            return self._status.recv_bytes() if self._status.poll(timeout) else None
        except (EOFError, OSError):
            return b""


class ForkServer:
    """The program's end of a fork server, which starts with the first fork.

    Parameters
    ----------
    python : str
        The interpreter that it runs on.
    packages : sequence of str
        Top-level packages that it finds without their ``__init__``.
    path : sequence of str
        Where else it looks for modules.
    """

    def __init__(
        self, python: str, packages: Sequence[str] = PACKAGES, path: Sequence[str] = ()
    ) -> None:
        self.python, self._packages, self._path = python, packages, list(path)
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._cleanup: Callable[[], object] = lambda: None

    def fork(
        self,
        serve: str,
        connection: int,
        log: int,
        *,
        inherit: Sequence[int] = (),
        prepare: Sequence[str] = (),
        limit: float = 60.0,
    ) -> Forked:
        """A process that calls `serve` with `connection`, prints to `log`, has `inherit` open.

        Parameters
        ----------
        serve : str
            ``module:function``.
        prepare : sequence of str
            Modules to import, and ``module:function`` to call, once in the server.
        limit : float
            Seconds until there has to be a process.

        Raises
        ------
        OSError
            If the server does not start, or takes longer.
        """
        numbers = [connection, *inherit]
        request = json.dumps({"serve": serve, "prepare": list(prepare), "numbers": numbers})
        with self._lock:
            for _ in range(2):
                if self._owner != os.getpid() or self._process.poll() is not None:
                    self._start()
                try:
                    return self._fork(request.encode(), [log, *numbers], limit)
                except TimeoutError:
                    self._process.kill()
                    raise
                except OSError:
                    self._owner = None
        raise OSError(f"{self.python} does not start")

    def _start(self) -> None:
        self._cleanup()  # of a server that was killed; one that ends cleans up itself
        scratch = tempfile.mkdtemp(prefix="ep-neuro-")
        self._cleanup = weakref.finalize(self, _remove, scratch, os.getpid())
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folders = {name: _folder(name) for name in self._packages}
        boot = {"fd": theirs.fileno(), "packages": folders, "path": self._path}
        self._process = subprocess.Popen(
            [self.python, "-I", str(_BOOT), json.dumps(boot)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD, **KEPT_MEMORY, "TMPDIR": scratch},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._owner = os.getpid()

    def _fork(self, request: bytes, given: Sequence[int], limit: float) -> Forked:
        status, theirs = Pipe(duplex=False)
        with theirs:
            socket.send_fds(self._socket, [request], [theirs.fileno(), *given])
        return Forked(status, limit)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(package: str) -> str:
    """The folder of one of our packages."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return os.path.abspath(next(iter(spec.submodule_search_locations)))


# --- in the server -----------------------------------------------------------------------------


def serve(fd: int) -> None:
    """Fork at every request of the socket `fd`, until the program at its other end has ended."""
    here, prepared = socket.socket(fileno=fd), set[str]()
    _reserve()
    while True:
        text, given, _, _ = socket.recv_fds(here, MESSAGE_BYTES, MOST_DESCRIPTORS)
        if not text:
            shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
            os._exit(0)
        request = json.loads(text)
        for name in request["prepare"]:
            if name not in prepared:
                prepared.add(name)
                # What is broken here is so in every fork, which says so in its place.
                with contextlib.suppress(Exception):
                    call(name)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        gc.freeze()  # What was imported is no garbage: forks need not look through it each time.
        if os.fork() == 0:
            here.close()
            _mind(request["serve"], request["numbers"], given)
        for descriptor in given:
            os.close(descriptor)


def _reserve() -> None:
    """Take all numbers below `APART`, so that no file of a simulator has one that a fork is given.

    Such a file, the log of Brian2 for instance, would close or write to what took its place.
    """
    taken = os.open(os.devnull, os.O_RDWR)
    while taken < APART:
        taken = os.dup(taken)
    os.close(taken)


def call(name: str, *arguments: Any) -> Any:
    """Import ``module``, or return what ``module:function`` does."""
    module, _, function = name.partition(":")
    found = importlib.import_module(module)
    return getattr(found, function)(*arguments) if function else None


def _mind(name: str, numbers: Sequence[int], given: Sequence[int]) -> None:
    """Fork the process, say who it is, wait for it, say how it ended."""
    die_with(os.getppid())()
    status, log, *rest = given
    pid = os.fork()
    if pid == 0:
        os.close(status)
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        _place(rest, numbers)
        _run(name, numbers[0])
    for descriptor in (log, *rest):
        os.close(descriptor)
    with contextlib.suppress(OSError):
        minder = Connection(status, readable=False)
        minder.send_bytes(f"{pid}".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        minder.send_bytes(f"{code}".encode())
    os._exit(0)


def _run(name: str, connection: int) -> None:
    """Call `name`, then leave without the finalisers of a simulator, which may wait for ever."""
    code = 0
    try:
        call(name, connection)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _place(descriptors: Sequence[int], numbers: Sequence[int]) -> None:
    """Give `descriptors` the `numbers` that they have in the program."""
    apart = [fcntl.fcntl(d, fcntl.F_DUPFD, APART) for d in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(apart, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)


def die_with(parent: int) -> Callable[[], None]:
    """What a child does first on Linux, so that it ends with `parent`, however that ends."""
    if sys.platform != "linux":
        return lambda: None
    library = ctypes.CDLL(None)

    def bind() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return bind
