"""What the builder of a faithful network gives to processes that learn; runs in the supervisor."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.learning.constants import GradedSpikeCfg
from lava.magma.core.learning.learning_rule import Loihi3FLearningRule
from lava.proc.dense.process import LearningDense
from lava.utils.weightutils import SignMode

from compilers.ir.graph import Population, Projection
from compilers.learning.synapses import Synapses, trace_offset
from targets.lava.connections.loihi_rule import ENDLESS, rate_of, rule_of
from targets.lava.connections.native import message_bits
from targets.lava.connections.replicas import WeightReplica, bare_biases, copies
from targets.lava.learning.process_weights import PlasticBias, ProcessWeights
from targets.lava.processes.faithful.hopfield_layer import Afferent
from targets.lava.runtime.layout import WRITES, NetworkLayout
from targets.lava.runtime.shared_memory import SharedArrays

TAG, WEIGHT = "2^1*x0*x1*y1*y2 - u0*t*y3", "u0*t*y3"
"""The rule: x1 is half the payload of the graded spike, y2 and y3 are the gates."""


def learning_rule(dt: str = TAG, dw: str = WEIGHT, endless: float = np.inf) -> Loihi3FLearningRule:
    """Lava's rule, whose traces hold what they are given: `endless` is how long, in steps."""
    rule = Loihi3FLearningRule(dt=dt, dw=dw, x1_tau=endless, x2_tau=endless, t_epoch=1)
    rule.y1_tau = rule.y2_tau = rule.y3_tau = endless
    return rule


class FaithfulLearning:
    """The copies of the plastic weights of a plan's graph; empty if the plan does not teach.

    Attributes
    ----------
    biases : dict of ndarray or None
        Biases that neurons hold themselves, by population; None: those of the graph.
    """

    def __init__(self, plan: NetworkLayout, board: SharedArrays) -> None:
        self.graph, self.board = plan.graph, board
        self.copies: dict[str, WeightReplica] = copies(plan.graph) if plan.teaches else {}
        self.biases = bare_biases(plan.graph) if plan.teaches else None
        self._plastic = self._plastic_biases() if self.copies and self.graph.quantised else {}

    def neurons(self, population: Population) -> dict[str, Any]:
        """Parameters of a population, or of the input."""
        lift = trace_offset(population, self.graph.quantised) if self.copies else 0
        plastic = self._plastic.get(population.bias or "")
        return {"lift": lift, "traced": bool(self.copies), "plastic": plastic}

    def _plastic_biases(self) -> dict[str, PlasticBias]:
        """Biases that learn in the neurons, by id: those of integers."""
        assert self.biases is not None
        found = {}
        for p in self.graph.neurons:
            for i, record in enumerate(self.graph.plasticity):
                if record.weight == p.bias:
                    fixed = self.biases[p.name].astype(np.int64)
                    own = ProcessWeights(self.graph, i, self.board)
                    found[record.weight] = PlasticBias(p, fixed, own, folded=False)
        return found

    def afferent(self, p: Projection, inputs: int, adds_up: bool) -> Afferent | None:
        """The process of `p` if it learns."""
        if p.name not in self.copies:
            return None
        if self.graph.quantised:
            return self._fixed(p, inputs, adds_up)
        return self._afferent(self.copies[p.name], inputs, adds_up)

    def bias(self, population: Population) -> Afferent | None:
        """The process of the bias of `population` if it learns."""
        if population.bias not in self.copies:
            return None
        return self._afferent(self.copies[population.bias], 1, False)

    def _afferent(self, copy: WeightReplica, inputs: int, adds_up: bool) -> Afferent:
        params = {**self._params(copy), "num_message_bits": 16, "learning_rule": learning_rule()}
        gate = {**self._gate(copy), "rate": copy.factor(self.graph)}
        return Afferent(LearningDense, params, inputs, adds_up, gate)

    def _fixed(self, p: Projection, inputs: int, adds_up: bool) -> Afferent:
        """The process of `p` in integers: as a stock one, with Lava's rule of 7 bits."""
        copy = self.copies[p.name]
        sender, rate = self.graph.population(p.pre), rate_of(self.graph, copy.index)
        assert p.rescale is not None
        params = {
            **self._params(copy),
            "weight_exp": p.rescale.shift,
            "num_message_bits": message_bits(sender),
            "learning_rule": learning_rule(*rule_of(sender, rate), endless=ENDLESS),
            "limit": (1 << ((self.graph.plasticity[copy.index].bits or 8) - 1)) - 1,
            "seed": (self.graph.plasticity[copy.index].seed, copy.index),
            "board": self.board,
        }
        return Afferent(LearningDense, params, inputs, adds_up, {**self._gate(copy), "rate": rate})

    def _params(self, copy: WeightReplica) -> dict[str, Any]:
        s = Synapses(self.graph, copy.index)
        matrix = self.board["copy", copy.name]
        return {
            "name": copy.name,
            "weights": matrix.copy(),
            "graded_spike_cfg": GradedSpikeCfg.OVERWRITE,
            "sign_mode": SignMode.MIXED,
            "copy": matrix,
            "writes": self.board[WRITES],
            "tally": None if copy.backward else self.board["tally", s.record.weight],
            "unit": s.unit / copy.scale,
        }

    def _gate(self, copy: WeightReplica) -> dict[str, Any]:
        return {"name": f"gate of {copy.name}", "board": self.board, "shape": copy.shape[:1]}
