"""Every figure of the report as a matplotlib figure, drawn for the width of a phone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from ep_neuro.errors import ConfigError
from ep_neuro.files import write_atomic
from ep_neuro.report import words
from ep_neuro.report.data import EncodingActivity, LearningCurve, SettlingCurve, Tradeoff
from ep_neuro.report.palette import LIGHT, code_styles, depth_colour, series_style
from ep_neuro.report.raster import draw_raster, raster_height

WIDTH, HEIGHT = 3.75, 2.75
"""Inches of one panel: at its natural size it fits a screen of 360 CSS pixels."""

_LEGEND_POINTS = 228
"""Width of the axes, about."""

STYLE: dict[str, object] = {
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.2,
    "axes.labelsize": 9.2,
    "axes.labelpad": 5.0,
    "xtick.labelsize": 8.8,
    "ytick.labelsize": 8.8,
    "legend.fontsize": 8.8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "ep-neuro",
}

P = ParamSpec("P")


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def plot_residual(curves: Sequence[SettlingCurve]) -> Figure:
    """Residual (box heights, log axis) by sweep, a line a phase."""
    figure, axes = _panel()
    _draw_settling(axes, curves, "residual")
    return figure


@_styled
def plot_energy(curves: Sequence[SettlingCurve]) -> Figure:
    """Energy (dimensionless, a sample) by sweep, a line a phase."""
    figure, axes = _panel()
    _draw_settling(axes, curves, "energy")
    return figure


@_styled
def plot_settling(curves: Sequence[SettlingCurve]) -> Figure:
    """Residual and energy by sweep, side by side."""
    figure = Figure(figsize=(2 * WIDTH, HEIGHT))
    for axes, quantity in zip(figure.subplots(1, 2), ("residual", "energy"), strict=True):
        _draw_settling(axes, curves, quantity)
    return figure


@_styled
def plot_raster(activity: EncodingActivity) -> Figure:
    """Events of one sample: a band a population, a row a neuron, by step.

    Large populations are thinned evenly; `ep_neuro.report.raster.thin` says to how many.
    """
    figure, axes = _panel(raster_height(len(activity.messages)))
    rasters = {name: np.asarray(raster) for name, raster in activity.messages.items()}
    _legend(axes, draw_raster(axes, rasters, code_styles([activity.code])[0].colour))
    _whole_numbers(axes)
    axes.set_xlabel("step")
    return figure


@_styled
def plot_events(activity: EncodingActivity) -> Figure:
    """Events at each step (mean over samples), populations stacked in order of depth."""
    figure, axes = _panel()
    curves = [np.asarray(values) for values in activity.events.values()]
    if curves:
        steps = np.arange(1, len(curves[0]) + 1)
        shades = [LIGHT[depth_colour(i, len(curves))] for i in range(len(curves))]
        axes.stackplot(
            steps,
            curves,
            labels=list(activity.events),
            colors=shades,
            edgecolor=LIGHT["paper"],
            linewidth=0.4,
        )
        axes.set_xlim(1, max(len(steps), 2))
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.compact(value)))
    _whole_numbers(axes)
    axes.set_xlabel("step")
    axes.set_ylabel("events per step")
    _legend(axes)
    return figure


@_styled
def plot_tradeoff(series: Sequence[Tradeoff]) -> Figure:
    """Accuracy (%) against events a sample (log axis), a point a number of steps."""
    figure, axes = _panel(HEIGHT + 0.35)
    for one, style in zip(series, code_styles([s.code for s in series]), strict=True):
        events, accuracy = np.asarray(one.events), 100 * np.asarray(one.accuracy)
        kept = (events > 0) & np.isfinite(accuracy)
        if not kept.any():
            continue
        colour = LIGHT[style.colour]
        axes.plot(
            events[kept],
            accuracy[kept],
            color=colour,
            linestyle=style.dash,
            marker=style.marker,
            markeredgecolor=LIGHT["paper"],
            markeredgewidth=0.6,
            label=one.code,
        )
    axes.set_xscale("log")
    _log_ticks(axes, "x", words.compact)
    axes.set_xlabel("events per sample")
    axes.set_ylabel("accuracy (%)")
    _legend(axes)
    return figure


@_styled
def plot_learning(curve: LearningCurve, quantity: str = "accuracy") -> Figure:
    """Accuracy (%) or loss by epoch or sample, a line for each split.

    `quantity` is ``accuracy`` or ``loss``.
    """
    figure, axes = _panel()
    _draw_learning(axes, curve, quantity)
    return figure


@_styled
def plot_curves(curve: LearningCurve) -> Figure:
    """Accuracy and loss by epoch or sample, side by side."""
    figure = Figure(figsize=(2 * WIDTH, HEIGHT))
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        _draw_learning(axes, curve, quantity)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure to a ``.png`` or ``.svg`` in light colours, whole or not at all.

    Raises
    ------
    ConfigError
        If the name ends in neither.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ConfigError(str(path), f"'{path.suffix}' is not a figure format", "use .png or .svg")
    buffer = BytesIO()
    stamp = {"Date": None} if kind == "svg" else None
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=200, facecolor=LIGHT["paper"], metadata=stamp)
    write_atomic(path, buffer.getvalue())
    return path


def _panel(height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots()


def _draw_settling(axes: Axes, curves: Sequence[SettlingCurve], quantity: str) -> None:
    for index, curve in enumerate(curves):
        values = np.asarray(getattr(curve, quantity), dtype=float)
        # A log axis has no place for zero: an exact fixed point ends its line.
        shown = np.where(np.isfinite(values), values, np.nan)
        if quantity == "residual":
            # Matplotlib's margins overflow near the largest float.
            shown = np.where(shown > 0, shown, np.nan).clip(1e-200, 1e200)
        if not np.isfinite(shown).any():
            continue
        style = series_style(index)
        axes.plot(
            curve.start + np.arange(1, len(shown) + 1),
            shown,
            color=LIGHT[style.colour],
            linestyle=style.dash,
            marker=style.marker if len(shown) == 1 else "",
            label=curve.phase,
        )
    if quantity == "residual":
        axes.set_yscale("log")
        _log_ticks(axes, "y", words.power_of_ten)
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.axis_number(value)))
    _whole_numbers(axes)
    axes.set_xlabel("sweep")
    axes.set_ylabel(
        "residual (box heights)" if quantity == "residual" else "energy (dimensionless)"
    )
    _legend(axes)


def _draw_learning(axes: Axes, curve: LearningCurve, quantity: str) -> None:
    curves: Mapping[str, ArrayLike] = getattr(curve, quantity)
    scale = 100 if quantity == "accuracy" else 1
    for index, (name, values) in enumerate(curves.items()):
        style = series_style(index)
        axes.plot(
            np.asarray(curve.at),
            scale * np.asarray(values),
            color=LIGHT[style.colour],
            linestyle=style.dash,
            marker=style.marker if np.size(values) == 1 else "",
            label=name,
        )
    _whole_numbers(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.compact(value)))
    axes.set_xlabel(curve.unit)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.axis_number(value)))
    axes.set_ylabel("accuracy (%)" if quantity == "accuracy" else "loss")
    _legend(axes)


def _log_ticks(axes: Axes, which: str, write: Callable[[float], str]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    decades = np.log10(high / low) if high > low > 0 else 0.0
    subs = (1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(10, subs=subs, numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))


def _whole_numbers(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _legend(axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A legend above the axes, read along its rows; the panel grows by the rows it needs."""
    handles = list(axes.get_legend_handles_labels()[0] if handles is None else handles)
    if not handles:
        return
    widths = [27 + 5.0 * len(str(handle.get_label())) for handle in handles]
    one_row = sum(widths) <= _LEGEND_POINTS
    columns = len(handles) if one_row else max(1, int(_LEGEND_POINTS / max(widths)))
    rows = -(-len(handles) // columns)
    figure = axes.figure
    if isinstance(figure, Figure):
        figure.set_figheight(figure.get_figheight() + 0.15 * (rows - 1))
    # Matplotlib fills legends column by column.
    ordered = [handle for column in range(columns) for handle in handles[column::columns]]
    axes.legend(
        handles=ordered,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=1.9,
        handletextpad=0.5,
        columnspacing=1.0,
    )
