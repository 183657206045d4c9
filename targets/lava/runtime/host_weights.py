"""What a graph has learnt, on the host: between a session and the processes that learn."""

from __future__ import annotations

from compilers.ir.graph import Graph
from compilers.learning.plastic_weights import PlasticWeights
from targets.lava.connections.replicas import copies, unlearnable
from targets.lava.runtime.layout import WRITES
from targets.lava.runtime.shared_memory import SharedArrays


class HostWeights:
    """The plastic part of a graph, between the session and the processes that learn.

    While processes run, the values in shared memory are the present ones; `read` fetches them. A
    network that fails loses what it has learnt since.

    Attributes
    ----------
    learner : PlasticWeights
        The values as of the last `read`.
    ahead : int
        Commits that the processes have made since.

    Raises
    ------
    GraphError
        If nothing in the graph learns.
    """

    def __init__(self, graph: Graph) -> None:
        self.learner = PlasticWeights(graph)
        self.ahead = 0
        self._size = sum(weight.size for weight in self.learner.weights.values())
        found = () if unlearnable(graph) else copies(graph).values()
        self._copies = [(copy, graph.plasticity[copy.index].weight) for copy in found]

    @property
    def commits(self) -> int:
        """Commits so far."""
        return self.learner.commits + self.ahead

    def write(self, shared: SharedArrays) -> None:
        """Copy weights and tags to `shared`; only between runs."""
        self.ahead = 0
        for name, weight in self.learner.weights.items():
            shared["tally", name][:] = 0
            if ("weight", name) in shared:
                shared["weight", name][...] = weight
                shared["tag", name][...] = self.learner.tags[name]
        if WRITES in shared:
            for copy, name in self._copies:
                shared["copy", copy.name][...] = copy.matrix(self.learner.weights[name])
            shared[WRITES][0] += 1

    def read(self, shared: SharedArrays) -> None:
        """Copy back from `shared` what the processes have learnt; only between runs."""
        learner = self.learner
        for name in learner.weights:
            if ("weight", name) in shared:
                learner.weights[name] = shared["weight", name].copy()
                learner.tags[name] = shared["tag", name].copy()
            total, clipped = shared["tally", name]
            learner.changed += float(total) / self._size
            learner.clipped += int(clipped)
            shared["tally", name][:] = 0
        if WRITES in shared and self.ahead:
            for copy, name in self._copies:
                if not copy.backward:
                    held = learner.weights[name]
                    found = copy.weight(shared["copy", copy.name], held.shape)
                    learner.weights[name] = found.astype(held.dtype)
        learner.commits += self.ahead
        self.ahead = 0
