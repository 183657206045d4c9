"""Learning on a chip as figures: synapses over time, and whether they move as EP says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ep_neuro.report.plots import formatting
from ep_neuro.report.plots.axes import draw_line, finish, panel, styled, whole_numbers
from ep_neuro.report.plots.palette import LIGHT, series_style

CHANCE = 0.5
"""Share of equal signs that two unrelated updates have."""


@styled
def plot_synapses(at: ArrayLike, weights: Mapping[str, np.ndarray]) -> Figure:
    """Weights (K, synapses) of each coupling, in real units, by samples seen: a line a synapse."""
    figure, axes = panel()
    for index, (name, values) in enumerate(weights.items()):
        for number, synapse in enumerate(values.T):
            # Labels that begin with an underscore stay out of the legend.
            label, style = f"_{name}" if number else name, series_style(index)
            draw_line(axes, at, synapse, style, label, marker="", linewidth=0.9, alpha=0.75)
    axes.yaxis.set_major_formatter(formatting.axis_number)
    return _finished(figure, axes, "weight (real units)")


@styled
def plot_agreement(at: ArrayLike, sign: ArrayLike, cosine: ArrayLike) -> Figure:
    """How updates on the chip compare with the gradient in floating point; a line marks chance.

    `at` is the samples seen before; `sign` the share of the synapses that changed which moved as
    the gradient says; `cosine` between the change of all weights and the negative gradient.
    """
    figure, axes = panel()
    for index, (name, values) in enumerate({"equal signs (share)": sign, "cosine": cosine}.items()):
        draw_line(axes, at, values, series_style(index), name, markersize=3.0)
    axes.axhline(CHANCE, color=LIGHT["muted"], linewidth=0.8, label="signs by chance")
    axes.set_ylim(min(0.0, np.nanmin([0.0, *np.asarray(cosine)])), 1.02)
    return _finished(figure, axes, "agreement with EP")


def _finished(figure: Figure, axes: Axes, y: str) -> Figure:
    whole_numbers(axes)
    axes.xaxis.set_major_formatter(formatting.compact)
    finish(axes, "samples", y)
    return figure
