"""Every figure of the report as a matplotlib figure, drawn for the width of a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ep_neuro.errors import ConfigError
from ep_neuro.report.plots import formatting
from ep_neuro.report.plots.axes import (
    HEIGHT,
    OUTLINED,
    STYLE,
    WIDTH,
    draw_line,
    finish,
    legend,
    log_ticks,
    panel,
    styled,
    svg_bytes,
    whole_numbers,
)
from ep_neuro.report.plots.gradient import draw_truth
from ep_neuro.report.plots.palette import LIGHT, code_styles, depth_colour, series_style
from ep_neuro.report.plots.records import (
    EncodingActivity,
    GradientTruth,
    LearningCurve,
    SettlingCurve,
    Tradeoff,
    above_the_lowest,
)
from ep_neuro.report.plots.spike_raster import draw_raster, raster_height
from ep_neuro.storage.atomic import write_atomic


@styled
def plot_residual(curves: Sequence[SettlingCurve]) -> Figure:
    """Residual (box heights, log axis) by sweep, a line a phase."""
    figure, axes = panel()
    _draw_settling(axes, curves, "residual")
    return figure


@styled
def plot_energy(curves: Sequence[SettlingCurve]) -> Figure:
    """Energy above the lowest of all (dimensionless, a sample) by sweep, a line a phase."""
    figure, axes = panel()
    _draw_settling(axes, above_the_lowest(curves), "energy")
    return figure


@styled
def plot_settling(curves: Sequence[SettlingCurve]) -> Figure:
    """Residual and energy, above the lowest of all, by sweep, side by side."""
    figure, curves = Figure(figsize=(2 * WIDTH, HEIGHT)), above_the_lowest(curves)
    for axes, quantity in zip(figure.subplots(1, 2), ("residual", "energy"), strict=True):
        _draw_settling(axes, curves, quantity)
    return figure


@styled
def plot_raster(activity: EncodingActivity) -> Figure:
    """Events of one sample: a band a population, a row a neuron, by step.

    Large populations are thinned evenly; `ep_neuro.report.plots.spike_raster.thin` says to how
    many.
    """
    figure, axes = panel(raster_height(len(activity.messages)))
    legend(axes, draw_raster(axes, activity.messages, code_styles([activity.code])[0].colour))
    whole_numbers(axes)
    axes.set_xlabel("step")
    return figure


@styled
def plot_events(activity: EncodingActivity) -> Figure:
    """Events at each step (mean over samples), populations stacked in order of depth."""
    figure, axes = panel()
    curves = list(activity.events.values())
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
    axes.yaxis.set_major_formatter(formatting.compact)
    whole_numbers(axes)
    finish(axes, "step", "events per step")
    return figure


@styled
def plot_tradeoff(series: Sequence[Tradeoff]) -> Figure:
    """Accuracy (%) against events a sample (log axis), a point a number of steps."""
    figure, axes = panel(HEIGHT + 0.35)
    for one, style in zip(series, code_styles([s.code for s in series]), strict=True):
        kept = (one.events > 0) & np.isfinite(one.accuracy)
        if kept.any():
            accuracy = 100 * one.accuracy[kept]
            draw_line(axes, one.events[kept], accuracy, style, one.code, **OUTLINED)
    axes.set_xscale("log")
    log_ticks(axes.xaxis, formatting.compact)
    finish(axes, "events per sample", "accuracy (%)")
    return figure


@styled
def plot_learning(curve: LearningCurve, quantity: str = "accuracy") -> Figure:
    """Accuracy (%) or loss by epoch or sample, a line for each split.

    `quantity` is ``accuracy`` or ``loss``.
    """
    figure, axes = panel()
    _draw_learning(axes, curve, quantity)
    return figure


@styled
def plot_curves(curve: LearningCurve, truth: GradientTruth | None = None) -> Figure:
    """Accuracy and loss by epoch or sample, side by side; beside them `truth`, if there is one."""
    panels = 2 if truth is None else 3
    figure = Figure(figsize=(panels * WIDTH, HEIGHT))
    axes = list(figure.subplots(1, panels))
    for one, quantity in zip(axes[:2], ("accuracy", "loss"), strict=True):
        _draw_learning(one, curve, quantity)
    if truth is not None:
        draw_truth(axes[2], truth)
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
    if kind == "svg":
        drawn = svg_bytes(figure, LIGHT["paper"])
    else:
        buffer = BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(buffer, format=kind, dpi=200, facecolor=LIGHT["paper"])
        drawn = buffer.getvalue()
    write_atomic(path, drawn)
    return path


def _draw_settling(axes: Axes, curves: Sequence[SettlingCurve], quantity: str) -> None:
    for index, curve in enumerate(curves):
        values = getattr(curve, quantity)
        # A log axis has no place for zero: an exact fixed point ends its line.
        shown = np.where(np.isfinite(values), values, np.nan)
        if quantity == "residual":
            # Matplotlib's margins overflow near the largest float.
            shown = np.where(shown > 0, shown, np.nan).clip(1e-200, 1e200)
        if not np.isfinite(shown).any():
            continue
        style, sweeps = series_style(index), curve.start + np.arange(1, len(shown) + 1)
        marker = style.marker if len(shown) == 1 else ""
        draw_line(axes, sweeps, shown, style, curve.phase, marker=marker)
    if quantity == "residual":
        axes.set_yscale("log")
        log_ticks(axes.yaxis, formatting.power_of_ten)
    else:
        axes.yaxis.set_major_formatter(formatting.axis_number)
    whole_numbers(axes)
    told = {"residual": "residual (box heights)", "energy": "above the lowest energy"}
    finish(axes, "sweep", told[quantity])


def _draw_learning(axes: Axes, curve: LearningCurve, quantity: str) -> None:
    curves: Mapping[str, np.ndarray] = getattr(curve, quantity)
    scale = 100 if quantity == "accuracy" else 1
    for index, (name, values) in enumerate(curves.items()):
        style = series_style(index)
        # What was measured now and then is a line from one point to the next.
        measured = np.isfinite(values)
        marker = style.marker if len(values) == 1 or not measured.all() else ""
        shown = scale * values[measured]
        draw_line(axes, curve.at[measured], shown, style, name, marker=marker)
    whole_numbers(axes)
    axes.xaxis.set_major_formatter(formatting.compact)
    axes.yaxis.set_major_formatter(formatting.axis_number)
    finish(axes, curve.unit, "accuracy (%)" if quantity == "accuracy" else "loss")
