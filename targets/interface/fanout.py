"""Fan-out of each neuron, and the check that outputs are finite."""

from __future__ import annotations

import numpy as np

from compilers.ir.graph import Graph, Population
from compilers.ir.operators import fanout
from ep_neuro.errors import RunError


def synapses_of(graph: Graph, population: Population) -> np.ndarray:
    """Synapses that a message of each neuron of `population` meets, int64, (size,)."""
    counts = np.zeros(population.size, np.int64)
    for p in graph.out_of(population.name):
        weight, post = graph.arrays[p.weight].shape, graph.population(p.post).shape
        counts += fanout(p.operator, weight, population.shape, post).ravel()
    return counts


def require_finite(shown: np.ndarray, phase: str, steps: int) -> None:
    """Raise `RunError` if the output `shown` at the end of a phase is not finite."""
    if not np.isfinite(shown).all():
        raise RunError(
            f"phase '{phase}'",
            f"the output is not finite after {steps} steps",
            "lower the leak or the learning rate, or bound the populations",
        )
