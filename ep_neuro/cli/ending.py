"""From the end of a command to its exit code: errors become one line on stderr."""

from __future__ import annotations

import contextlib
import errno
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import typer

from ep_neuro.cli.console import log
from ep_neuro.errors import EPNeuroError

INTERRUPTED = 130
"""Exit code of Ctrl-C: 128 plus the signal, as a shell gives it."""

AGAIN_SECONDS = 0.01
"""Time after which an interrupt that was dropped is told again."""

# Typer carries its own copy of click since 0.26; the class is the same one in both worlds.
_UsageError: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)

_NO_MEMORY = re.compile("can't allocate memory|out of memory")
"""What torch says in a RuntimeError."""


def exit_code(work: Callable[[], Any], *, debug: bool) -> int:
    """Do `work`; an error becomes one line on stderr, with its traceback if `debug`."""
    try:
        with _interrupts_told_again():
            code = work()
        code = code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        text, code = _explained(error)
        log(f"error: {' '.join(text.split())}")
    if code == INTERRUPTED:
        log("error: interrupted; files written so far are whole")
    return code


@contextlib.contextmanager
def _interrupts_told_again() -> Iterator[None]:
    """Ctrl-C holds also where Python drops it: in a finaliser, whose exceptions only get printed.

    A thread of its own tells it again a moment later, when the finaliser is left.
    """
    before, main = sys.unraisablehook, threading.main_thread().ident

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt) and main is not None:
            threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, signal.SIGINT)).start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _explained(error: Exception) -> tuple[str, int]:
    """What to tell about `error`, and the exit code."""
    if isinstance(error, EPNeuroError):
        return str(error), error.exit_code
    if isinstance(error, _UsageError):
        command = getattr(getattr(error, "ctx", None), "command_path", "ep-neuro")
        return f"{command}: {_complaint(error)}; see `{command} --help`", 2
    if isinstance(error, OSError) and error.filename is not None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room there" if full else "check the path and its permissions"
        return f"{error.filename}: {error.strerror}; {remedy}", 2
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or _NO_MEMORY.search(what):
        return f"memory: it ran out ({what}); take fewer samples at once, or a smaller network", 2
    return f"unforeseen {what}; run with --debug and report the traceback", 1


def _complaint(error: Any) -> str:
    """What click says, with the value at fault, which it leaves out."""
    names = getattr(getattr(error, "param", None), "opts", ())
    for here, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        name, equals, value = here.partition("=")
        if name in names and (equals or following):
            return f"{name} {value if equals else following}: {error.message.rstrip('.')}"
    return str(error.format_message()).strip().rstrip(".")
