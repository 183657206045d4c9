"""expand_couplings: each symmetric coupling becomes projections of one tied weight."""

from __future__ import annotations

from compilers.ir.graph import Coupling, Graph, Projection, Source
from compilers.ir.operators import adjoint


def expand_couplings(graph: Graph) -> Graph:
    """Turn every coupling into a forward and a feedback projection that share its weight.

    A clamped source takes no feedback, so a coupling that starts there has a forward half only.
    """
    halves: list[Projection] = []
    for c in graph.couplings:
        halves.append(Projection(c.pre, c.post, c.operator, c.weight, scale=_gain(graph, c)))
        if not isinstance(graph.population(c.pre).dynamics, Source):
            halves.append(Projection(c.post, c.pre, adjoint(c.operator), c.weight))
    return graph.with_arrays(couplings=(), projections=(*graph.projections, *halves))


def _gain(graph: Graph, c: Coupling) -> float:
    """Weights are in real units, and messages of a source raw."""
    return graph.population(c.pre).readout.gain / graph.population(c.post).readout.gain
