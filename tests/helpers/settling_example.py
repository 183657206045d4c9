"""A viewer's page with every part: a map, a population that is none, spikes, four phases."""

from __future__ import annotations

import base64
import zlib

import numpy as np

from ep_neuro.report.viewer import RESIDUAL, PhaseView, SettlingView

STEPS, SAMPLES = 6, 3
NAMES = ("Free", "Nudged", "Nudged away", "Difference")


def example_view(seed: int = 0, name: str = "h1") -> SettlingView:
    """The same `seed` gives the same data; `name` is that of the first population."""
    rng = np.random.default_rng(seed)
    shapes = {name: (24, 8, 8), "output": (10,)}
    return SettlingView(
        model="example",
        images=rng.random((SAMPLES, 1, 8, 8)),
        labels=np.arange(SAMPLES),
        shapes=shapes,
        hears={name: ["input", "output"], "output": [name]},
        phases=[_phase(rng, phase, shapes) for phase in NAMES],
        facts={"Target": "reference", "Data": "digits"},
        notes=["A note."],
    )


def _phase(rng: np.random.Generator, name: str, shapes: dict[str, tuple[int, ...]]) -> PhaseView:
    signed = name == NAMES[-1]
    steps = (SAMPLES, STEPS + 1)
    size = 0.01 if signed else 1.0
    states = {k: size * rng.normal(size=(*steps, *v)) for k, v in shapes.items()}
    if signed:
        states = {k: np.concatenate([9 * v[:, :1], v[:, 1:]], 1) for k, v in states.items()}
        curves = {"Largest difference": rng.random(steps)}
        text = "What the pull changed for {label}."
        return PhaseView(name, text, states, states["output"], curves, signed=True)
    residual = 10.0 ** -np.arange(STEPS + 1) * np.ones(steps)
    residual[:, 0] = np.nan
    return PhaseView(
        name,
        f"{name}: towards {{label}}.",
        states,
        states["output"],
        {RESIDUAL: residual, "Energy": -np.sort(rng.random(steps))},
        {k: rng.integers(0, 9, steps) for k in shapes},
        {k: rng.integers(0, 2, (*steps, 10)) for k in shapes},
    )


def unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes that `ep_neuro.report.viewer.packed` packed, of that shape."""
    changes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape)
    return np.cumsum(changes, axis=1, dtype=np.uint8).astype(int)
