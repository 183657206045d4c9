"""What a graph takes: neurons, synapses, bytes of weights; cores where they are mapped."""

from __future__ import annotations

from typing import Any

from compilers.hardware.placement import chips_used, cores_used, weight_bits
from compilers.ir.graph import Graph
from compilers.ir.operators import fanout

CROSSBAR = ("tiles", "cells")
"""Notes of a target that maps weights to crossbars, in the graph's provenance."""


def resources(graph: Graph) -> dict[str, Any]:
    """Resource report of `graph`.

    Returns
    -------
    dict
        ``cores`` and ``chips`` (None before a target maps the graph), ``neurons``, ``synapses``
        (connections of every directed projection, unshared) and ``weight_bytes`` (each tied
        weight once); where sums are split over cores, ``partial_sums``, neurons and shares by
        projection; ``tiles`` and ``cells`` where a target has mapped it to crossbars.
    """
    shapes = {p.name: p.shape for p in graph.populations}
    synapses = sum(
        int(fanout(p.operator, graph.arrays[p.weight].shape, shapes[p.pre], shapes[p.post]).sum())
        for p in graph.projections
    )
    bits = weight_bits(graph)
    weights = sum(graph.arrays[name].size for name in graph.ties)
    return {
        "cores": cores_used(graph) if graph.placement else None,
        "chips": chips_used(graph) if graph.placement else None,
        "neurons": sum(p.size for p in graph.neurons),
        "synapses": synapses,
        "weight_bytes": -(-weights * bits // 8),
        **({"partial_sums": sums} if (sums := partial_sums(graph)) else {}),
        **{name: int(n) for name in CROSSBAR if (n := graph.provenance.get(name)) is not None},
    }


def bytes_per_sample(graph: Graph) -> int:
    """Working memory of one sample: what neurons hold between two steps, and sums that arrive."""
    states = sum(p.size for p in graph.populations)
    sums = sum(graph.population(p.post).size for p in graph.projections)
    late = max((p.delay for p in graph.projections), default=1)
    return 8 * ((9 + late) * states + 2 * sums)


def partial_sums(graph: Graph) -> dict[str, dict[str, int]]:
    """Neurons and shares of the partial sums of each projection that is split over cores."""
    found = {}
    for p in graph.split:
        sums = graph.population(p.post)
        (on,) = graph.out_of(p.post)
        found[f"{p.pre}->{on.post}"] = {"neurons": sums.size, "shares": sums.shape[1]}
    return found
