"""Lines of the comparison: what each target and encoding reached, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ep_neuro.errors import DataError


@dataclass(frozen=True)
class TargetRow:
    """One line of ``ep-neuro compare``; a value that was not measured is None.

    Attributes
    ----------
    target, code : str
        Where it ran and how messages were encoded.
    bits : int or None
        Bits of a weight; None in floating point.
    accuracy, agreement : float or None
        Share of correct samples, and of samples answered as the reference does, 0 to 1.
    events, synops : float or None
        Messages and synaptic operations a sample.
    energy_joule : float or None
        Estimated energy a sample, joules.
    ms_per_sample : float or None
        Wall time of the simulation a sample, milliseconds.
    steps : int or None
        Steps of the free phase; None where there are none.
    pareto : bool
        Whether no other line is both as accurate and as cheap in synaptic operations, and better
        in one of the two.
    """

    target: str
    code: str = ""
    bits: int | None = None
    accuracy: float | None = None
    agreement: float | None = None
    events: float | None = None
    synops: float | None = None
    energy_joule: float | None = None
    ms_per_sample: float | None = None
    steps: int | None = None
    pareto: bool = False

    def __post_init__(self) -> None:
        for name in ("accuracy", "agreement"):
            check_fraction(f"row '{self.label}'", name, getattr(self, name))

    @property
    def label(self) -> str:
        """Target and code in one name."""
        return f"{self.target} {self.code}".strip()

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any]) -> TargetRow:
        """Read a row of ``ep-neuro compare --json``; keys that a report does not draw are left."""
        if not row.get("target"):
            raise DataError("report row", "it names no target", "give a row of ep-neuro compare")
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in row.items() if k in known and v is not None and v != ""})


@dataclass(frozen=True)
class CostRow:
    """What one line of the comparison is estimated to cost on hardware.

    Attributes
    ----------
    label : str
        Name of the line.
    steps : int or None
        Steps of the free phase.
    energy_joule : float
        Energy of one inference, joules.
    parts : mapping of str to float
        `energy_joule` by what it is spent on, joules; empty where that is not known.
    memory_bytes : float
        Bytes of weights and states that one inference reads and writes.
    seconds : float
        Time of one inference.
    learning_joule : float or None
        Energy of one learning step, joules; None where it was not estimated.
    """

    label: str
    steps: int | None
    energy_joule: float
    parts: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: float = 0.0
    seconds: float = 0.0
    learning_joule: float | None = None


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


def check_fraction(subject: str, name: str, value: float | None) -> None:
    """Raise `DataError` if `value` cannot be a fraction."""
    if value is not None and value > 1:
        raise DataError(f"{subject} {name}", f"{value:g} exceeds 1", "give a fraction, not percent")
