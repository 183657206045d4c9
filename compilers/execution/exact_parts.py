"""A kernel of long integers as a sum of short ones, whose products float32 sums exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compilers.execution.constants import SINGLE

MOST = 12
"""Parts above which one pass in float64 is as fast."""


@dataclass(frozen=True)
class Part:
    """What `channels` send: ``factor`` times the products with ``kernel``, in float32."""

    channels: Tensor
    kernel: Tensor
    factor: int


@dataclass(frozen=True)
class Split:
    """The sum of `parts`, times `factors` by receiving channel (channels,), float64."""

    factors: Tensor
    parts: list[Part]


def exact_parts(weight: np.ndarray, receiving: int, largest: float) -> Split | None:
    """`weight` as a factor by receiving channel times a sum of parts; None if there are too many.

    Exponents by channel make integers long without giving them digits. What is common to a
    receiving channel multiplies its sum; sending channels of near factors make a part, as many as
    float32 sums exactly in units of the smallest.

    Parameters
    ----------
    weight : array, (channels, channels, rows, columns)
        Whole numbers.
    receiving : int
        Axis of the receiving channels, 0 or 1.
    largest : float
        What no message exceeds in size.
    """
    kernel = np.moveaxis(weight, receiving, 0)
    outer = common_factors(kernel, 0)
    kernel = kernel / outer[:, None, None, None]
    inner = common_factors(kernel, 1)
    kernel = kernel / inner[:, None, None]
    sizes = np.abs(kernel).sum((2, 3)) * largest
    parts = []
    for channels in _runs(sizes, inner):
        factor = inner[channels[0]]
        short = kernel[:, channels] * (inner[channels] // factor)[:, None, None]
        held = torch.from_numpy(np.moveaxis(short, 0, receiving))
        held = held.to(torch.float32, memory_format=torch.channels_last)
        parts.append(Part(torch.from_numpy(channels), held, int(factor)))
    fits = sizes.max(initial=0) < SINGLE and len(parts) <= MOST
    return Split(torch.from_numpy(outer).double(), parts) if fits else None


def common_factors(kernel: np.ndarray, axis: int) -> np.ndarray:
    """Largest power of two that divides all of each slice along `axis`."""
    slices = np.moveaxis(np.abs(kernel).astype(np.int64), axis, 0).reshape(kernel.shape[axis], -1)
    digits = np.where(slices == 0, 1 << 62, slices & -slices).min(axis=1)
    return np.where(digits == 1 << 62, 1, digits)


def _runs(sizes: np.ndarray, factors: np.ndarray) -> list[np.ndarray]:
    """Sending channels by rising `factors`, in runs that float32 sums in units of the first."""
    runs: list[list[int]] = []
    total = np.zeros(len(sizes))
    for channel in np.argsort(factors, kind="stable"):
        more = total + sizes[:, channel] * factors[channel]
        if not runs or more.max() >= SINGLE * factors[runs[-1][0]]:
            runs.append([])
            more = sizes[:, channel] * factors[channel]
        runs[-1].append(channel)
        total = more
    return [np.array(run) for run in runs]
