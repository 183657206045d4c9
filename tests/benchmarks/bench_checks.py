"""What share of train, learn and compare their checks take: of places, values, graphs, digests."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, wraps
from typing import Any

import torch

LIMIT = 0.02
"""Most of the processor time of a command that its checks may take."""

CHECKS: dict[str, tuple[str, ...]] = {
    "places": (
        "ep_neuro.cli.console.check_place",
        "ep_neuro.storage.atomic.refuse_foreign",
        "ep_neuro.training.run_directory.check_run_place",
        "ep_neuro.training.run_directory._lock",
    ),
    "values": (
        "ep_neuro.storage.value_checks.fault",
        "ep_neuro.storage.value_checks.swollen",
        "ep_neuro.network.network._refuse_giant",
    ),
    "graphs": (
        "compilers.passes.validate.validate",
        "compilers.execution.engine.Batch.moving",
    ),
    "digests": (
        "compilers.program.Program.digest",
        "ep_neuro.network.checkpoint._digest",
        "ep_neuro.network.checkpoint.joint_digest",
        "ep_neuro.data.datasets.Dataset.digest",
    ),
}
"""Functions that check places, files, graphs and results, by what they look at."""

MODEL = ("train", "zoo:digits_dense", "--set", "epochs=10", "--out", "run")
PROGRAM = ("compile", "run/best", "--target", "reference", "--bits", "8", "--out", "p")
COMMANDS: dict[str, tuple[str, ...]] = {
    "train": (*MODEL, "--force"),
    "learn": ("learn", "p", "--samples", "1000", "--batch", "10", "--force"),
    "compare": (
        *("compare", "run/best", "--with", "reference", "--with", "reference:spike:8"),
        *("--out", "page"),
    ),
}
"""What is timed, after `MODEL` and `PROGRAM`; each ran once before, and has all imported."""


class Clock:
    """Processor seconds spent in each kind of check; in a check within a check, once."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._inside = False

    def watch(self, kind: str, check: Callable[..., Any]) -> Callable[..., Any]:
        """`check`, timed as of this `kind`."""

        @wraps(check)
        def timed(*given: Any, **named: Any) -> Any:
            if self._inside:
                return check(*given, **named)
            self._inside, began = True, time.process_time()
            try:
                return check(*given, **named)
            finally:
                self._inside = False
                self.spent[kind] += time.process_time() - began

        return timed


@contextlib.contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Time every one of `CHECKS`, wherever a module holds it."""
    before: list[tuple[Any, str, Any]] = []
    for kind, names in CHECKS.items():
        for name in names:
            owner, attribute = _owner(name)
            plain = vars(owner)[attribute]
            timed = _timed(clock, kind, plain, attribute)
            for place in (owner, *list(sys.modules.values())):
                found = [n for n, v in getattr(place, "__dict__", {}).items() if v is plain]
                before += [(place, n, plain) for n in found]
                for n in found:
                    setattr(place, n, timed)
    try:
        yield
    finally:
        for place, name, plain in before:
            setattr(place, name, plain)


def _timed(clock: Clock, kind: str, plain: Any, name: str) -> Any:
    if not isinstance(plain, cached_property):
        return clock.watch(kind, plain)
    timed = cached_property(clock.watch(kind, plain.func))
    timed.__set_name__(type(plain), name)
    return timed


def _owner(name: str) -> tuple[Any, str]:
    """The module or class that holds what is called `name`, and its own name there."""
    path, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(path), attribute
    except ModuleNotFoundError:
        module, _, owner = path.rpartition(".")
        return getattr(importlib.import_module(module), owner), attribute


def run(words: Sequence[str]) -> None:
    """A command, in this process."""
    from ep_neuro.cli import app

    with contextlib.redirect_stdout(io.StringIO()):
        app([*words, "--json"], standalone_mode=False)


def measure(name: str) -> tuple[float, Clock]:
    """Processor seconds of command `name`, and those of its checks."""
    run(COMMANDS[name])
    clock = Clock()
    with watched(clock):
        began = time.process_time()
        run(COMMANDS[name])
        return time.process_time() - began, clock


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a command; 1 if the checks of one take more than `LIMIT`."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    torch.set_num_threads(1)
    late, home = 0, os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            run(MODEL)
            run(PROGRAM)
            for name in COMMANDS:
                seconds, clock = measure(name)
                share = clock.spent.total() / seconds
                late += share > LIMIT
                parts = ", ".join(f"{k} {clock.spent[k] / seconds:.2%}" for k in CHECKS)
                print(f"{name:8} {share:.2%} of {seconds:.1f} s in checks ({parts})")
        finally:
            os.chdir(home)
    return min(late, 1)


if __name__ == "__main__":
    sys.exit(main())
