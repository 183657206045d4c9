"""What the processes of one plasticity record share: weight and tag on the board, and the rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compilers.ir.graph import Graph, Population
from compilers.learning.plastic_weights import spread
from compilers.learning.synapses import Synapses, Traces
from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays


class ProcessWeights:
    """The synapses of record number `index` of `graph`, which one process changes.

    Weight and tag live on the board, where the session reads them and puts others while the
    processes wait; nobody else writes to them.
    """

    def __init__(self, graph: Graph, index: int, board: SharedArrays) -> None:
        self.synapses = Synapses(graph, index)
        name = self.synapses.record.weight
        self.board = board
        self._weight, self._tag = board["weight", name], board["tag", name]
        self._tally = board["tally", name]

    @property
    def values(self) -> np.ndarray:
        """The present weight, or one bias for each element of the population's first axis."""
        return self._weight.copy()

    def operand(self) -> np.ndarray:
        """The present weight as operators take it."""
        return self.synapses.operand(self.values)

    def accumulate(self, order: PhaseCommand, now: Traces, before: Traces) -> None:
        """Evaluate the tag for the samples that teach; traces are (batch, *shape)."""
        first = slice(0, order.samples)
        now = {name: trace[first] for name, trace in now.items()}
        before = {name: trace[first] for name, trace in before.items()}
        tag = self.synapses.accumulate(self._tag.copy(), self.values, order.sign, now, before)
        self._tag[...] = tag

    def commit(self, order: PhaseCommand, number: int) -> None:
        """Make commit `number` (from 0)."""
        scale = self.board.rate_scale
        change = self.synapses.commit(self.values, self._tag.copy(), order.samples, scale, number)
        self._weight[...], self._tag[...] = change.weight, change.tag
        self._tally += (change.total, change.clipped)


@dataclass(frozen=True)
class PlasticBias:
    """A bias some part of which changes.

    Attributes
    ----------
    population : Population
    fixed : ndarray, full shape
        The part that no learning changes.
    own : ProcessWeights or None
        The part that learns.
    folded : bool
        Whether a plastic projection adds a part.
    """

    population: Population
    fixed: np.ndarray
    own: ProcessWeights | None
    folded: bool

    def present(self) -> np.ndarray:
        """The bias without the folded part, full shape."""
        if self.own is None:
            return self.fixed
        return self.fixed + spread(self.own.values, self.population)
