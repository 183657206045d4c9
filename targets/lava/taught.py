"""What the builder of a faithful network gives to processes that learn; runs in the supervisor."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.learning.constants import GradedSpikeCfg
from lava.magma.core.learning.learning_rule import Loihi3FLearningRule
from lava.proc.dense.process import LearningDense
from lava.utils.weightutils import SignMode

from compilers.ir import Population, Projection
from compilers.synapses import Synapses, trace_offset
from targets.lava.board import Board
from targets.lava.copies import Copy, bare_biases, copies, copy_field
from targets.lava.plan import WRITES, Plan, tally_field
from targets.lava.processes.layer import Afferent

TAG, WEIGHT = "2^1*x0*x1*y1*y2 - u0*t*y3", "u0*t*y3"
"""The rule: x1 is half the payload of the graded spike, y2 and y3 are the gates."""


def learning_rule() -> Loihi3FLearningRule:
    """Lava's rule, whose traces hold what they are given: they are new at every step."""
    rule = Loihi3FLearningRule(dt=TAG, dw=WEIGHT, x1_tau=np.inf, x2_tau=np.inf, t_epoch=1)
    rule.y1_tau = rule.y2_tau = rule.y3_tau = np.inf
    return rule


class Taught:
    """The copies of the plastic weights of a plan's graph; empty if the plan does not teach.

    Attributes
    ----------
    biases : dict of ndarray or None
        Biases that neurons hold themselves, by population; None: those of the graph.
    """

    def __init__(self, plan: Plan, board: Board) -> None:
        self.graph, self.board = plan.graph, board
        self.copies: dict[str, Copy] = copies(plan.graph) if plan.teaches else {}
        self.biases = bare_biases(plan.graph) if plan.teaches else None

    def neurons(self, population: Population) -> dict[str, Any]:
        """Parameters of a population, or of the input."""
        lift = trace_offset(population, False) if self.copies else 0.0
        return {"lift": lift, "traced": bool(self.copies)}

    def afferent(self, p: Projection, inputs: int, adds_up: bool) -> Afferent | None:
        """The process of `p` if it learns."""
        if p.name not in self.copies:
            return None
        return self._afferent(self.copies[p.name], inputs, adds_up)

    def bias(self, population: Population) -> Afferent | None:
        """The process of the bias of `population` if it learns."""
        if population.bias not in self.copies:
            return None
        return self._afferent(self.copies[population.bias], 1, False)

    def _afferent(self, copy: Copy, inputs: int, adds_up: bool) -> Afferent:
        s = Synapses(self.graph, copy.index)
        tally = None if copy.backward else self.board[tally_field(s.record.weight)]
        matrix = self.board[copy_field(copy.name)]
        params = {
            "name": copy.name,
            "weights": matrix.copy(),
            "num_message_bits": 16,
            "learning_rule": learning_rule(),
            "graded_spike_cfg": GradedSpikeCfg.OVERWRITE,
            "sign_mode": SignMode.MIXED,
            "copy": matrix,
            "writes": self.board[WRITES],
            "tally": tally,
            "unit": s.unit / copy.scale,
        }
        gate = {
            "name": f"gate of {copy.name}",
            "board": self.board,
            "factor": copy.factor(self.graph),
            "outputs": copy.shape[0],
        }
        return Afferent(LearningDense, params, inputs, adds_up, gate)
