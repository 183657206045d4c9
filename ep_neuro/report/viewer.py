"""The settling viewer: states of every step in, one self-contained HTML page out."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ep_neuro.errors import ConfigError
from ep_neuro.report.page import THEMES, template
from ep_neuro.report.svg import image_uri
from ep_neuro.storage.atomic import write_file

MARKER = b"ep-neuro settling viewer</title>"
"""What tells a page of ours."""

MOST_CELLS = 1024
"""Neurons of a population that are kept; a page that grows too large shows fewer."""

FEWEST_CELLS = 32

PAGE_BYTES = 3_000_000
"""A page takes no more, if it can be had by showing fewer neurons."""

LEVELS = 254
"""Steps of a scale: even, so that zero in the middle of it is met exactly."""

RASTER_ROWS = 32
"""Neurons of a population whose messages are drawn."""

Scale = tuple[float, float]
"""Values at the ends of a scale."""


RESIDUAL = "Largest move of a state"
"""Title of the curve that falls over orders of magnitude, and is drawn so."""


@dataclass(frozen=True)
class PhaseView:
    """What one phase did for N samples, at its start and after each of T steps."""

    name: str
    """Its title."""
    text: str
    """What happens in plain sentences; ``{label}`` stands for that of the sample."""
    states: Mapping[str, np.ndarray]
    """Real units, (N, T + 1, *shape), by population from input to output, thinned out (`thin`)."""
    outputs: np.ndarray
    """Real units, (N, T + 1, classes)."""
    curves: Mapping[str, np.ndarray]
    """What is drawn against the step, (N, T + 1), by title; NaN where there is no value."""
    events: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Messages sent at each step, (N, T + 1), by population."""
    messages: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The messages of some neurons, (N, T + 1, neurons), by population, where a raster of them says
    something."""
    signed: bool = False
    """Whether states are differences, which have scales of their own."""

    @property
    def steps(self) -> int:
        """Its length, T."""
        return self.outputs.shape[1] - 1


@dataclass(frozen=True)
class SettlingView:
    """All that the page shows."""

    model: str
    images: np.ndarray
    """As a person sees them, 0 to 1, (N, ...); what is no image is drawn as a grid."""
    labels: np.ndarray
    """(N,)."""
    shapes: Mapping[str, tuple[int, ...]]
    """Whole shape by population, from input to output."""
    hears: Mapping[str, Sequence[str]]
    """Populations that send to each."""
    phases: Sequence[PhaseView]
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What a reader should know, a sentence each."""

    @property
    def answers(self) -> np.ndarray:
        """Class with the largest output at the end of the free phase, (N,)."""
        return np.asarray(self.phases[0].outputs[:, -1].argmax(1))


