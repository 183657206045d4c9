"""Number grids of deployed networks: the rule that the compiler and training on a chip share.

Arrays are NumPy's or torch's; ``xp`` is the module they belong to, so that both follow one rule.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

MULTIPLIER_BITS = 15
"""Bits of a gain that is no power of two; its relative error stays below 2**-15."""

MAX_SHIFT = 8
"""Largest shift between channels: finer channels would cost accumulator bits for nothing."""

_SEARCH = 6


def per_channel_by_default(bits: int) -> bool:
    """Whether weights of so many bits get one exponent a channel unless somebody says otherwise."""
    return bits < 5


def to_grid(weight: Any, bits: int, per_channel: bool, xp: ModuleType) -> tuple[Any, Any]:
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
    xp : module
        ``numpy`` or ``torch``.

    Returns
    -------
    q : array
        Shape of `weight`.
    exponents : array, (channels,) or (1,)
    """
    groups = weight.reshape(len(weight) if per_channel else 1, -1)
    top = (1 << (bits - 1)) - 1
    largest = xp.amax(xp.abs(groups), 1)
    exponents = _best_exponents(groups, largest, top, xp)
    used = exponents[largest > 0]
    if not len(used):
        return xp.zeros_like(weight), xp.zeros_like(exponents)
    exponents = xp.clip(exponents, max(used.min(), used.max() - MAX_SHIFT), used.max())
    q = xp.clip(xp.round(groups / 2.0 ** exponents[:, None]), -top, top)
    return q.reshape(weight.shape), exponents


def _best_exponents(groups: Any, largest: Any, top: int, xp: ModuleType) -> Any:
    """Power-of-two exponent of least squared error for each row."""
    mantissa, exponent = xp.frexp(xp.clip(largest, sys.float_info.min, None) / top)
    # The smallest whole number that is not below the logarithm.
    covering = xp.asarray(xp.where(mantissa > 0.5, exponent, exponent - 1), dtype=xp.float64)
    best, error = covering, xp.full_like(largest, math.inf)
    for finer in range(_SEARCH):
        candidate = covering - finer
        step = 2.0 ** candidate[:, None]
        rounded = xp.clip(xp.round(groups / step), -top, top) * step
        squared = ((groups - rounded) ** 2).sum(1)
        # A coarser grid wins ties: it needs fewer bits.
        best, error = xp.where(squared < error, candidate, best), xp.minimum(squared, error)
    return best


def single(sums: Any, xp: ModuleType) -> Any:
    """Float64 `sums` rounded to float32, still as float64, the same in whatever order they came.

    Two orders differ in the last of 53 bits. Where the value lies half way between two numbers of
    24 bits, which sums of such numbers often do, that bit would decide; so first to 40 bits.
    """
    mantissa, exponent = xp.frexp(sums)
    near = xp.ldexp(xp.round(mantissa * 2.0**40) / 2.0**40, exponent)
    return xp.asarray(xp.asarray(near, dtype=xp.float32), dtype=xp.float64)


def integer_gain(gain: float) -> tuple[int, int]:
    """Multiplier and shift nearest to `gain`; the multiplier is 1 for a power of two."""
    mantissa, exponent = math.frexp(gain)
    multiplier, shift = round(mantissa * (1 << MULTIPLIER_BITS)), exponent - MULTIPLIER_BITS
    while multiplier and multiplier % 2 == 0:
        multiplier, shift = multiplier // 2, shift + 1
    return multiplier, shift if multiplier else 0
