"""Colours of page and figures in light and dark; figures are drawn in light and re-themed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_hex, to_rgb

RAMP_STEPS = 12
"""Shades from the first population to the last."""

SERIES = {
    "series-1": ("#0b63a5", "#6cb4ee"),
    "series-2": ("#b9480a", "#ff9d5c"),
    "series-3": ("#00795a", "#4fcfa4"),
    "series-4": ("#8a3b8f", "#dda2e3"),
    "series-5": ("#7d6200", "#e0c24c"),
    "series-6": ("#454a52", "#aab4c0"),
}
"""(light, dark) of each series: apart for colour-blind eyes, 4.5:1 or more on the paper."""

_GROUND = {
    "paper": ("#ffffff", "#14171c"),
    "surface": ("#f5f6f8", "#1c2128"),
    "ink": ("#1b1f24", "#e6e9ee"),
    "muted": ("#56606b", "#a6b0bd"),
    "line": ("#d3d9e0", "#363e4a"),
    "good": ("#17693a", "#6fd08c"),
    "bad": ("#b0232a", "#ff8f8a"),
}


def _ramp(start: str, end: str) -> list[str]:
    return [to_hex(shade) for shade in np.linspace(to_rgb(start), to_rgb(end), RAMP_STEPS)]


_DEPTHS = zip(_ramp("#4f9fd0", "#2c1760"), _ramp("#c5e6f8", "#7460d6"), strict=True)

COLOURS: dict[str, tuple[str, str]] = {
    **_GROUND,
    **SERIES,
    **{f"depth-{i}": shades for i, shades in enumerate(_DEPTHS)},
}
"""Every colour by name as (light, dark); the names are CSS variables of the page."""

LIGHT = {name: light for name, (light, _) in COLOURS.items()}
DARK = {name: dark for name, (_, dark) in COLOURS.items()}


class SeriesStyle(NamedTuple):
    """How a series is drawn; dash and marker repeat what colour says."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str


_STYLES = (
    SeriesStyle("series-1", "-", "o"),
    SeriesStyle("series-2", (0, (5, 1.5)), "s"),
    SeriesStyle("series-3", (0, (1.5, 1.2)), "^"),
    SeriesStyle("series-4", (0, (5, 1.5, 1.2, 1.5)), "D"),
    SeriesStyle("series-5", (0, (3, 1.2, 1, 1.2, 1, 1.2)), "v"),
    SeriesStyle("series-6", (0, (8, 2)), "X"),
)
_CODE_STYLES = {"graded": 0, "sigma-delta": 1, "spike": 2, "rate": 5}


def series_style(index: int) -> SeriesStyle:
    """Style of the series at `index`, repeating after six."""
    return _STYLES[index % len(_STYLES)]


def code_styles(codes: Sequence[str]) -> list[SeriesStyle]:
    """Style of each encoding: its own in every figure, and no two alike up to six.

    A code may carry more words (``lava spike``). A second of its kind, or an unknown one, takes
    what is left.
    """
    taken: list[int | None] = []
    for code in codes:
        known = next((_CODE_STYLES[w] for w in reversed(code.split()) if w in _CODE_STYLES), None)
        taken.append(None if known in taken else known)
    left = [index for index in range(len(_STYLES)) if index not in taken] or [0]
    spare = cycle(left)
    return [_STYLES[next(spare) if index is None else index] for index in taken]


def depth_colour(index: int, count: int) -> str:
    """Name of the shade of population `index` of `count`."""
    return f"depth-{round(index * (RAMP_STEPS - 1) / max(count - 1, 1))}"


def css_variables(theme: dict[str, str]) -> str:
    """CSS declarations of every colour of a theme."""
    return "".join(f"--{name}:{colour};" for name, colour in theme.items())
