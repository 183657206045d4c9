"""Numbers and figures in words: table cells, captions and the text read out for each figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

import numpy as np
from matplotlib.ticker import EngFormatter

from ep_neuro.report.plots.records import LearningCurve, SettlingCurve, Tradeoff
from ep_neuro.results import LayerError, TargetRow

NO_BREAK = "\u202f"
"""Narrow no-break space, between a number and its unit."""

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to print: not None, NaN or infinite."""
    return value is not None and math.isfinite(value)


def percent(value: float | None, decimals: int = 1) -> str:
    """A share from 0 to 1 in percent."""
    return f"{100 * value:.{decimals}f}{NO_BREAK}%" if is_known(value) else MISSING


def count(value: float | None) -> str:
    """A count with its thousands set apart; one decimal below 100."""
    if not is_known(value):
        return MISSING
    whole = abs(value) >= 100 or float(value).is_integer()
    return f"{value:,.{0 if whole else 1}f}".replace(",", NO_BREAK)


def significant(value: float | None) -> str:
    """Three significant digits."""
    if not is_known(value):
        return MISSING
    if value and not 1e-3 <= abs(value) < 1e6:
        return power_of_ten(value)
    return f"{float(f'{value:.3g}'):.10g}".replace("-", MINUS)


def joules(value: float | None) -> str:
    """An energy, three digits with the prefix that fits."""
    return _prefixed(value, "J")


def memory(value: float | None) -> str:
    """Bytes, three digits with the decimal prefix that fits."""
    return _prefixed(value, "B")


def _prefixed(value: float | None, unit: str) -> str:
    if not is_known(value):
        return MISSING
    return str(EngFormatter(unit, sep=NO_BREAK)(float(f"{value:.3g}")))


def points(value: float) -> str:
    """A difference of two shares in percentage points."""
    rounded = round(100 * value, 1)
    sign = "±" if not rounded else MINUS if rounded < 0 else "+"
    return f"{sign}{abs(rounded):.1f} points"


def ratio(value: float | None) -> str:
    """Events relative to graded, as times fewer or more."""
    if not is_known(value):
        return MISSING
    if value == 0:
        return "none"
    if abs(value - 1) < 0.005:
        return "1×"
    return f"{1 / value:.3g}× fewer" if value < 1 else f"{value:.3g}× more"


def power_of_ten(value: float) -> str:
    """``2·10⁻³`` without markup; the factor one is left out."""
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    mantissa = mantissa.removesuffix(".0").replace("-", MINUS)
    return raised if mantissa == "1" else f"{mantissa}·{raised}"


def compact(value: float, _: object = None) -> str:
    """A count at the tick of an axis: 500, 2 k, 1.5 M."""
    return str(EngFormatter(sep=NO_BREAK)(value)) if abs(value) >= 1e3 else f"{value:g}"


def axis_number(value: float, _: object = None) -> str:
    """A number at the tick of a linear axis, with all the digits that its neighbours differ in."""
    if abs(value) >= 1e6:
        return power_of_ten(value)
    return f"{value:.6g}".replace("-", MINUS)


def describe_settling(curves: Sequence[SettlingCurve], quantity: str) -> list[str]:
    """First and last value of each phase, and where a value stopped being finite."""
    lines = []
    for curve in curves:
        values = getattr(curve, quantity)
        if not len(values):
            continue
        bad = np.flatnonzero(~np.isfinite(values))
        kept = values[: bad[0]] if len(bad) else values
        ends = f"{significant(kept[0])} to {significant(kept[-1])}" if len(kept) else "unknown"
        trouble = f", not finite from sweep {curve.start + bad[0] + 1} on" if len(bad) else ""
        lines.append(f"{curve.phase}: {ends} in {len(kept)} sweeps{trouble}")
    return lines


def describe_totals(totals: Mapping[str, float], of: str) -> list[str]:
    """Events in all, and by population."""
    each = ", ".join(f"{name} {count(value)}" for name, value in totals.items())
    return [f"{count(sum(totals.values()))} events {of}", each]


def describe_tradeoffs(series: Iterable[Tradeoff]) -> list[str]:
    """Where each encoding ends."""
    lines = []
    for s in series:
        if len(s.steps):
            end = f"{percent(s.accuracy[-1])} with {count(s.events[-1])} events"
            of = f", {count(s.samples)} samples" if s.samples else ""
            lines.append(f"{s.code}: {end} after {s.steps[-1]:g} steps{of}")
    return lines


def describe_learning(curve: LearningCurve, quantity: str) -> list[str]:
    """First and last value of each curve."""
    if not len(curve.at):
        return []
    write = percent if quantity == "accuracy" else significant
    curves: Mapping[str, np.ndarray] = getattr(curve, quantity)
    seen = f"after {count(curve.at[-1])} {curve.unit}"
    return [f"{name}: {write(v[0])} to {write(v[-1])} {seen}" for name, v in curves.items()]


def describe_sweep(series: Mapping[str, Sequence[TargetRow]], axis: str) -> list[str]:
    """First and last accuracy of each series along `axis`, and how far."""
    lines = []
    for name, rows in series.items():
        first, last = rows[0], rows[-1]
        ends = f"{percent(first.accuracy)} to {percent(last.accuracy)}"
        lines.append(f"{name}: {ends} from {_at(first, axis)} to {_at(last, axis)}")
    return lines


def describe_departures(departures: Mapping[str, Sequence[LayerError]]) -> list[str]:
    """Where each deployment departs most after its last step."""
    lines = []
    for name, layers in departures.items():
        known = [one for one in layers if math.isfinite(one.rms[-1])]
        if known:
            most = max(known, key=lambda one: float(one.rms[-1]))
            lines.append(f"{name}: most in {most.population}, {significant(float(most.rms[-1]))}")
    return lines


def _at(row: TargetRow, axis: str) -> str:
    if axis == "steps":
        return f"{row.steps} steps"
    return f"{row.bits} bits" if row.bits else "floating point"
