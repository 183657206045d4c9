"""The process in which inputs are tried: the command line, each time in a folder of its own."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io
import math
import os
import resource
import shutil
import sys
import traceback
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case, Outcome

ADDRESSES = 6 << 30
"""Bytes of address space that a case may take beside what is there: the machine outlives it."""

PROOF = "pwned"
"""Name of the file that code inside of an input makes, if it is run."""

FIGURES = 8
"""Of so many cases, by the checksum of their files, one draws the figures of a training."""

_DRAWS = [True]
_STRANGE: list[float] = []
_TRACES: list[str] = []


def main() -> None:
    """Answer the cases that come in by the descriptor that is the first word, until it closes."""
    connection, place = Connection(int(sys.argv[1])), Path(sys.argv[2])
    _prepare()
    connection.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            connection.send(_tried(connection.recv(), place))


def _prepare() -> None:
    """Import all that a command imports, watch its numbers and errors, and set the limits."""
    import torch
    import typer

    torch.set_num_threads(1)
    for name in ("training", "cli"):
        importlib.import_module(f"ep_neuro.{name}")
    for name in ("nir.importer", "experiments.comparison.compare", "experiments.onchip.learning"):
        importlib.import_module(f"targets.{name}")
    from ep_neuro import report
    from ep_neuro.cli import console, ending
    from ep_neuro.data import digits_file
    from ep_neuro.estimators import gradient_check
    from targets.experiments.onchip import run_state

    plain, explained = console._plain, ending._explained

    def watched(value: object) -> object:
        if not isinstance(value, str | bytes) and hasattr(value, "__float__"):
            _STRANGE.extend([value] if not math.isfinite(float(value)) else [])  # type: ignore
        return plain(value)

    def kept(error: Exception) -> tuple[str, int]:
        text, code = explained(error)
        if text.startswith("unforeseen"):
            _TRACES.append("".join(traceback.format_exception(error)))
        return text, code

    console._plain, ending._explained = watched, kept
    # A network that never settles does all of the 5000 sweeps that a check grants, many times.
    granted = gradient_check.check_network.__kwdefaults__
    granted["schedule"] = granted["schedule"].model_copy(update={"sweeps": 100})
    # An epoch of all bundled digits takes seconds, and to read them a tenth of one, for each case.
    few = [(x[:60], y[:60]) for x, y in digits_file.splits()]
    digits_file.splits = lambda: few
    # Figures take longer than all before them.
    run_state.draw = _now_and_then(run_state.draw, [])
    for name in ("plot_curves", "save_figure"):
        setattr(report, name, _now_and_then(getattr(report, name), None))
    # The commands that words choose from are the same for all words.
    typer.main.get_command = functools.cache(typer.main.get_command)
    # A collection need not look at all that was imported.
    gc.freeze()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESSES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _now_and_then(draw: Callable[..., Any], instead: Any) -> Callable[..., Any]:
    """`draw` for one case in `FIGURES`; the others get `instead`."""
    return lambda *args, **kwargs: draw(*args, **kwargs) if _DRAWS[0] else instead


def _tried(case: Case, place: Path) -> Outcome:
    _STRANGE.clear()
    _TRACES.clear()
    _DRAWS[0] = zlib.crc32(b"".join(case.files.values())) % FIGURES == 0
    inside = place / "inside"
    inside.mkdir()
    for name, content in case.files.items():
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).write_bytes(content)
    _forget_peak()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(inside), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _exit_code(case)
    proofs = [str(p) for p in inside.rglob(PROOF)]
    escaped = [p.name for p in place.iterdir() if p.name != "inside"]
    shutil.rmtree(inside)
    trace = "\n".join(_TRACES)
    return Outcome(
        code, out.getvalue(), err.getvalue(), _peak(), len(_STRANGE), (*proofs, *escaped), trace
    )


def _exit_code(case: Case) -> int:
    from ep_neuro.cli import main as command_line

    sys.argv = ["ep-neuro", *case.words]
    try:
        command_line()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else -1
    except BaseException:
        _TRACES.append(traceback.format_exc())
    return -1


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
