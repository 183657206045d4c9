"""Plastic weights and tags of a session, copied to shared memory and back between runs."""

from __future__ import annotations

from compilers.ir.graph import Graph
from compilers.learning.plastic_weights import PlasticWeights
from targets.lava.connections.replicas import WeightReplica, copies, unlearnable
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

    Raises
    ------
    GraphError
        If nothing in the graph learns.
    """

    def __init__(self, graph: Graph) -> None:
        self.learner = PlasticWeights(graph)
        self._size = sum(weight.size for weight in self.learner.weights.values())
        self._ahead = 0
        self._copies = () if unlearnable(graph) else tuple(copies(graph).values())

    @property
    def commits(self) -> int:
        """Commits so far, those on the board included."""
        return self.learner.commits + self._ahead

    def write(self, board: SharedArrays) -> None:
        """Copy weights and tags to `board`; only between runs."""
        self._ahead = 0
        for name in self.learner.weights:
            board["tally", name][:] = 0
            if ("weight", name) in board:
                board["weight", name][...] = self.learner.weights[name]
                board["tag", name][...] = self.learner.tags[name]
        if WRITES in board:
            for copy in self._copies:
                weight = self.learner.weights[self._name(copy)]
                board["copy", copy.name][...] = copy.matrix(weight)
            board[WRITES][0] += 1

    def note(self, commits: int) -> None:
        """The processes have made so many commits more."""
        self._ahead += commits

    def read(self, board: SharedArrays) -> None:
        """Copy back from `board` what the processes have learnt; only between runs."""
        learner = self.learner
        for name in learner.weights:
            if ("weight", name) in board:
                learner.weights[name] = board["weight", name].copy()
                learner.tags[name] = board["tag", name].copy()
            total, clipped = board["tally", name]
            learner.changed += float(total) / self._size
            learner.clipped += int(clipped)
            board["tally", name][:] = 0
        if WRITES in board and self._ahead:
            for copy in self._copies:
                if not copy.backward:
                    held = learner.weights[self._name(copy)]
                    found = copy.weight(board["copy", copy.name], held.shape)
                    learner.weights[self._name(copy)] = found.astype(held.dtype)
        learner.commits += self._ahead
        self._ahead = 0

    def _name(self, copy: WeightReplica) -> str:
        return self.learner.graph.plasticity[copy.index].weight
