"""How wide the integers of a projection get: what a target needs in order to compute exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compilers.hardware.limits import HardwareLimits, Quantity, Violation
from compilers.ir.graph import Graph, Projection
from compilers.ir.operators import receiving_axis, shift_channels
from ep_neuro.errors import TargetError

HOST_WORDS: Mapping[str, Quantity] = {
    "accumulator": Quantity(53, "bits", "IEEE 754-2008, binary64 significand"),
    "product": Quantity(63, "bits", "magnitude of a 64-bit integer"),
}
"""Word lengths of a host that sums integers in float64 and rescales them in 64-bit integers."""


def integer_bits(graph: Graph, p: Projection) -> tuple[int, int]:
    """Bits that the sums of projection `p` can need, before and after the multiplier.

    The bound is the largest l1 norm of a receiving neuron's weights times the largest message.

    Raises
    ------
    TargetError
        If the graph is not quantised throughout.
    """
    source = graph.population(p.pre)
    if source.message is None or p.rescale is None:
        problem = "it has no integer gain or its source no message format"
        raise TargetError(f"projection '{p.name}'", problem, "run the pass 'quantize'")
    largest = largest_sum(graph, p, -source.message.range[0])
    product = largest * max(1, abs(p.rescale.multiplier)) << max(p.rescale.shift, 0)
    return largest.bit_length(), product.bit_length()


def largest_sum(graph: Graph, p: Projection, message: int) -> int:
    """Largest sum, in magnitude, that `p` can make of messages up to `message`."""
    exponent = None if p.exponent is None else graph.arrays[p.exponent]
    weight = np.abs(shift_channels(graph.arrays[p.weight], exponent)).astype(np.float64)
    receiving = receiving_axis(p.operator)
    norms = weight.sum(axis=tuple(i for i in range(weight.ndim) if i != receiving))
    return int(np.max(norms)) * message


def inexact(graph: Graph, limits: HardwareLimits) -> Sequence[Violation]:
    """Every projection whose integers can leave the words that `limits` names; pure."""
    if not graph.quantised:
        return ()
    found: list[Violation | None] = []
    for p in graph.projections:
        accumulator, product = integer_bits(graph, p)
        remedy = "use fewer bits for weights or messages"
        for limit, bits in (("accumulator", accumulator), ("product", product)):
            subject = f"projection '{p.name}', {limit}"
            found.append(limits.violation(limit, subject, bits, remedy))
    return tuple(v for v in found if v is not None)
