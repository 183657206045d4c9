"""Dense couplings that learn by Lava's own rule: which they are, and the matrices they hold.

The learning engine computes ``dt = 2 x0 x1 y1 y2 - t y3`` and ``dw = t y3`` at every step, with
``x1`` half the payload of a graded spike. At the end of a phase that teaches, each neuron sends its
trace in place of its message (what is in flight then is dropped as the next phase is loaded) and
offers it as ``y1``; ``y2`` is a gate, the sign of the phase times the rate, and ``y3`` commits. So
the tag collects ``sign rate post pre``, in the two copies of a tied weight alike. That holds in
floating point; `targets.lava.connections.loihi_rule` says what becomes of it in integers, where
biases learn in the neurons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compilers.hardware.limits import Violation
from compilers.ir.graph import Dense, Graph
from compilers.ir.integers import nearest
from compilers.ir.plasticity import Rule
from compilers.learning.plastic_weights import fold_drive, lifted
from compilers.learning.synapses import Synapses
from compilers.learning.weight_sharing import shared_plasticity
from targets.lava.connections.loihi_rule import misfits

PRODUCTS = [(1.0, ("post", "pre", "sign")), (1.0, ("tag",))]
"""The terms of a tag that the engine's rule computes."""

COMMITS = [(-1.0, ("decay", "weight")), (1.0, ("rate", "tag"))]
"""The terms of a commit, of which `decay` has to be zero."""


@dataclass(frozen=True)
class WeightReplica:
    """What one process holds of a plastic weight."""

    name: str
    """Name of the projection, or id of the bias, whose matrix has one column."""
    index: int
    """Of the record in the graph."""
    shape: tuple[int, int]
    """Of the matrix, (post, pre)."""
    scale: float = 1.0
    """The matrix in units of the weight."""
    backward: bool = False
    """Whether it is the transposed one."""

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The matrix of `weight`."""
        return self.scale * (weight.T if self.backward else weight.reshape(self.shape))

    def weight(self, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The weight of `matrix`."""
        return ((matrix.T if self.backward else matrix) / self.scale).reshape(shape)

    def factor(self, graph: Graph) -> float:
        """Change of the matrix by one unit of ``post pre`` at a rate scale of 1."""
        s = Synapses(graph, self.index)
        return self.scale * s.record.step * s.tag_unit / s.unit


def copies(graph: Graph) -> dict[str, WeightReplica]:
    """All of them by name, the forward copy of each weight first."""
    found: dict[str, WeightReplica] = {}
    for index, record in enumerate(graph.plasticity):
        s = Synapses(graph, index)
        if s.pre is None and graph.quantised:
            continue
        if s.pre is None:
            found[record.weight] = WeightReplica(record.weight, index, (s.shape[0], 1))
            continue
        tied = [p for p in graph.projections if p.weight == record.weight]
        for p in sorted(tied, key=lambda p: not isinstance(p.operator, Dense)):
            shape = graph.population(p.post).size, graph.population(p.pre).size
            backward = not isinstance(p.operator, Dense)
            scale = 1.0 if graph.quantised else p.scale
            found[p.name] = WeightReplica(p.name, index, shape, scale, backward)
    return found


def bare_biases(graph: Graph) -> dict[str, np.ndarray]:
    """Biases without what learns of them and without folded parts, which come as messages here."""
    learn = {r.weight for r in graph.plasticity}
    biases = {}
    for p in graph.neurons:
        bias = np.zeros(p.shape) if p.bias is None else graph.arrays[p.bias].astype(np.float64)
        for q in lifted(graph):
            if q.post == p.name:
                bias = bias - fold_drive(graph, q, graph.arrays[q.weight].astype(np.float64))
        if p.bias in learn:
            rest = p.readout.offset / p.readout.gain
            bias = np.full(p.shape, -rest if p.state is None else -nearest(rest * p.state.one))
        biases[p.name] = bias
    return biases


# --- what the engine cannot do -----------------------------------------------------------------


def unlearnable(graph: Graph) -> list[Violation]:
    """Everything about the learning of `graph` that Lava's own rule cannot do."""
    batched = "use lowering batched"
    found = [*shared_plasticity(graph), *(misfits(graph) if graph.quantised else ())]
    early = sum(p.commit for p in graph.phases[:-1])
    if early:
        found.append(Violation(f"graph '{graph.name}', commits before its end", early, 0, batched))
    form = "of another form than sign post pre at phase ends"
    for record in graph.plasticity:
        for wrong, what in (
            (not _fits(record.rule), f"rule '{record.rule.name}' {form}"),
            (record.decay != 0, "a decay"),
            (record.mask is not None, "stuck synapses"),
        ):
            if wrong:
                subject = f"plasticity of '{record.weight}', {what}"
                found.append(Violation(subject, 1, 0, batched))
    return found


def _fits(rule: Rule) -> bool:
    tag = sorted((t.coefficient, tuple(sorted(t.factors))) for t in rule.tag_terms)
    commit = sorted((t.coefficient, tuple(sorted(t.factors))) for t in rule.commit_terms)
    return rule.when == "phase" and tag == PRODUCTS and commit in (COMMITS, COMMITS[1:])
