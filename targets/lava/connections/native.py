"""Which projections a stock process of Lava computes right, and the matrices that it takes.

Dense and Sparse take 8-bit weights of mixed sign with the lowest bit dropped, and one power of two;
their sums are 32-bit integers, and a negative exponent cuts bits off. So a weight ``q`` goes in as
``2 q`` with one less in the exponent, and what does not fit gets a process of our own. Conv ignores
its exponent in fixed point and is slower than the sparse matrix of the same convolution.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from compilers.hardware.word_lengths import largest_sum
from compilers.ir import graph as ir
from compilers.ir.operators import matrix as dense_matrix

WEIGHT_LIMIT = 127
"""Largest magnitude of an 8-bit weight of mixed sign."""

SUM_LIMIT = (1 << 31) - 1
"""Largest current: Lava's fixed-point models hold it in 32 bits."""

MESSAGE_BITS = 16
"""Bits of a graded message where the graph does not say."""

OWN, DENSE, SPARSE = "Synapses", "Dense", "Sparse"
"""Names of the processes that a projection can become."""


def kind(graph: ir.Graph, p: ir.Projection) -> str:
    """Name of the process that computes `p`."""
    if graph.quantised and misfit(graph, p):
        return OWN
    return DENSE if isinstance(p.operator, ir.Dense | ir.DenseTranspose) else SPARSE


def misfit(graph: ir.Graph, p: ir.Projection) -> str | None:
    """Why a stock fixed-point process would compute `p` wrong; None if it would not."""
    if p.rescale is None or graph.population(p.pre).message is None:
        return "it has no integer gain"
    if p.exponent is not None:
        return "its channels have exponents of their own"
    if np.abs(graph.arrays[p.weight]).max() > WEIGHT_LIMIT:
        return f"its weights exceed {WEIGHT_LIMIT}"
    if p.rescale.multiplier != 1:
        return "its gain is no power of two"
    if p.rescale.shift < 0:
        return "its gain would cut bits off instead of rounding"
    largest = largest_sum(graph, p, largest_message(graph.population(p.pre)))
    if largest << max(1, p.rescale.shift) > SUM_LIMIT:
        return "its sums could exceed 32 bits"
    return None


def largest_message(population: ir.Population) -> int:
    """Largest magnitude of an integer message, from the box or else from the format."""
    assert population.message is not None
    limit = -population.message.range[0]
    if isinstance(population.dynamics, ir.Spiking):
        return 1
    if population.box is None or isinstance(population.dynamics, ir.Source):
        return limit
    low, high = (round(edge * population.message.one) for edge in population.box)
    if isinstance(population.dynamics, ir.SigmaDelta):  # changes lead from 0 or an edge to an edge
        low, high = min(low, 0), max(high, 0)
        return min(limit, high - low)
    return min(limit, max(abs(low), abs(high)))


def message_bits(population: ir.Population) -> int:
    """What Lava calls the message bits; above 0 a spike is weighed like a graded one.

    With 0 it would be taken as binary: the same current, for the price of a slice of the matrix.
    """
    if isinstance(population.dynamics, ir.Spiking):
        return 1
    return MESSAGE_BITS if population.message is None else population.message.bits


def parameters(graph: ir.Graph, p: ir.Projection) -> dict[str, Any]:
    """What the stock process of `p` is made with; the matrix is dense, or CSR for convolutions."""
    weight = graph.arrays[p.weight]
    pre, post = graph.population(p.pre), graph.population(p.post)
    values: np.ndarray
    if p.rescale is not None:
        # Even numbers, because the lowest bit of mixed-sign weights is dropped.
        values, exponent = 2 * weight.astype(np.int32), p.rescale.shift - 1
    else:
        values, exponent = p.scale * weight.astype(np.float64), 0
    return {
        "weights": matrix(p, values, pre.shape, post.shape),
        "weight_exp": exponent,
        "num_weight_bits": 8,
        "num_message_bits": message_bits(pre),
    }


def matrix(
    p: ir.Projection, weight: np.ndarray, pre: tuple[int, ...], post: tuple[int, ...]
) -> np.ndarray | Any:
    """Matrix (post neurons, pre neurons) of the operator of `p`; CSR for convolutions."""
    match p.operator:
        case ir.Conv(stride, padding):
            return conv_matrix(weight, pre, post, stride, padding)
        case ir.ConvTranspose(stride, padding):
            return conv_matrix(weight, post, pre, stride, padding).T.tocsr()
        case _:
            return np.ascontiguousarray(dense_matrix(p.operator, weight, math.prod(post)))


def conv_matrix(
    weight: np.ndarray, pre: tuple[int, ...], post: tuple[int, ...], stride: int, padding: int
) -> Any:
    """CSR matrix of a convolution of (C, H, W) populations; taps off the border are left out."""
    from scipy.sparse import csr_matrix

    channels, rows, columns = pre
    places = np.full((channels, rows + 2 * padding, columns + 2 * padding), -1, np.int64)
    inside = places[:, padding : padding + rows, padding : padding + columns]
    inside[:] = np.arange(inside.size).reshape(pre)
    windows = sliding_window_view(places, weight.shape[2:], axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(1, 2, 0, 3, 4)
    sources = windows.reshape(1, post[1] * post[2], weight[0].size)
    taps = weight.reshape(post[0], 1, weight[0].size)
    sources, taps = np.broadcast_arrays(sources, taps)
    targets = np.arange(post[0] * post[1] * post[2]).reshape(post[0], -1, 1)
    targets = np.broadcast_to(targets, taps.shape)
    on = sources >= 0
    shape = (int(np.prod(post)), int(np.prod(pre)))
    return csr_matrix((taps[on], (targets[on], sources[on])), shape)
