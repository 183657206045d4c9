"""What the builder of a batched network gives to processes that learn; runs in the supervisor."""

from __future__ import annotations

from functools import partial
from typing import Any

from compilers.ir.graph import Population, Projection
from compilers.learning.plastic_weights import PlasticWeights, fold_drive, lifted
from targets.lava.learning.process_weights import PlasticBias, ProcessWeights
from targets.lava.runtime.layout import NetworkLayout
from targets.lava.runtime.shared_memory import SharedArrays


class BatchedLearning:
    """The plasticity records of a plan's graph, each for the process that will hold it.

    Attributes
    ----------
    stepwise : bool
        Whether the rules run at every step.
    """

    def __init__(self, plan: NetworkLayout, board: SharedArrays) -> None:
        graph = self._graph = plan.graph
        self._held = {
            record.weight: ProcessWeights(graph, i, board)
            for i, record in enumerate(graph.plasticity)
        }
        self._fixed = PlasticWeights(graph).fixed_biases() if graph.plasticity else {}
        self._lifted = [p for p in lifted(graph) if p.weight in self._held]
        self.stepwise = any(r.rule.when == "step" for r in graph.plasticity)

    def synapses(self, p: Projection) -> dict[str, Any]:
        """Parameters of the process of `p` and of its adjoint, if they share a process."""
        folds = {}
        for q in self._lifted:
            if q.weight == p.weight:
                folds["f_post" if q.post == p.post else "f_pre"] = partial(
                    fold_drive, self._graph, q
                )
        plastic = self._held.get(p.weight)
        return {"plastic": plastic, "folds": folds, "stepwise": self.stepwise}

    def bias(self, population: Population) -> PlasticBias | None:
        """How the bias of `population` changes; None if it never does."""
        if population.name not in self._fixed:
            return None
        own = None if population.bias is None else self._held.get(population.bias)
        folded = any(q.post == population.name for q in self._lifted)
        return PlasticBias(population, self._fixed[population.name], own, folded)
