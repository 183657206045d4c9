"""What every command shares: one JSON object on stdout, the rest on stderr, one-line errors."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

OUT = Console(soft_wrap=True, highlight=False)
LOG = Console(stderr=True, soft_wrap=True, highlight=False)

Advance = Callable[[int, int], None]
"""Called with (done, all)."""


def emit(data: Mapping[str, Any], as_json: bool, text: str | Table | None = None) -> None:
    """Print `data` as exactly one JSON object, or `text` for people."""
    if as_json:
        sys.stdout.write(json.dumps(data, default=float) + "\n")
    elif text is not None:
        OUT.print(text, markup=False) if isinstance(text, str) else OUT.print(text)


def log(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    LOG.print(text, markup=False)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar with an estimate of the time left; call it with (done, all, [note])."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=LOG,
    )
    with bar:
        task = bar.add_task(what, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> Table:
    """A table for people; numbers to the right, None as a dash."""
    drawn = Table(title=title or None, title_justify="left")
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int | float | None) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    return drawn


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each warning once, as one line on stderr without its place in the code."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = f"warning: {message}"
        if text not in shown:
            shown.add(text)
            log(text)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
