"""Figures of a deployment: accuracy over a sweep, the Pareto front, departure from equilibrium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from ep_neuro.report.plots import formatting
from ep_neuro.report.plots.axes import (
    HEIGHT,
    OUTLINED,
    draw_line,
    finish,
    log_ticks,
    panel,
    styled,
    whole_numbers,
)
from ep_neuro.report.plots.palette import (
    LIGHT,
    SeriesStyle,
    code_styles,
    depth_colour,
    series_style,
)
from ep_neuro.report.plots.records import Departures
from ep_neuro.report.plots.tables import row_names
from ep_neuro.results import LayerError, TargetRow

MOST_SERIES = 6
"""Series that colours and markers tell apart in one figure."""

TICKS = 8
"""Most values of a swept axis that are written out."""


def series(rows: Sequence[TargetRow], axis: str) -> dict[str, list[TargetRow]]:
    """Rows that differ in `axis` alone, by their name and ordered by `axis`; rate rows are none."""
    found: dict[str, list[TargetRow]] = {}
    for name, row in zip(row_names(rows, without=axis), rows, strict=True):
        if row.code != "rate" and row.accuracy is not None:
            found.setdefault(name, []).append(row)
    return {name: sorted(one, key=lambda row: axis_value(row, axis)) for name, one in found.items()}


def axis_value(row: TargetRow, axis: str) -> float:
    """Where `row` stands on `axis`, ``steps`` or ``bits``; floating point is above any bits."""
    value = row.steps if axis == "steps" else row.bits
    return float("inf") if value is None else value


@styled
def plot_sweep(rows: Sequence[TargetRow], axis: str) -> Figure:
    """Accuracy (%) against `axis`, ``steps`` (log) or ``bits``, and that of the rate network."""
    figure, axes = panel(HEIGHT + 0.35)
    drawn = series(rows, axis)
    finite = {v for one in drawn.values() for r in one if np.isfinite(v := axis_value(r, axis))}
    # Floating point gets the place after the widest weights.
    last = max(finite, default=0) + 1
    for (name, one), style in zip(drawn.items(), code_styles(list(drawn)), strict=True):
        at = [min(axis_value(row, axis), last) for row in one]
        _line(axes, at, one, style, name)
    _reference(axes, rows)
    values = sorted({min(axis_value(r, axis), last) for one in drawn.values() for r in one})
    if axis == "steps":
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(_thinned(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        lambda v, _: f"{v:g}" if axis == "steps" or v < last else "float"
    )
    finish(axes, "steps" if axis == "steps" else "bits of a weight", "accuracy (%)")
    return figure


@styled
def plot_front(rows: Sequence[TargetRow], axis: str) -> Figure:
    """Accuracy (%) against synaptic operations a sample (log), a line over `axis` for each series.

    Circles mark the Pareto front: rows that no other one beats in both.
    """
    figure, axes = panel(HEIGHT + 0.35)
    drawn = series([row for row in rows if row.synops], axis)
    for (name, one), style in zip(drawn.items(), code_styles(list(drawn)), strict=True):
        one = sorted(one, key=lambda row: row.synops or 0.0)
        _line(axes, [row.synops or 0.0 for row in one], one, style, name)
    front = front_rows(rows)
    if front:
        axes.plot(
            [row.synops or 0.0 for row in front],
            _percent(front),
            color=LIGHT["ink"],
            linewidth=0.8,
            drawstyle="steps-post",
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgewidth=1.0,
            label="Pareto front",
            zorder=1.5,
        )
    _reference(axes, rows)
    axes.set_xscale("log")
    log_ticks(axes.xaxis, formatting.compact)
    finish(axes, "synaptic operations per sample", "accuracy (%)")
    return figure


def front_rows(rows: Sequence[TargetRow]) -> list[TargetRow]:
    """The rows on the Pareto front, the cheapest first."""
    return sorted((row for row in rows if row.pareto), key=lambda row: row.synops or 0.0)


def named(departures: Departures) -> dict[str, Sequence[LayerError]]:
    """The layers of each row, by the name of that row among the others."""
    names = row_names([row for row, _ in departures], without="steps")
    return {name: layers for name, (_, layers) in zip(names, departures, strict=True)}


def families(departures: Departures) -> dict[str, dict[str, Sequence[LayerError]]]:
    """Departures that share a figure: all if six styles tell them apart, else those of a code."""
    few = len(departures) <= MOST_SERIES
    found: dict[str, dict[str, Sequence[LayerError]]] = {}
    for (row, _), (name, layers) in zip(departures, named(departures).items(), strict=True):
        found.setdefault("" if few else row.label, {})[name] = layers
    return found


@styled
def plot_departure_by_population(departures: Mapping[str, Sequence[LayerError]]) -> Figure:
    """Relative departure (log) after the last step, by population, a line for each name."""
    figure, axes = panel(HEIGHT + 0.35)
    names: list[str] = []
    styles = code_styles(list(departures))
    for (label, layers), style in zip(departures.items(), styles, strict=True):
        names = names or [one.population for one in layers]
        ends = [_positive(one.rms)[-1] for one in layers]
        draw_line(axes, np.arange(len(ends)), ends, style, label)
    axes.set_xticks(np.arange(len(names)), names, rotation=45 if len(names) > 6 else 0)
    _finish_departures(axes, "population")
    return figure


@styled
def plot_departure_by_step(layers: Sequence[LayerError]) -> Figure:
    """Relative departure (log) after each step, a line a population, shaded by depth."""
    figure, axes = panel(HEIGHT + 0.35)
    for index, one in enumerate(layers):
        shown = _positive(one.rms)
        style = series_style(index)._replace(
            colour=depth_colour(index, len(layers)), marker="o" if len(shown) == 1 else ""
        )
        draw_line(axes, np.arange(1, len(shown) + 1), shown, style, one.population)
    whole_numbers(axes)
    _finish_departures(axes, "step")
    return figure


def _line(
    axes: Axes, at: Sequence[float], rows: Sequence[TargetRow], style: SeriesStyle, name: str
) -> None:
    draw_line(axes, at, _percent(rows), style, name, **OUTLINED)


def _percent(rows: Sequence[TargetRow]) -> list[float]:
    return [100 * (row.accuracy or 0.0) for row in rows]


def _reference(axes: Axes, rows: Sequence[TargetRow]) -> None:
    for row in rows:
        if row.code == "rate" and row.accuracy is not None:
            style = code_styles(["rate"])[0]
            colour = LIGHT[style.colour]
            axes.axhline(
                100 * row.accuracy, color=colour, linestyle=style.dash, lw=1.0, label=row.label
            )


def _finish_departures(axes: Axes, x: str) -> None:
    axes.set_yscale("log")
    log_ticks(axes.yaxis, formatting.power_of_ten)
    finish(axes, x, "relative departure (rms)")


def _positive(values: np.ndarray) -> np.ndarray:
    # A log axis has no place for zero: states that are exactly right leave a gap.
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _thinned(values: Sequence[float]) -> list[float]:
    if len(values) <= TICKS:
        return list(values)
    return [
        values[i] for i in np.unique(np.linspace(0, len(values) - 1, TICKS).round().astype(int))
    ]
