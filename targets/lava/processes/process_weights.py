"""What the processes of one plasticity record share: weight, tag and rule."""

from __future__ import annotations

import numpy as np

from compilers.ir.graph import Graph
from compilers.learning.synapses import Synapses
from compilers.learning.traces import Traces
from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays


class ProcessWeights:
    """The synapses of record number `index` of `graph`, which one process changes.

    Weight and tag live in shared memory, where the session reads them and puts others while the
    processes wait; nobody else writes to them.
    """

    def __init__(self, graph: Graph, index: int, shared: SharedArrays) -> None:
        self.synapses = Synapses(graph, index)
        name = self.synapses.record.weight
        self._weight, self._tag = shared["weight", name], shared["tag", name]
        self._tally = shared["tally", name]

    @property
    def values(self) -> np.ndarray:
        """The present weight, or one bias for each element of the population's first axis."""
        return self._weight.copy()

    def operand(self) -> np.ndarray:
        """The present weight as operators take it."""
        return self.synapses.operand(self.values)

    def accumulate(self, command: PhaseCommand, now: Traces, before: Traces) -> None:
        """Evaluate the tag; traces are (samples, *shape)."""
        tag = self.synapses.accumulate(self._tag.copy(), self.values, command.sign, now, before)
        self._tag[...] = tag

    def commit(self, command: PhaseCommand, after: int = 0) -> None:
        """Change the weight by the tag, `after` so many commits of this phase."""
        number, scale = command.commits + after, command.rate_scale
        change = self.synapses.commit(self.values, self._tag.copy(), command.samples, scale, number)
        self._weight[...], self._tag[...] = change.weight, change.tag
        self._tally += (change.total, change.clipped)
