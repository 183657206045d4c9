"""Integer arithmetic that the IR fixes for every target: formats, shifts, roundings (halves up)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LEAK_BITS = 12
"""Fractional bits of a leak in integer arithmetic."""


@dataclass(frozen=True)
class FixedPoint:
    """Signed integer ``q`` of `bits` bits that stands for ``q * 2**-frac``; it saturates."""

    bits: int
    frac: int

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest ``q``."""
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    @property
    def one(self) -> int:
        """The ``q`` that stands for 1."""
        return 1 << self.frac


@dataclass(frozen=True)
class Rescale:
    """Integer gain of a projection: ``(acc * multiplier) << shift``, rounded if shift < 0."""

    multiplier: int
    shift: int


def shift(values: np.ndarray, bits: int) -> np.ndarray:
    """``values << bits``; a shift to the right rounds to nearest, halves up.

    Nothing is left of integers up to 2**62 by a shift over 63 bits, which no word could count.
    """
    if bits >= 0:
        return values << bits
    if bits < -63:
        return np.zeros_like(values)
    return (values + (1 << (-bits - 1))) >> -bits


def nearest(values: Any) -> np.ndarray:
    """The nearest integers, halves up like `shift`, as int64."""
    return np.floor(np.asarray(values) + 0.5).astype(np.int64)
