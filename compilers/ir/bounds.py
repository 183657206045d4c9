"""Bounds of the whole numbers in a graph, which may come from a file of anybody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from compilers.ir import graph as ir
from compilers.ir.plasticity import Plasticity

MOST = (1 << 31) - 1
"""What a whole number reaches at most that `BOUNDS` does not name, from 0 on."""

LONGEST = 128
"""Bits of the longest word, and of the longest shift."""

BOUNDS: Mapping[tuple[type, str], tuple[int, int]] = {
    (ir.Population, "shape"): (1, MOST),
    (ir.FixedPoint, "bits"): (1, LONGEST),
    (ir.FixedPoint, "frac"): (0, LONGEST),
    (ir.Rescale, "multiplier"): (-MOST, MOST),
    (ir.Rescale, "shift"): (-LONGEST, LONGEST),
    **{(conv, "stride"): (1, 1 << 16) for conv in (ir.Conv, ir.ConvTranspose)},
    **{(conv, "padding"): (0, 1 << 16) for conv in (ir.Conv, ir.ConvTranspose)},
    (ir.Partial, "share"): (1, MOST),
    # The messages of so many steps are kept.
    (ir.Projection, "delay"): (1, 1024),
    (ir.Phase, "steps"): (1, 1_000_000),
    (ir.Phase, "sign"): (-1, 1),
    # Messages are counted from core to core.
    (ir.Tile, "core"): (0, 1 << 20),
    (ir.Tile, "chip"): (0, 1 << 20),
    (Plasticity, "bits"): (2, 16),
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
        low, high = BOUNDS.get((type(record), field.name), (0, MOST))
        for number in value if isinstance(value, tuple) else (value,):
            if type(number) is int and not low <= number <= high:
                shown = str(number) if abs(number) < 10**12 else f"of {len(str(number))} digits"
                return f"{field.name} {shown} is not in {low:,} to {high:,}"
    return None