def thin(values: np.ndarray, most: int, axes: int = 2) -> np.ndarray:
    """`values` with at most `most` neurons behind the first `axes` axes, evenly spaced.

    Of maps (channels, height, width) whole ones if they fit, else every second row and column and
    so on, so that four channels or more remain, a square of them.
    """
    shape = values.shape[axes:]
    if math.prod(shape) <= most:
        return values
    if len(shape) != 3:
        flat = values.reshape(*values.shape[:axes], -1)
        return flat[..., _spread(flat.shape[-1], most)]
    channels, height, width = shape
    plane, stride = max(1, most // min(4, channels)), 1
    while -(-height // stride) * -(-width // stride) > plane:
        stride += 1
    maps = values[..., ::stride, ::stride]
    fitting = most // math.prod(maps.shape[-2:])
    return maps[
        ..., _spread(channels, channels if channels <= fitting else math.isqrt(fitting) ** 2), :, :
    ]


def _spread(size: int, count: int) -> np.ndarray:
    return np.linspace(0, size - 1, min(size, count)).round().astype(int)


def write_view(view: SettlingView, path: str | Path) -> int:
    """Write the page of `view` to `path`, whole or not at all; its folder is made.

    Returns the number of bytes, at most `PAGE_BYTES` unless few neurons take more.

    Raises
    ------
    ConfigError
        If the disk refuses, or a file of somebody else stands there.
    """
    cells = MOST_CELLS
    while len(page := render_view(view, cells).encode("utf-8")) > PAGE_BYTES:
        if cells <= FEWEST_CELLS:
            break
        cells //= 2
    write_file(path, page, ConfigError, marker=MARKER)
    return len(page)


def render_view(view: SettlingView, cells: int = MOST_CELLS) -> str:
    """The page as HTML: no network, no external files, the same text for the same data."""
    # "<" could end the script that the data stand in.
    data = json.dumps(view_data(view, cells), allow_nan=False).replace("<", "\\u003c")
    shown = {k: v.shape[2:] for k, v in _thinned(view.phases[0], cells).items()}
    return template("viewer.html.j2").render(
        view=view,
        images=[image_uri(picture(image)) for image in view.images],
        shown=shown,
        data=Markup(data),
        **THEMES,
    )


def picture(image: np.ndarray) -> np.ndarray:
    """`image` as rows and columns, or as it is if it has 1 or 3 channels of them."""
    if image.ndim == 3 and image.shape[0] in (1, 3):
        return image
    if image.ndim == 3:
        return np.asarray(image.mean(0))
    _, rows, columns = _map_shape(image.shape)
    grid = np.zeros(rows * columns)
    grid[: image.size] = image.ravel()
    return grid.reshape(rows, columns)


def _thinned(phase: PhaseView, cells: int) -> dict[str, np.ndarray]:
    return {name: thin(values, cells) for name, values in phase.states.items()}


def view_data(view: SettlingView, cells: int = MOST_CELLS) -> dict[str, Any]:
    """What the script of the page reads: arrays as 8-bit steps of a scale, curves as numbers."""
    states = [_thinned(p, cells) for p in view.phases]
    whole = [shown for shown, p in zip(states, view.phases, strict=True) if not p.signed]
    scales = {k: [_scale([shown[k] for shown in whole])] * len(view.labels) for k in view.shapes}
    return {
        "labels": [int(label) for label in view.labels],
        "populations": [
            {"name": name, "shape": _map_shape(states[0][name].shape[2:])} for name in view.shapes
        ],
        "phases": [
            _phase_data(p, shown, scales) for p, shown in zip(view.phases, states, strict=True)
        ],
    }


def _phase_data(
    phase: PhaseView, states: Mapping[str, np.ndarray], scales: Mapping[str, Sequence[Scale]]
) -> dict[str, Any]:
    if phase.signed:
        # Each image errs in its own way; and early differences of spikes are counting noise.
        late = (phase.steps + 1) // 2
        scales = {k: [_scale([one[late:]], signed=True) for one in v] for k, v in states.items()}
    return {
        "name": phase.name,
        "text": phase.text,
        "signed": phase.signed,
        "steps": phase.steps,
        "outputs": _numbers(phase.outputs),
        "curves": [
            {"name": k, "log": k == RESIDUAL, "values": _numbers(v)}
            for k, v in phase.curves.items()
        ],
        "events": [_numbers(phase.events[k]) for k in states if k in phase.events],
        "states": [
            {"scales": scales[k], "data": packed(levels(v, scales[k]))} for k, v in states.items()
        ],
        "messages": [
            {"name": k, "rows": v.shape[2], "data": packed(np.sign(v) + 1)}
            for k, v in phase.messages.items()
        ],
    }


def _map_shape(shape: tuple[int, ...]) -> list[int]:
    """Channels, rows and columns; of a population that is no map, one channel near a square."""
    if len(shape) == 3:
        return list(shape)
    size = math.prod(shape)
    columns = size if size <= 16 else math.ceil(math.sqrt(size))
    return [1, -(-size // columns), columns]


def _scale(values: Sequence[np.ndarray], *, signed: bool = False) -> Scale:
    """Ends of a scale of all `values`: from zero up, or as far below zero as above."""
    high = float(f"{max(float(np.abs(v).max()) for v in values) or 1.0:.5g}")
    return (-high if signed or any(float(v.min()) < 0 for v in values) else 0.0), high


def levels(values: np.ndarray, scales: Sequence[Scale]) -> np.ndarray:
    """The step, 0 to `LEVELS`, of the scale of its image that is nearest to each of `values`."""
    low, high = np.array(scales).T.reshape(2, -1, *[1] * (values.ndim - 1))
    return np.clip(np.rint((values - low) * (LEVELS / (high - low))), 0, LEVELS)


def packed(values: np.ndarray) -> str:
    """Bytes `values` (N, T + 1, ...) as what changed since the step before, deflated, base64."""
    whole = values.astype(np.uint8)
    changes = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
    return base64.b64encode(zlib.compress(changes.tobytes(), 9)).decode("ascii")


def _numbers(values: np.ndarray) -> Any:
    """`values` as lists of numbers of five digits; what is not finite becomes null."""
    if values.ndim > 1:
        return [_numbers(v) for v in values]
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]
