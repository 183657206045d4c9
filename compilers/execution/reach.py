"""Where spikes arrive: the receivers of each sender in runs, and the weights in their order."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from compilers.ir.operators import Conv, ConvTranspose, Operator, Shape, matrix


class Reach(NamedTuple):
    """Where spikes of a population arrive: runs of receivers next to each other, by place.

    The neurons of an image that stand at one place, its channels, reach the same runs, each with
    weights of its own. Without an image all neurons stand at one place and reach all receivers.
    """

    begins: np.ndarray
    """First run of each place, int64 (places + 1,)."""
    runs: np.ndarray
    """First receiver, first weight of those of the channel, and length of each, int64 (runs, 3)."""


def reach(operator: Operator, weight: Shape, pre: Shape, post: Shape) -> Reach:
    """Where what `pre` sends arrives in `post`, by a weight of shape `weight`."""
    if isinstance(operator, Conv | ConvTranspose):
        return _in_image(operator, weight[2:], pre, post)
    return Reach(np.array([0, 1]), np.array([[0, 0, math.prod(post)]]))


def by_sender(operator: Operator, weight: np.ndarray, pre: Shape, post: Shape) -> np.ndarray:
    """The weights of each channel of the sender, (channels, ...), in the order of `Reach.runs`."""
    if not isinstance(operator, Conv | ConvTranspose):
        return as_matrix(operator, weight, pre, post)
    turned = weight if isinstance(operator, ConvTranspose) else weight.swapaxes(0, 1)
    turned = turned.transpose(0, 2, 3, 1).take(_order(operator, weight.shape[3]), axis=2)
    return turned.reshape(len(turned), -1)


def as_matrix(operator: Operator, weight: np.ndarray, pre: Shape, post: Shape) -> np.ndarray:
    """An operator that is no convolution as (pre, post), images of both channels-last."""
    found = matrix(operator, weight, math.prod(post)).T
    if len(pre) == 3:
        found = found[_channels_last(pre)]
    return found[:, _channels_last(post)] if len(post) == 3 else found


def _channels_last(shape: Shape) -> np.ndarray:
    """Place in the graph's order of each neuron of an image as it lies channels-last."""
    return np.moveaxis(np.arange(math.prod(shape)).reshape(shape), 0, -1).ravel()


@lru_cache(64)
def _in_image(
    operator: Conv | ConvTranspose, kernel: tuple[int, int], pre: Shape, post: Shape
) -> Reach:
    """What a kernel (rows, columns), or its adjoint, reaches from `pre` in `post`."""
    begins, runs = [0], []
    (rows, columns), (channels, high, wide) = pre[1:], post
    across = [_span(operator, x, kernel[1], wide) for x in range(columns)]
    for y in range(rows):
        down = [(tap, _reached(operator, y, tap)) for tap in range(kernel[0])]
        for tap, first, count in across:
            for a, row in down:
                if count and 0 <= row < high:
                    run = (row * wide + first, a * kernel[1] + tap, count)
                    runs.append([channels * number for number in run])
            begins.append(len(runs))
    return Reach(np.array(begins), np.array(runs, np.int64).reshape(-1, 3))


def _span(operator: Conv | ConvTranspose, i: int, taps: int, size: int) -> tuple[int, int, int]:
    """Of sender `i`: place in `_order` of its first tap, what this reaches, number of taps."""
    reached = [_reached(operator, i, tap) for tap in _order(operator, taps)]
    there = [place for place, to in enumerate(reached) if 0 <= to < size]
    return (there[0], reached[there[0]], len(there)) if there else (0, 0, 0)


def _reached(operator: Conv | ConvTranspose, i: int, tap: int) -> int:
    """What sender `i` of a row or column reaches through a tap of the kernel; -1 for nothing."""
    if isinstance(operator, ConvTranspose):
        return i * operator.stride - operator.padding + tap
    place, rest = divmod(i + operator.padding - tap, operator.stride)
    return -1 if rest else place


def _order(operator: Conv | ConvTranspose, taps: int) -> list[int]:
    """Taps such that the receivers of one sender stand one after the other."""
    if isinstance(operator, ConvTranspose):
        return list(range(taps))
    stride = operator.stride
    return [tap for rest in range(stride) for tap in reversed(range(rest, taps, stride))]
