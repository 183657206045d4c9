"""What a graph takes: neurons, synapses, bytes of weights; cores where they are mapped."""

from __future__ import annotations

from typing import Any

from compilers.ir import Graph
from compilers.operators import fanout

FLOAT_BITS = 32
"""Bits of a weight that is not quantised."""


def resources(graph: Graph) -> dict[str, Any]:
    """Resource report of `graph`.

    Returns
    -------
    dict
        ``cores`` (None before a target maps the graph), ``neurons``, ``synapses`` (connections of
        every directed projection, unshared) and ``weight_bytes`` (each tied weight once).
    """
    shapes = {p.name: p.shape for p in graph.populations}
    synapses = sum(
        int(fanout(p.operator, graph.arrays[p.weight].shape, shapes[p.pre], shapes[p.post]).sum())
        for p in graph.projections
    )
    bits = int(graph.provenance.get("bits", FLOAT_BITS))
    weights = sum(graph.arrays[name].size for name in graph.ties)
    return {
        "cores": None,
        "neurons": sum(p.size for p in graph.neurons),
        "synapses": synapses,
        "weight_bytes": -(-weights * bits // 8),
    }
