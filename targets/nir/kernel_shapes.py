"""Which projections keep their kernel in NIR, and what all of them take in memory."""

from __future__ import annotations

import math

from compilers.ir import graph as ir

MATRIX_BYTES = 1 << 30
"""Most bytes that the kernels and matrices of one file may take."""

BYTES = 4
"""Of a weight, float32."""

PIXEL = (1, 1)
"""Sides of a plane of one neuron."""


def plane(shape: ir.Shape) -> ir.Shape:
    """(channels, rows, columns): neurons that lie on no plane are channels of one pixel."""
    return shape if len(shape) == 3 else (math.prod(shape), *PIXEL)


def keeps_planes(graph: ir.Graph) -> bool:
    """Whether all populations are written as planes, joined by ``Conv2d`` alone.

    All or none, as NIR can flatten but not fold back. A graph without feedback by convolution stays
    flat: more tools read ``Affine``.
    """
    feedback = any(isinstance(p.operator, ir.ConvTranspose) for p in graph.projections)
    return feedback and all(_by_convolutions(graph, p) for p in graph.projections)


def _by_convolutions(graph: ir.Graph, p: ir.Projection) -> bool:
    """Whether `targets.nir.convolutions` can write `p`; NIR's type inference knows square kernels
    only.
    """
    pre, post = (plane(graph.population(name).shape)[1:] for name in (p.pre, p.post))
    square = len(set(pre)) == len(set(post)) == 1
    match p.operator:
        case ir.Conv() | ir.ConvTranspose(stride=1):
            return len(set(graph.arrays[p.weight].shape[2:])) == 1
        case ir.ConvTranspose():
            return square and len(set(graph.arrays[p.weight].shape[2:])) == 1
        case ir.Dense() | ir.DenseTranspose():
            return square and PIXEL in (pre, post)
    return False


def stays_convolution(graph: ir.Graph, p: ir.Projection) -> bool:
    """Whether `p` becomes a ``Conv2d`` in a graph of flat populations; all others become matrices.

    What feedback, a matrix, reaches is one-dimensional, so only the input keeps its plane.
    """
    pre, kernel = graph.population(p.pre), graph.arrays[p.weight].shape[2:]
    return (
        isinstance(p.operator, ir.Conv)
        and isinstance(pre.dynamics, ir.Source)
        and len(set(kernel)) == 1
    )


def margins(operator: ir.ConvTranspose, kernel: int, side: int) -> tuple[int, int, int]:
    """Zeros before and behind the turned kernel, and its padding, for `side` pixels to reach.

    Rows that the stride of the forward kernel leaves unused take zeros behind; a padding beyond the
    kernel would be below 0 here, and takes zeros at both ends.
    """
    padding = kernel - 1 - operator.padding
    before = max(0, -padding)
    unused = (side + 2 * operator.padding - kernel) % operator.stride
    return before, before + operator.stride - 1 - unused, padding + before


def weight_bytes(graph: ir.Graph, p: ir.Projection, planes: bool) -> int:
    """Bytes of the kernels, or of the matrix, that `p` becomes."""
    pre, post, weight = graph.population(p.pre), graph.population(p.post), graph.arrays[p.weight]
    if not planes:
        return 0 if stays_convolution(graph, p) else BYTES * pre.size * post.size
    if not isinstance(p.operator, ir.ConvTranspose):
        return BYTES * weight.size
    before, behind, _ = margins(p.operator, weight.shape[2], post.shape[1])
    entries = math.prod(weight.shape[:2]) * (weight.shape[2] + before + behind) ** 2
    if p.operator.stride > 1:
        entries += (pre.shape[0] * (pre.shape[1] + 1)) ** 2
    return BYTES * entries
