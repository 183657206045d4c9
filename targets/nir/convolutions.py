"""Projections between planes of neurons as ``Conv2d`` nodes, feedback included."""

from __future__ import annotations

import math
from collections.abc import Sequence

import nir
import numpy as np

from compilers.ir.graph import Conv, ConvTranspose, Operator, Shape
from compilers.ir.operators import matrix
from targets.nir.kernel_shapes import PIXEL, margins, plane


def convolutions(
    operator: Operator, weight: np.ndarray, pre: Shape, post: Shape
) -> list[nir.Conv2d]:
    """Nodes that compute `operator` one after the other, exactly.

    A dense coupling is a kernel as large as the plane that it reads, or writes from one pixel. The
    transpose of a convolution is the convolution with its kernel turned by 180 degrees and its
    channels swapped, of a plane with ``stride - 1`` zeros between pixels; see `_spread`.

    Parameters
    ----------
    operator : Operator
        One for which `targets.nir.kernel_shapes.keeps_planes` holds.
    weight : ndarray
        In the shape of the operator's own.
    pre, post : tuple of int
        Shapes of the populations; flat ones are channels of one pixel.
    """
    (channels, *sides), out = plane(pre), plane(post)
    if isinstance(operator, Conv):
        return [conv2d(weight, sides, operator.stride, operator.padding)]
    if isinstance(operator, ConvTranspose):
        before, behind, padding = margins(operator, weight.shape[2], out[1])
        zeros = ((0, 0), (0, 0), (before, behind), (before, behind))
        turned = np.pad(_turned(weight.swapaxes(0, 1)), zeros)
        if operator.stride == 1:
            return [conv2d(turned, sides, padding=padding)]
        spread = _spread(channels, sides[0], operator.stride)
        return [spread, conv2d(turned, spread.output_type["output"][1:], padding=padding)]
    joined = matrix(operator, weight, math.prod(post))
    if out[1:] == PIXEL:
        return [conv2d(joined.reshape(-1, channels, *sides), sides)]
    kernel = _turned(joined.reshape(*out, channels).transpose(0, 3, 1, 2))
    return [conv2d(kernel, sides, padding=out[1] - 1)]


def _spread(channels: int, side: int, stride: int) -> nir.Conv2d:
    """``y[c, s i, s j] = x[c, i, j]``, zero elsewhere, from (side, side) to (s side, s side).

    With ``K = side + 1`` and ``D = s K - 1``, place i of the result sums ``x[K i - D m]`` over
    ``m = 0 ... side``. For ``i = s q + r`` and ``m = q + d`` that is ``x[K (r - s d) + m]``, and as
    ``0 <= m < K``, it is a pixel only where ``r = s d``, hence at ``r = d = 0``: ``x[q]``. So a
    kernel of ones with dilation ``D`` and stride ``K`` does what NIR has no node for. An identity
    joins its channels, and no groups, which NIR 1.0.8 does not type-check.
    """
    kernel = side + 1
    dilation = stride * kernel - 1
    weight = np.broadcast_to(
        np.eye(channels)[..., None, None], (channels, channels, kernel, kernel)
    )
    return conv2d(weight, (side, side), kernel, dilation * side, dilation)


def _turned(kernel: np.ndarray) -> np.ndarray:
    return kernel[..., ::-1, ::-1]


def conv2d(
    weight: np.ndarray, sides: Sequence[int], stride: int = 1, padding: int = 0, dilation: int = 1
) -> nir.Conv2d:
    return nir.Conv2d(
        input_shape=tuple(map(int, sides)),
        weight=np.ascontiguousarray(weight, np.float32),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=1,
        bias=np.zeros(len(weight), np.float32),
    )
