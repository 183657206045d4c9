"""How true the gradient of a run was, as a figure and in words."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ep_neuro.report.plots import formatting
from ep_neuro.report.plots.axes import draw_line, finish, log_ticks, panel, styled, whole_numbers
from ep_neuro.report.plots.palette import LIGHT, series_style
from ep_neuro.report.plots.records import GradientTruth

NEAREST = 1e-6
"""Distance of a cosine from 1 below which it is drawn at this distance: the digits of float32."""


@styled
def plot_truth(truth: GradientTruth) -> Figure:
    """Least cosine to the exact gradient by epoch, and the cosine that was asked."""
    figure, axes = panel()
    draw_truth(axes, truth)
    return figure


def draw_truth(axes: Axes, truth: GradientTruth) -> None:
    """Draw `truth` into `axes`: the distance from 1 on a log axis, 1 at the top."""
    curves = {"gradient": truth.cosine, "worst weight": truth.worst}
    for index, (name, values) in enumerate(curves.items()):
        distance = (1 - values).clip(NEAREST)
        draw_line(axes, truth.at, distance, series_style(index), name, markersize=3.0)
    if truth.asked is not None:
        axes.axhline(1 - truth.asked, color=LIGHT["muted"], linewidth=0.8, label="asked")
    axes.set_yscale("log")
    log_ticks(axes.yaxis, lambda value: formatting.axis_number(1 - value))
    axes.invert_yaxis()
    whole_numbers(axes)
    finish(axes, "epochs", "cosine to the exact gradient")


def describe_truth(truth: GradientTruth) -> list[str]:
    """The least and the last cosine of the whole gradient and of the worst weight."""
    lines = []
    for name, values in (("whole gradient", truth.cosine), ("worst weight", truth.worst)):
        known = _known(values)
        ends = f"{_downward(known.min())}, at the end {_downward(known[-1])}"
        lines.append(f"{name}: cosine at least {ends}")
    asked = [] if truth.asked is None else [f"asked: {formatting.axis_number(truth.asked)}"]
    return [*lines, *asked]


def truth_in_words(truth: GradientTruth) -> str:
    """One sentence: the least cosine, the one that was asked, and the sweeps."""
    known = _known(truth.cosine)
    asked = ""
    if truth.asked is not None:
        missed = int((known < truth.asked).sum())
        of = f", and missed in {missed} of {len(known)} epochs" if missed else ""
        asked = f" ({formatting.axis_number(truth.asked)} was asked{of})"
    return (
        "Wherever it was measured, the gradient of equilibrium propagation had a cosine of at "
        f"least {_downward(known.min())} to the exact one{asked}, with {_span(truth.free)} free "
        f"and {_span(truth.nudged)} nudged sweeps a step."
    )


def _span(values: np.ndarray) -> str:
    """Least and largest value."""
    known = _known(values)
    low, high = (formatting.axis_number(round(float(v), 1)) for v in (known.min(), known.max()))
    return low if low == high else f"{low} to {high}"


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _downward(cosine: float) -> str:
    """Four digits of a cosine, never rounded up: what is below a limit is also written so."""
    return f"{math.floor(1e4 * float(cosine)) / 1e4:.4f}".replace("-", formatting.MINUS)
