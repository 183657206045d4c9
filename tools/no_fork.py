"""Runs a command that may have threads but no further processes. Usage: no_fork.py COMMAND...

A filter of seccomp (Linux, x86-64 and arm64) answers fork, vfork, and clone without CLONE_THREAD,
with EPERM, and clone3, whose flags a filter cannot read, with ENOSYS, so that the C library takes
clone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

CLONE_THREAD = 0x10000
NUMBERS = {"x86_64": (56, (57, 58)), "aarch64": (220, ())}
"""Of the system calls: clone; fork and vfork."""
CLONE3 = 435
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
"""Of BPF: load a word, jump if equal, jump if a bit is set, return."""
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2


def program(clone: int, forks: tuple[int, ...]) -> bytes:
    """The filter: instructions of (code, jump if true, jump if false, constant)."""
    number, first_argument = 0, 16
    lines = [(LOAD, 0, 0, number), (EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for fork in forks:
        lines += [(EQUAL, 0, 1, fork), (RETURN, 0, 0, ERRNO | errno.EPERM)]
    lines += [(EQUAL, 1, 0, clone), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, first_argument)]
    lines += [(ANY_BIT, 0, 1, CLONE_THREAD), (RETURN, 0, 0, ALLOW)]
    lines += [(RETURN, 0, 0, ERRNO | errno.EPERM)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def forbid() -> None:
    """Install the filter for this process and what it becomes."""
    text = program(*NUMBERS[platform.machine()])
    code = ctypes.create_string_buffer(text, len(text))
    head = ctypes.create_string_buffer(struct.pack("HP", len(text) // 8, ctypes.addressof(code)))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or library.prctl(
        PR_SET_SECCOMP, MODE_FILTER, head, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


forbid()
os.execvp(sys.argv[1], sys.argv[1:])
