"""Synapses, one by one or by neuron, and the check that outputs are finite."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from compilers.ir.graph import Graph, Population, Projection
from compilers.ir.operators import Conv, ConvTranspose, DenseTranspose, fanout, nonzero_fanout
from ep_neuro.errors import RunError

Sites = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Flat indices of the pre and of the post neurons of some synapses, and their weights."""


def synapses_of(graph: Graph, population: Population) -> np.ndarray:
    """Synapses that a message of each neuron of `population` meets, int64, (size,)."""
    counts = np.zeros(population.size, np.int64)
    for p in graph.out_of(population.name):
        weight, post = graph.arrays[p.weight].shape, graph.population(p.post).shape
        counts += fanout(p.operator, weight, population.shape, post).ravel()
    return counts


def sites(graph: Graph, p: Projection) -> Iterator[Sites]:
    """The synapses of `p`, by channel of the forward weight; weights without the scale of `p`."""
    pre, post = graph.population(p.pre).shape, graph.population(p.post).shape
    weight = graph.arrays[p.weight].astype(np.float64)
    back = isinstance(p.operator, DenseTranspose | ConvTranspose)
    pre, post = (post, pre) if back else (pre, post)
    stride, padding = 1, 0
    if isinstance(p.operator, Conv | ConvTranspose):
        stride, padding = p.operator.stride, p.operator.padding
    else:
        weight = weight[:, :, None, None]
        pre, post = (math.prod(pre), 1, 1), (math.prod(post), 1, 1)
    edge = ((0, 0), (padding, padding), (padding, padding))
    numbered = np.pad(np.arange(math.prod(pre)).reshape(pre), edge, constant_values=-1)
    seen = sliding_window_view(numbered, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    early = seen.transpose(1, 2, 0, 3, 4)  # (rows, columns, channels, kernel, kernel)
    inside = early >= 0
    numbers = np.arange(math.prod(post)).reshape(post)
    for channel, kernel in zip(numbers, weight, strict=True):
        late = np.broadcast_to(channel[:, :, None, None, None], early.shape)[inside]
        values = np.broadcast_to(kernel, early.shape)[inside]
        yield (late, early[inside], values) if back else (early[inside], late, values)


def nonzero_synapses_of(graph: Graph, population: Population) -> np.ndarray | None:
    """`synapses_of` without those whose weight is zero; None if there are no such synapses."""
    ways = [(p, graph.arrays[p.weight]) for p in graph.out_of(population.name)]
    if all(weight.all() for _, weight in ways):
        return None
    counts = np.zeros(population.size, np.int64)
    for p, weight in ways:
        shapes = population.shape, graph.population(p.post).shape
        counts += nonzero_fanout(p.operator, weight, *shapes).ravel()
    return counts


def require_finite(shown: np.ndarray, phase: str, steps: int) -> None:
    """Raise `RunError` if the output `shown` at the end of a phase is not finite."""
    if not np.isfinite(shown).all():
        raise RunError(
            f"phase '{phase}'",
            f"the output is not finite after {steps} steps",
            "lower the leak or the learning rate, or bound the populations",
        )
