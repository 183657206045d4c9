"""Learning on a chip as figures: synapses over time, and whether they move as EP says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike

from ep_neuro.errors import DataError
from ep_neuro.report.plots import formatting
from ep_neuro.report.plots.axes import legend, panel, styled, whole_numbers
from ep_neuro.report.plots.palette import LIGHT, series_style

CHANCE = 0.5
"""Share of equal signs that two unrelated updates have."""


@dataclass(frozen=True, eq=False)
class SynapseHistory:
    """A few synapses while they learn.

    Attributes
    ----------
    at : ndarray, (K,)
        Samples seen.
    weights : mapping of ndarray, (K, synapses)
        Weights in real units, by coupling.
    """

    at: ArrayLike
    weights: Mapping[str, ArrayLike]

    def __post_init__(self) -> None:
        at = np.asarray(self.at, dtype=float)
        weights = {name: np.asarray(w, dtype=float) for name, w in self.weights.items()}
        for name, values in weights.items():
            if values.ndim != 2 or len(values) != len(at):
                problem = f"shape {values.shape} for {len(at)} points"
                raise DataError(f"synapses of '{name}'", problem, "give (points, synapses)")
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "weights", weights)


@dataclass(frozen=True, eq=False)
class Agreement:
    """How the updates on the chip compare with the gradient in floating point.

    Attributes
    ----------
    at : ndarray, (K,)
        Samples seen before the updates that are compared.
    sign : ndarray, (K,)
        Share of the synapses that changed which moved as the gradient says, 0 to 1.
    cosine : ndarray, (K,)
        Cosine between the change of all weights and the negative gradient.
    """

    at: ArrayLike
    sign: ArrayLike
    cosine: ArrayLike

    def __post_init__(self) -> None:
        for name in ("at", "sign", "cosine"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=float))
        lengths = {np.shape(getattr(self, name)) for name in ("at", "sign", "cosine")}
        if len(lengths) > 1 or len(next(iter(lengths))) != 1:
            problem = f"shapes differ ({', '.join(map(str, sorted(lengths)))})"
            raise DataError("agreement", problem, "give one value for each point")


@styled
def plot_synapses(history: SynapseHistory) -> Figure:
    """Weights (real units) by samples seen: a line a synapse, a colour a coupling."""
    figure, axes = panel()
    handles = []
    for index, (name, weights) in enumerate(history.weights.items()):
        style = series_style(index)
        lines = axes.plot(
            np.asarray(history.at),
            np.asarray(weights),
            color=LIGHT[style.colour],
            linestyle=style.dash,
            linewidth=0.9,
            alpha=0.75,
        )
        for line in lines[:1]:
            line.set_label(name)
            handles.append(line)
    _samples_axis(axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.axis_number(value)))
    axes.set_ylabel("weight (real units)")
    legend(axes, handles)
    return figure


@styled
def plot_agreement(agreement: Agreement) -> Figure:
    """Share of equal signs, and cosine, by samples seen; a line marks chance."""
    figure, axes = panel()
    series = {"equal signs (share)": agreement.sign, "cosine": agreement.cosine}
    for index, (name, values) in enumerate(series.items()):
        style = series_style(index)
        axes.plot(
            np.asarray(agreement.at),
            np.asarray(values),
            color=LIGHT[style.colour],
            linestyle=style.dash,
            marker=style.marker,
            markersize=3.0,
            label=name,
        )
    axes.axhline(CHANCE, color=LIGHT["muted"], linewidth=0.8, label="signs by chance")
    axes.set_ylim(min(0.0, np.nanmin([0.0, *np.asarray(agreement.cosine)])), 1.02)
    _samples_axis(axes)
    axes.set_ylabel("agreement with EP")
    legend(axes)
    return figure


def _samples_axis(axes: Axes) -> None:
    whole_numbers(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatting.compact(value)))
    axes.set_xlabel("samples")
