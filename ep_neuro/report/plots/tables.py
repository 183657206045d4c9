"""Lines of the comparison: their names, and what each is measured against."""

from __future__ import annotations

from collections.abc import Sequence

from ep_neuro.results import TargetRow


def row_names(rows: Sequence[TargetRow], without: str = "") -> list[str]:
    """A name for each row: target, code, and bits and steps where the rows differ in them.

    Rows that differ in the column `without` only share a name: they are one series.
    """
    run = [row for row in rows if row.code != "rate"]
    tell_bits = without != "bits" and len({row.bits for row in run}) > 1
    tell_steps = without != "steps" and len({row.steps for row in run}) > 1
    names = []
    for row in rows:
        parts = [row.label]
        if row.code != "rate":
            parts += [f"{row.bits}-bit" if row.bits else "float"] * tell_bits
            parts += [f"{row.steps} steps"] * tell_steps
        names.append(" ".join(parts))
    return names


def cheapest_of_the_best(rows: Sequence[TargetRow]) -> TargetRow:
    """The row of fewest events among the most accurate ones: the best number of steps."""
    top = max(row.accuracy or 0.0 for row in rows)
    best = [row for row in rows if (row.accuracy or 0.0) == top]
    return min(best, key=lambda row: float("inf") if row.events is None else row.events)


def graded_base(row: TargetRow, rows: Sequence[TargetRow]) -> TargetRow | None:
    """The graded row that `row` is measured against.

    That of the same target and bits, else of the same target, else the first; of several numbers
    of steps the best. None if no graded row counts its events.
    """
    graded = [r for r in rows if r.code == "graded" and r.events]
    rank = [(g.target == row.target, g.bits == row.bits) for g in graded]
    if not graded:
        return None
    first = graded[rank.index(max(rank))]
    return cheapest_of_the_best(
        [g for g in graded if (g.target, g.bits) == (first.target, first.bits)]
    )


def event_ratio(row: TargetRow, rows: Sequence[TargetRow]) -> float | None:
    """Events of `row` relative to `graded_base`; None where either count is missing."""
    base = graded_base(row, rows)
    if base is None or base.events is None or row.events is None:
        return None
    return row.events / base.events
