"""units: what learning takes from the heights of the boxes, so that one rate serves any network.

A population lives in units ``u``, the height of its box; the input in its real unit, and the
output, which is drawn to targets of 0 and 1, in half of one. In units a weight is
``W u_pre / u_post`` and a bias ``b / u_post``.
"""

from __future__ import annotations

import math

from compilers.ir.graph import Graph

TAG_FRAC = 16
"""Fractional bits of a tag, in heights of both boxes: two messages of 8 bits have as many."""


def unit_power(graph: Graph, name: str) -> int:
    """Power of two by which the rate of the weight or bias `name` of `graph` counts, in units.

    Gradient descent on weights in units learns alike however units shrink. It moves ``W`` by
    ``(u_post / u_pre)**2``, and ``b`` by ``u_post**2``, times their own gradient.
    """
    if name in graph.ties:
        tie = graph.tie(name)
        return _power(graph, tie.pre, tie.post)
    (biased,) = (p.name for p in graph.neurons if p.bias == name)
    return _power(graph, None, biased)


def _power(graph: Graph, pre: str | None, post: str) -> int:
    heights = {p.name: abs(p.readout.gain) for p in graph.neurons} | {graph.output: 0.5}
    heights |= {p.name: 1.0 for p in graph.sources}
    return round(2 * math.log2(heights[post] / (heights[pre] if pre else 1.0)))


def faintness(graph: Graph) -> dict[str, int]:
    """Bits by which the response to a nudge is fainter than that of the output, by population.

    In units the way back of a coupling is weaker than the way there by ``(u_post / u_pre)**2``; of
    several ways to a population the least faint counts, and none is taken for louder than 0.
    """
    found = {graph.output: 0}
    ways = [tie for tie in map(graph.tie, graph.ties) if tie.backward]
    for _ in graph.neurons:
        for tie in ways:
            if tie.post in found:
                bits = max(0, found[tie.post] - _power(graph, tie.pre, tie.post))
                found[tie.pre] = min(bits, found.get(tie.pre, bits))
    return found


def coarseness(graph: Graph, name: str) -> int:
    """Bits by which an integer tag may be coarser than a product of its traces.

    It keeps `TAG_FRAC` fractional bits, in heights, beside those by which the response is fainter,
    so that tags of 32 bits hold what messages of many bits teach.
    """
    ends = [p for p in graph.populations if p.bias == name]
    if name in graph.ties:
        ends = [graph.population(end) for end in (graph.tie(name).pre, graph.tie(name).post)]
    # Traces of spikes, whose messages have no fractional bits, are never as fine.
    bits = sum(p.message.frac for p in ends if p.message) + ends[-1].louder
    return max(0, bits - TAG_FRAC - faintness(graph).get(ends[-1].name, 0))
