"""What every command shares: stdout for answers only, progress on stderr, errors as one line."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import typer
from rich import box
from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ep_neuro.errors import ConfigError
from ep_neuro.storage.atomic import refuse_foreign

LOG = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

PIPE_CLOSED = 141
"""Exit code where a reader left: 128 plus the signal, as a shell gives it."""

LINE_EVERY = 10.0
"""Seconds from one line of progress to the next where stderr is no terminal."""

PIPE_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""

_answers: TextIO | None = None
"""Where `emit` writes while `own_stdout` holds; None is `sys.stdout`."""


# --- answers -----------------------------------------------------------------------------------


@contextlib.contextmanager
def own_stdout() -> Iterator[None]:
    """Keep stdout for `emit`; what libraries and child processes print there goes to stderr."""
    global _answers
    before, stdout = _answers, sys.stdout
    if stdout is None:
        raise ConfigError("stdout", "is closed", "let it lead somewhere, /dev/null for instance")
    with contextlib.ExitStack() as stack:
        if _is_descriptor_1(stdout):
            stdout.flush()
            _answers = stack.enter_context(_moved_descriptor(stdout))
        else:
            _answers = stdout
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        try:
            yield
        finally:
            _answers = before


def _is_descriptor_1(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _moved_descriptor(stdout: TextIO) -> Iterator[TextIO]:
    """The real stdout under another number, while descriptor 1 leads to stderr."""
    kept = os.dup(1)
    os.dup2(2, 1)
    stream = os.fdopen(os.dup(kept), "w", encoding=stdout.encoding, errors=stdout.errors)
    try:
        yield stream
    finally:
        # Closing flushes, and fails again where the flush of `emit` already did.
        with contextlib.suppress(OSError):
            stream.close()
        os.dup2(kept, 1)
        os.close(kept)


def emit(data: Mapping[str, Any], as_json: bool, text: str | Table | Group | None = None) -> None:
    """Print `data` as exactly one JSON object, or `text` for people (one field a line)."""
    out = _answers or sys.stdout
    try:
        if as_json:
            out.write(json.dumps(_plain(data), allow_nan=False) + "\n")
        elif isinstance(text, Table | Group):
            width = None if out.isatty() else PIPE_WIDTH
            # Cells hold paths and commands, where [brackets] and :words: are meant as they stand.
            plain = Console(file=out, highlight=False, markup=False, emoji=False, width=width)
            plain.print(text)
        else:
            out.write((lines(data) if text is None else text).rstrip("\n") + "\n")
        out.flush()
    except BrokenPipeError:
        # Typer would make a closed pipe an error of its own.
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError as error:
        problem = f"the answer cannot be written ({error.strerror})"
        raise ConfigError("stdout", problem, "make room, or let it lead elsewhere") from None


def _plain(value: Any) -> Any:
    """`value` in JSON's own types; what is not finite, for which JSON has no word, is null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def lines(data: Mapping[str, Any]) -> str:
    """``key: value``, a line each; the items of a list below each other."""
    found: list[str] = []
    for key, value in data.items():
        if isinstance(value, list):
            found += [f"{key}: {len(value)}", *(f"  {item}" for item in value)]
        else:
            found.append(f"{key}: {_cell(value)}")
    return "\n".join(found)


