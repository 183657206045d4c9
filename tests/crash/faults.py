"""What goes wrong: signals at a moment or at a file operation, and disks that refuse."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNALS = {
    "SIGKILL": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "SIGINT": signal.SIGINT,
}
FAULTS = (*SIGNALS, "SIGKILL at a file", "fsync", "full", "read-only")

ROOM = 32 << 20
"""Bytes of the file system on which a run that is not disturbed works."""

_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink")


@dataclass(frozen=True)
class Fault:
    """One of `FAULTS` and when: a share, 0 to 1, of the time or of the operations of a run."""

    kind: str
    moment: float

    def __str__(self) -> str:
        return f"{self.kind} at {self.moment:.3f}"


def at_each_change(act: Callable[[], None]) -> None:
    """Call `act` before every change of a file that this process makes from now on."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        written = event == "open" and isinstance(args[2], int) and args[2] & 3
        if (written and str(args[0]) != os.devnull) or event in _CHANGES:
            act()

    sys.addaudithook(hook)


class After:
    """Does `act` at its `number`-th call, and from then on."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.left, self.act = number, act

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.act()


def refuse(number: int) -> Callable[[], None]:
    """Raises the error of the system with this number."""

    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def kill_self() -> None:
    """End this process as a power failure would."""
    os.kill(os.getpid(), signal.SIGKILL)


def install(fault: Fault, changes: int, syncs: int, disk: Disk) -> None:
    """Prepare `fault` in the process that is going to run; `changes` and `syncs` are all it does.

    Signals at a moment, and what a real disk does, come from outside.
    """
    at = int(fault.moment * changes)
    if fault.kind == "SIGKILL at a file":
        at_each_change(After(at, kill_self))
    elif fault.kind == "fsync":
        failing = After(int(fault.moment * syncs), refuse(errno.EIO))
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            failing()
            sync(descriptor)

        os.fsync = fsync
    elif fault.kind == "full" and not disk.real:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(fault.moment * 4096),) * 2)
    elif fault.kind == "read-only" and not disk.real:
        at_each_change(After(at, refuse(errno.EROFS)))


class Disk:
    """A file system in memory at `place`, that can fill up and turn read-only.

    Who may not mount has a folder there, and `real` is False.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        words = ("mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place))
        self.real = os.geteuid() == 0 and _done(*words)

    def full(self, bytes_left: int) -> None:
        """Leave room for `bytes_left` more."""
        used = os.statvfs(self.place)
        taken = (used.f_blocks - used.f_bfree) * used.f_frsize
        self._remount(f"size={max(taken + bytes_left, 4096)}")

    def read_only(self) -> None:
        """Take no more changes; while a file is open for writing, the kernel makes us wait."""
        for _ in range(200):
            if self._remount("ro"):
                return
            time.sleep(0.005)

    def mend(self) -> None:
        """Work again."""
        if self.real:
            self._remount(f"rw,size={ROOM}")

    def close(self) -> None:
        """Give it back."""
        if self.real:
            _done("umount", "-l", str(self.place))

    def _remount(self, options: str) -> bool:
        return _done("mount", "-o", f"remount,{options}", str(self.place))


def _done(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except OSError:
        return False
