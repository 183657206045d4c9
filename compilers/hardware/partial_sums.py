"""How a dense projection is divided where a core has too few input axons for one neuron of it.

A neuron lies on one core, and each neuron that it hears takes an input axon there. Neurons of
partial sums, on cores of their own, each hear a share, and one axon leads on from each of them.
A partial sum is exact if its state holds the largest that its share can come to, and its messages
every change of it.
"""

from __future__ import annotations

import math

import numpy as np

from compilers.hardware.limits import HardwareLimits
from compilers.ir import graph as ir
from compilers.ir.operators import matrix, shift_channels


def division(
    graph: ir.Graph, p: ir.Projection, hardware: HardwareLimits
) -> tuple[int, ir.FixedPoint | None] | str:
    """Neurons in a share of `p`, as many as may be, and the format of the sums; or why not.

    Sums are in units of ``w * q``, before the gain of the projection, so that they have no
    fractional bits; in floating point they have no format.
    """
    pre, limit = graph.population(p.pre), hardware.limit("axons_in_per_core")
    if not isinstance(p.operator, ir.Dense | ir.DenseTranspose):
        return f"only dense projections are split over cores, and '{p.name}' is none"
    if isinstance(pre.dynamics, ir.Source):
        return f"what the host sends is not split over cores, as '{p.name}' would be"
    least = max(1, math.ceil(pre.size / limit))
    if least > limit:
        return f"'{p.name}' takes {least:,} shares, and their sums as many input axons"
    if not graph.quantised:
        return math.ceil(pre.size / least), None
    state, message = hardware.limit("state_bits"), hardware.limit("message_bits")
    bits = min(state, message - 1)  # A change can be twice as large as what changes.
    terms = _largest_terms(graph, p, pre)
    for shares in range(least, int(min(limit, pre.size)) + 1):
        share = math.ceil(pre.size / shares)
        largest = int(np.add.reduceat(terms, range(0, pre.size, share), axis=1).max())
        if largest.bit_length() < bits:
            return share, ir.FixedPoint(largest.bit_length() + 1, 0)
    word = f"messages of {message:g} bits" if message <= state else f"states of {state:g} bits"
    return f"{word} hold no partial sums of '{p.name}'"


def _largest_terms(graph: ir.Graph, p: ir.Projection, pre: ir.Population) -> np.ndarray:
    """Largest size of each term of the sums, int64 (post neurons, pre neurons)."""
    exponent = None if p.exponent is None else graph.arrays[p.exponent]
    weight = np.abs(shift_channels(graph.arrays[p.weight], exponent))
    assert pre.message is not None
    largest = -pre.message.range[0]
    if pre.box is not None:
        largest = min(largest, max(abs(round(edge * pre.message.one)) for edge in pre.box))
    if isinstance(pre.dynamics, ir.Spiking):
        largest = 1
    return matrix(p.operator, weight * largest, graph.population(p.post).size)
