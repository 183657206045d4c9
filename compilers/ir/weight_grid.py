"""Number grids: weights as integers times powers of two, gains, and sums rounded once."""

from __future__ import annotations

import math
import sys

import numpy as np

MULTIPLIER_BITS = 15
"""Bits of a gain that is no power of two; its relative error stays below 2**-15."""

MAX_SHIFT = 8
"""Largest shift between channels: finer channels would cost accumulator bits for nothing."""

_SEARCH = 6


def to_grid(weight: np.ndarray, bits: int, per_channel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers ``q`` and exponents ``E`` with ``weight ~ q * 2**E``, both float64.

    ``E`` is that of least squared error: clipping a few large weights to represent the many small
    ones better is part of that choice.

    Parameters
    ----------
    weight : array, (channels, ...)
        Float64.
    bits : int
        Bits of ``q``, sign included; the range is symmetric.
    per_channel : bool
        One exponent for each channel (axis 0), at most `MAX_SHIFT` below the largest, or one for
        all.

    Returns
    -------
    q : array
        Shape of `weight`.
    exponents : array, (channels,) or (1,)
    """
    groups = weight.reshape(len(weight) if per_channel else 1, -1)
    top = (1 << (bits - 1)) - 1
    largest = np.amax(np.abs(groups), 1)
    exponents = _best_exponents(groups, largest, top)
    used = exponents[largest > 0]
    if not len(used):
        return np.zeros_like(weight), np.zeros_like(exponents)
    exponents = np.clip(exponents, max(used.min(), used.max() - MAX_SHIFT), used.max())
    q = np.clip(np.round(groups / 2.0 ** exponents[:, None]), -top, top)
    return q.reshape(weight.shape), exponents


def _best_exponents(groups: np.ndarray, largest: np.ndarray, top: int) -> np.ndarray:
    """Power-of-two exponent of least squared error for each row."""
    mantissa, exponent = np.frexp(np.clip(largest, sys.float_info.min, None) / top)
    # The smallest whole number that is not below the logarithm.
    covering = np.where(mantissa > 0.5, exponent, exponent - 1).astype(np.float64)
    best, error = covering, np.full_like(largest, math.inf)
    for finer in range(_SEARCH):
        candidate = covering - finer
        step = 2.0 ** candidate[:, None]
        rounded = np.clip(np.round(groups / step), -top, top) * step
        squared = ((groups - rounded) ** 2).sum(1)
        # A coarser grid wins ties: it needs fewer bits.
        best, error = np.where(squared < error, candidate, best), np.minimum(squared, error)
    return best


def single(sums: np.ndarray) -> np.ndarray:
    """Float64 `sums` rounded to float32, still as float64, the same in whatever order they came.

    Two orders differ in the last of 53 bits. Where the value lies half way between two numbers of
    24 bits, which sums of such numbers often do, that bit would decide; so first to 40 bits.
    """
    mantissa, exponent = np.frexp(sums)
    near = np.ldexp(np.round(mantissa * 2.0**40) / 2.0**40, exponent)
    return near.astype(np.float32).astype(np.float64)


def integer_gain(gain: float) -> tuple[int, int]:
    """Multiplier and shift nearest to `gain`; the multiplier is 1 for a power of two."""
    mantissa, exponent = math.frexp(gain)
    multiplier, shift = round(mantissa * (1 << MULTIPLIER_BITS)), exponent - MULTIPLIER_BITS
    while multiplier and multiplier % 2 == 0:
        multiplier, shift = multiplier // 2, shift + 1
    return multiplier, shift if multiplier else 0
