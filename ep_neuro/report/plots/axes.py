"""The house style of every figure, and the panel, axes and legend that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from ep_neuro.report.plots.palette import LIGHT, SeriesStyle

WIDTH, HEIGHT = 3.75, 2.75
"""Inches of one panel: at its natural size it fits a screen of 360 CSS pixels."""

_LEGEND_POINTS = 215
"""Width of the axes, about."""

OUTLINED: dict[str, Any] = {"markeredgecolor": LIGHT["paper"], "markeredgewidth": 0.6}
"""Markers of points that may lie on each other."""

STYLE: dict[Any, Any] = {
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


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """`draw`, in the style of the house."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def svg_bytes(figure: Figure, paper: str = "none") -> bytes:
    """What ``savefig`` writes on `paper`; that would lay the figure out and draw it twice."""
    buffer, before = BytesIO(), figure.get_facecolor()
    figure.set_facecolor(paper)
    with mpl.rc_context(STYLE):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    figure.set_facecolor(before)
    return buffer.getvalue()


def panel(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure of one panel, `height` inches high, and its axes."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots()


def draw_line(
    axes: Axes, at: ArrayLike, values: ArrayLike, style: SeriesStyle, label: str, **how: Any
) -> None:
    """A series in its style; `how` are properties of the line that differ from it."""
    styled = {"color": LIGHT[style.colour], "linestyle": style.dash, "marker": style.marker}
    axes.plot(at, values, **{**styled, "label": label, **how})


def draw_seeds(
    axes: Axes, at: Sequence[float], seeds: Sequence[np.ndarray], style: SeriesStyle, label: str
) -> None:
    """The mean over what each of `at` has in `seeds`, and the range from worst to best."""
    low, mean, high = ([float(v) for v in map(f, seeds)] for f in (np.min, np.mean, np.max))
    axes.fill_between(at, low, high, color=LIGHT[style.colour], alpha=0.15, lw=0)
    draw_line(axes, at, mean, style, label)


def log_ticks(axis: Axis, write: Callable[[float], str]) -> None:
    """Ticks of a logarithmic axis, few and round, in words by `write`."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low) if high > low > 0 else 0.0
    subs = (1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(10, subs=subs, numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: write(value))


def whole_numbers(axes: Axes) -> None:
    """Ticks at whole numbers of x only."""
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def finish(axes: Axes, x: str, y: str) -> None:
    """What both axes count, with units, and a legend."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    legend(axes)


def legend(axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A legend above the axes, read along its rows; the panel grows by the rows it needs."""
    handles = list(axes.get_legend_handles_labels()[0] if handles is None else handles)
    if not handles:
        return
    widths = [30 + 5.0 * len(str(handle.get_label())) for handle in handles]
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
