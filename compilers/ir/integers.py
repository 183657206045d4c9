"""Integer arithmetic that the IR fixes for every target: shifts and roundings, halves up."""

from __future__ import annotations

from typing import Any

import numpy as np


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