def energy_of(what: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` whose energy says for people of `what` it is: a sample, or a whole run."""
    return {f"{k}, {what}" if k == "energy_joule" else k: v for k, v in fields.items()}


def told_beside(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with what did not settle beside the accuracy, for people."""
    share, shown = fields["unsettled"], _cell(fields["accuracy"])
    beside = f" ({share:.1%} of the samples did not settle)" if share else ""
    return {**fields, "accuracy": f"{shown}{beside}"}


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table for people; numbers to the right, None as a dash."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int | float | None) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    return drawn


def records(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of rows that all have the same keys; what has fields of its own is left to --json."""
    named = [n for n in rows[0] if not any(isinstance(row[n], Mapping) for row in rows)]
    return table(named, [[row[name] for name in named] for row in rows])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items()) or "-"
    return str(value)


# --- what happens meanwhile ---------------------------------------------------------------------


def log(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    LOG.print(text)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[..., None]]:
    """Progress with an estimate of the time left; call it with (done, all, [note]).

    A bar on a terminal; elsewhere a line every `LINE_EVERY` seconds.
    """
    if not LOG.is_terminal:
        yield _line_writer(what)
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=LOG,
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


def _line_writer(what: str) -> Callable[..., None]:
    origin: tuple[float, int] | None = None
    latest = 0.0

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal origin, latest
        now = time.monotonic()
        # The first step pays for all that is loaded lazily, and would spoil the estimate.
        origin = origin or (now, done)
        latest = latest or now
        if now - latest >= LINE_EVERY:
            latest = now
            left = (now - origin[0]) * (total - done) / max(done - origin[1], 1)
            log(f"{what}: {done} of {total}, {left:.0f} s left" + (f", {note}" if note else ""))

    return advance


def health(latest: Mapping[str, float]) -> str:
    """The metrics of an epoch in one line."""
    if "loss" not in latest:
        return f"epoch {latest.get('epoch', 1):.0f}"
    radius, held_out = latest.get("spectral_radius"), latest.get("val_accuracy")
    return (
        f"epoch {latest['epoch']:.0f}, loss {latest['loss']:.3g}"
        + ("" if held_out is None else f", validation {held_out:.1%}")
        + _truth(latest)
        + ("" if radius is None else f", spectral radius {radius:.2f}")
    )


def _truth(latest: Mapping[str, float]) -> str:
    """How true the gradient was, by how many sweeps, and how well they settled, where known."""
    said = ""
    if "residual" in latest:
        said += f", residual {latest['residual']:.1g}, unsettled {latest['unsettled']:.1%}"
    if "gradient_cosine" in latest:
        sweeps = f"{latest['sweeps_free']:.1f} + {latest['sweeps_nudged']:.1f} sweeps"
        said += f", gradient cosine {latest['gradient_cosine']:.4f} by {sweeps}"
    return said


def row_printer(advance: Callable[..., None], total: int) -> Callable[[Any], None]:
    """Tells of each row of the comparison as it comes."""
    started, done = time.monotonic(), itertools.count(1)

    def tell(compared: Any) -> None:
        row = compared.row
        name = ":".join(str(part) for part in (row.target, row.code, row.bits) if part)
        steps = f" in {row.steps} steps" if row.steps else ""
        events = "" if row.events is None else f", {row.events:,.0f} events a sample"
        seconds = time.monotonic() - started
        unsettled = f", {row.unsettled:.1%} did not settle" if row.unsettled else ""
        log(f"{name}: {row.accuracy:.2%} right{unsettled}{steps}{events} ({seconds:.0f} s)")
        advance(next(done), total, name)

    return tell


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each warning once, as one line on stderr without its place in the code."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(f"warning: {message}".split())
        if text not in shown:
            shown.add(text)
            log(text)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


# --- errors ------------------------------------------------------------------------------------


def check_place(path: Path, *, marker: str | bytes) -> None:
    """Refuse a place that cannot be written, before the work that it is for.

    Parameters
    ----------
    path : Path
        The place.
    marker : str or bytes
        What tells a folder, or a file, of ours; see `ep_neuro.storage.atomic.refuse_foreign`.

    Raises
    ------
    ConfigError
        If `path` is of the other kind, its nearest existing parent is no writable folder, or
        something else stands there.
    """
    here, directory = path, isinstance(marker, str)
    while not here.exists() and here != here.parent:
        here = here.parent
    if here == path and path.is_dir() != directory:
        problem = "is a file, not a folder" if directory else "is a folder, not a file"
    elif here != path and not here.is_dir():
        problem = f"cannot be written: {here} is a file, not a folder"
    elif not os.access(here, os.W_OK):
        problem = f"cannot be written: no permission to write {here}"
    else:
        return refuse_foreign(path, marker, ConfigError)
    raise ConfigError(str(path), problem, "choose another place")


def check_unheld(option: str, place: Path, marker: str, what: str) -> None:
    """Refuse a `place` whose file `marker` tells of a `what` that nobody said may go."""
    if (place / marker).is_file():
        remedy = "choose another place, or replace it (--force)"
        raise ConfigError(f"{option} {place}", f"holds a {what} already", remedy)


def check_page_place(out: Path, *, marker: str) -> None:
    """`check_place` of a folder, of the report page in it, and of the figures beside that."""
    from targets.experiments.comparison.report_page import DRAWN, MARKER, REPORT, figures_in

    check_place(out, marker=marker)
    check_place(out / REPORT, marker=MARKER)
    for figure in figures_in(out):
        check_place(figure, marker=DRAWN)


def check_apart(option: str, place: Path, *others: Path) -> None:
    """Refuse the `place` of an option that is, holds or lies in one of the `others`."""
    whole = place.resolve()
    for other in others:
        taken = other.resolve()
        if whole == taken or whole in taken.parents or taken in whole.parents:
            problem = f"shares its place with {other}, which the same command writes"
            raise ConfigError(f"{option} {place}", problem, "choose a place beside it")
