"""A spike raster: runs of events as strokes, large populations thinned to what a page can show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ep_neuro.report.plots.palette import LIGHT

MAX_ROWS = 240
"""Neurons drawn in all bands together; more would be thinner than a pixel."""

MAX_STROKES = 12_000
"""Strokes in one raster, which bounds its SVG: 12 000 strokes took 349 kB."""

_BAND_INCHES, _MARGIN_INCHES, _GAP = 0.5, 0.85, 0.08


def raster_height(bands: int) -> float:
    """Height in inches of a raster of that many populations."""
    return _MARGIN_INCHES + _BAND_INCHES * max(bands, 2)


def runs(events: np.ndarray) -> np.ndarray:
    """Runs of consecutive `events` (T, neurons): neuron, first and last step, counted from 1."""
    padded = np.pad(events.astype(np.int8), ((1, 1), (0, 0)))
    edges = np.diff(padded, axis=0).T
    neuron, first = np.nonzero(edges == 1)
    _, after = np.nonzero(edges == -1)
    return np.stack([neuron, first + 1, after], axis=1)


def thin(rasters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Indices of the neurons to draw of each population, evenly spaced.

    At most `MAX_ROWS` in all, and fewer until no more than `MAX_STROKES` strokes are left.
    """
    cap = max(MAX_ROWS // max(len(rasters), 1), 1)
    while True:
        chosen = {
            name: np.unique(np.linspace(0, r.shape[1] - 1, min(cap, r.shape[1])).astype(int))
            for name, r in rasters.items()
        }
        strokes = sum(len(runs(r[:, chosen[n]] > 0)) for n, r in rasters.items())
        strokes += sum(len(runs(r[:, chosen[n]] < 0)) for n, r in rasters.items())
        if strokes <= MAX_STROKES or cap == 1:
            return chosen
        cap = max(cap // 2, 1)


def draw_raster(axes: Axes, rasters: Mapping[str, np.ndarray], colour: str) -> list[Line2D]:
    """Draw bands from top to bottom in the order of `rasters`.

    Rises take `colour`, falls (negative messages of sigma-delta) a neutral one. Returns the handles
    of a legend, none where nothing falls.
    """
    names = list(rasters)
    chosen = thin(rasters)
    signs = {"rise": (1, LIGHT[colour]), "fall": (-1, LIGHT["series-6"])}
    for sign, shade in signs.values():
        for band, name in enumerate(names):
            events = sign * rasters[name][:, chosen[name]] > 0
            if events.any():
                _draw_strokes(axes, events, band, shade)
    steps = max((len(r) for r in rasters.values()), default=1)
    axes.set_xlim(0.5, steps + 0.5)
    axes.set_ylim(max(len(names), 1), 0)
    for band in range(1, len(names)):
        axes.axhline(band, color=LIGHT["line"], linewidth=0.6)
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    if not any((r < 0).any() for r in rasters.values()):
        return []
    return [Line2D([], [], color=shade, label=label) for label, (_, shade) in signs.items()]


def _draw_strokes(axes: Axes, events: np.ndarray, band: int, colour: str) -> None:
    """All strokes as one line with gaps: a seventh of the SVG of an `eventplot`."""
    neuron, first, last = runs(events).T
    room = 1 - 2 * _GAP
    height = band + _GAP + room * (neuron + 0.5) / events.shape[1]
    at = np.stack([first - 0.45, last + 0.45, np.full(len(neuron), np.nan)], axis=1)
    width = min(max(72 * _BAND_INCHES * room / events.shape[1], 0.5), 2.5)
    axes.plot(at.ravel(), height.repeat(3), color=colour, linewidth=width, solid_capstyle="butt")
