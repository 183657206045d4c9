"""Processes forked from the tests: a fresh Python would import torch for seconds, each time."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def fork(function: Callable[..., Any], *arguments: Any, **variables: str) -> BaseProcess:
    """Start ``function(*arguments)`` in a process of its own.

    Parameters
    ----------
    function : callable
        Ends the process with 1 if it raises.
    variables : str
        Added to its environment.
    """
    import torch._dynamo  # noqa: F401 - a first optimiser imports it, for seconds

    def child() -> None:
        os.environ.update(variables)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=child)
    with warnings.catch_warnings():
        # Tests compute on one thread (tests/conftest.py), and it is the one that goes on.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def holds(claim: Callable[[], None], limit: float = 60.0) -> bool:
    """Whether `claim` returns in a process of its own; what it raises stands on stderr."""
    process = fork(claim)
    process.join(limit)
    process.kill()
    return process.exitcode == 0


@dataclass(frozen=True)
class Done:
    """What a script left behind: exit code, stdout, stderr."""

    code: int | None
    out: str
    err: str


def called(function: Callable[..., Any], *arguments: Any, limit: float = 100.0) -> Done:
    """What ``function(*arguments)`` leaves behind in a process with streams of its own."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = fork(_streaming, out.fileno(), err.fileno(), function, *arguments)
        process.join(limit)
        process.kill()
        process.join()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return Done(process.exitcode, *texts)


def run_script(path: Path, *arguments: object, cwd: Path, limit: float = 100.0) -> Done:
    """Run the script `path` as ``python path *arguments`` does, for at most `limit` seconds.

    It imports our packages afresh, and has the others from the tests.
    """
    return called(_script, [str(path), *map(str, arguments)], cwd, limit=limit)


def _streaming(out: int, err: int, function: Callable[..., Any], *arguments: Any) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - by lines, as Python has it
    function(*arguments)


def _script(words: list[str], cwd: Path) -> None:
    os.chdir(cwd)
    without("ep_neuro", "compilers", "targets")
    sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


def without(*packages: str) -> None:
    """Forget what is imported of `packages`; to be called in a process of its own."""
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            del sys.modules[name]
