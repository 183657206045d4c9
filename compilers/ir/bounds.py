"""Bounds of the numbers in a graph, which may come from a file of anybody."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from compilers.ir import graph as ir
from compilers.ir.plasticity import Plasticity

MOST = (1 << 31) - 1
"""What a whole number reaches at most that `BOUNDS` does not name, from 0 on."""

LARGE = 1e30
"""Largest real number; none that is divided by is below its inverse."""

MILLION = 1 << 20
"""Largest nudge and rate."""

LONGEST = 60
"""Bits of what integers stand for: a word of 64 has room for sums of it."""

BOUNDS: Mapping[tuple[type, str], tuple[int, int]] = {
    (ir.Population, "shape"): (1, MOST),
    (ir.Population, "louder"): (0, LONGEST),
    (ir.FixedPoint, "bits"): (1, 62),
    (ir.FixedPoint, "frac"): (0, 40),
    (ir.Rescale, "multiplier"): (-MOST, MOST),
    (ir.Rescale, "shift"): (-128, 128),
    **{(conv, "stride"): (1, 1 << 16) for conv in (ir.Conv, ir.ConvTranspose)},
    **{(conv, "padding"): (0, 1 << 16) for conv in (ir.Conv, ir.ConvTranspose)},
    (ir.Partial, "share"): (1, MOST),
    # The messages of so many steps are kept.
    (ir.Projection, "delay"): (1, 1024),
    (ir.Phase, "steps"): (1, 1_000_000),
    (ir.Phase, "sign"): (-1, 1),
    (ir.Phase, "nudge"): (-MILLION, MILLION),
    # Messages are counted from core to core.
    (ir.Tile, "core"): (0, 1 << 20),
    (ir.Tile, "chip"): (0, 1 << 20),
    (Plasticity, "bits"): (2, 16),
    (Plasticity, "rate"): (0, MILLION),
    (Plasticity, "power"): (-256, 256),
    (Plasticity, "coarser"): (0, 40),
}
"""Least and largest value by record and field; of a field of several numbers, of each."""


def out_of_bounds(record: Any) -> str | None:
    """What to say of the first number in `record` that is out of bounds; None if all are within."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            if (problem := out_of_bounds(value)) is not None:
                return problem
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if (type(number) is int) or (type(number) is float and math.isfinite(number)):
                usual = (0, MOST) if type(number) is int else (-LARGE, LARGE)
                low, high = BOUNDS.get((type(record), field.name), usual)
                if not low <= number <= high:
                    return f"{field.name} {_shown(number)} is not in {low:,} to {high:,}"
    return None


def _shown(number: float) -> str:
    if isinstance(number, int) and abs(number) >= 10**12:
        return f"of {len(str(number))} digits"
    return f"{number}"
