"""What a learning session holds: weights, true biases, tags; and how they change at a commit.

A target runs the phases and reports traces; everything else about learning is here, so that all
targets learn alike. Biases in a graph are folded: a neighbour that rests at another real value
than 0 adds a constant through its synapses (`fold_boxes`), and a bias carries it. When such a
weight changes, the constant follows: it is the drive of a constant message ``offset / gain``
through the same synapses. What does not come through synapses is the *true* bias.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from compilers.ir.graph import Graph, Population, Projection
from compilers.ir.integers import nearest, shift
from compilers.ir.operators import apply, shift_channels
from compilers.learning.synapses import Synapses
from compilers.learning.traces import Traces, trace_frac, trace_offset
from compilers.passes.make_plastic import check_plasticity
from ep_neuro.errors import RunError

COMMITS = "commits"
"""Key of the number of commits in a memory."""

Memory = dict[str, np.ndarray]


class PlasticWeights:
    """The plastic part of `graph` and its present values.

    Attributes
    ----------
    weights : dict of ndarray
        By id of the record: float64, or int64 in a graph of integers. A bias has one value for
        each element of its population's first axis, in units of the membrane, as a true bias.
    tags : dict of ndarray
        By id.
    commits : int
    changed : float
        Sum over the commits of a stretch of learning of the mean |change| of a weight, in real
        units; a stretch sets it to 0.
    clipped : int
        Weights and tags that met the end of their range.

    Raises
    ------
    GraphError
        If nothing in `graph` learns, or its rules and phases do not fit.
    """

    def __init__(self, graph: Graph) -> None:
        check_plasticity(graph, required=True)
        self.graph = graph
        self.synapses = [Synapses(graph, i) for i in range(len(graph.plasticity))]
        self.commits, self.changed, self.clipped = 0, 0.0, 0
        self.weights: dict[str, np.ndarray] = {}
        for s in self.synapses:
            name = s.record.weight
            tied = name in graph.ties
            first = graph.arrays[name] if tied else _first(true_bias(graph, s.post), s.post)
            self.weights[name] = first.astype(s.dtype)
        self.tags = {s.record.weight: np.zeros(s.shape, s.dtype) for s in self.synapses}
        self._folds = [p for p in lifted(graph) if p.weight in self.weights]
        touched = {p.post for p in self._folds}
        self._biased = [p for p in graph.neurons if p.name in touched or p.bias in self.weights]
        self._base = {p.name: _folded(graph, p) for p in self._biased}
        # What is left of a bias when all that learns is taken away; it never changes.
        for name, learnt in self._learnt_biases().items():
            self._base[name] = self._base[name] - learnt

    def fixed_biases(self) -> dict[str, np.ndarray]:
        """What no learning changes of the biases of `biases`, by population."""
        return {name: base.copy() for name, base in self._base.items()}

    # --- while the phases run ---

    def accumulate(self, sign: int, now: Traces, before: Traces) -> None:
        """Evaluate every tag for a batch; see `Synapses.accumulate`."""
        for s in self.synapses:
            name = s.record.weight
            self.tags[name] = s.accumulate(self.tags[name], self.weights[name], sign, now, before)

    def commit(self, samples: int, scale: float = 1.0) -> None:
        """Change every weight by its tag, the mean over `samples`; `scale` multiplies the rates."""
        total, size = 0.0, 0
        for s in self.synapses:
            name = s.record.weight
            change = s.commit(self.weights[name], self.tags[name], samples, scale, self.commits)
            self.weights[name], self.tags[name] = change.weight, change.tag
            self.clipped += change.clipped
            total, size = total + change.total, size + change.weight.size
        self.commits += 1
        self.changed += total / size

    # --- what a target loads ---

    def operands(self, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Weights as operators take them, float64, by id; not to be written to."""
        return {
            s.record.weight: s.operand(self.weights[s.record.weight])
            for s in self.synapses
            if s.pre is not None and (only is None or s.record.weight in only)
        }

    def biases(self) -> dict[str, np.ndarray]:
        """Folded biases by population, where learning changes them; units of the membrane."""
        return {name: self._base[name] + learnt for name, learnt in self._learnt_biases().items()}

    def _learnt_biases(self) -> dict[str, np.ndarray]:
        total: dict[str, np.ndarray] = {}
        for p in self._biased:
            values = np.zeros(p.shape, np.int64 if self.graph.quantised else np.float64)
            if p.bias in self.weights:
                values = values + spread(self.weights[p.bias], p)
            total[p.name] = values
        folded = {q.weight for q in self._folds}
        operands = self.operands(folded)
        for q in self._folds:
            total[q.post] = total[q.post] + fold_drive(self.graph, q, operands[q.weight])
        return total

    def learnt(self) -> Graph:
        """The graph with the present weights and folded biases, in the dtypes that it had."""
        arrays = dict(self.graph.arrays)
        populations = {p.name: p for p in self.graph.populations}
        for s in self.synapses:
            name = s.record.weight
            if s.pre is not None:
                arrays[name] = self.weights[name].astype(arrays[name].dtype)
        for name, bias in self.biases().items():
            known = populations[name].bias
            dtype = np.dtype(np.int32 if self.graph.quantised else np.float32)
            populations[name] = replace(populations[name], bias=known or f"bias/{name}")
            arrays[known or f"bias/{name}"] = bias.astype(arrays[known].dtype if known else dtype)
        return self.graph.with_arrays(populations=tuple(populations.values()), arrays=arrays)

    # --- memory ---

    def memory(self) -> Memory:
        """All that learning needs in order to go on: weights by id, tags, number of commits."""
        tags = {f"tag/{name}": tag.copy() for name, tag in self.tags.items()}
        weights = {name: weight.copy() for name, weight in self.weights.items()}
        return {**weights, **tags, COMMITS: np.array(self.commits, np.int64)}

    def restore(self, memory: Mapping[str, np.ndarray]) -> None:
        """Go on from `memory`.

        Raises
        ------
        RunError
            If it is not the memory of the same program: other names, shapes or types.
        """
        own = self.memory()
        for name in sorted(own.keys() | memory.keys()):
            here, there = own.get(name), memory.get(name)
            if here is None or there is None:
                problem = f"'{name}' is not in the {'memory' if there is None else 'program'}"
            elif (here.shape, here.dtype) != (there.shape, there.dtype):
                problem = f"'{name}' is {there.dtype} {there.shape}, not {here.dtype} {here.shape}"
            else:
                continue
            raise RunError("memory", problem, "give the memory of a session of this program")
        self.commits = int(memory[COMMITS])
        self.weights = {name: memory[name].copy() for name in self.weights}
        self.tags = {name: memory[f"tag/{name}"].copy() for name in self.tags}


# --- folded biases -----------------------------------------------------------------------------


def true_bias(graph: Graph, p: Population) -> np.ndarray:
    """The bias of `p` without what `fold_boxes` added to it, full shape, membrane units.

    Times the gain of the readout it is the bias in real units.
    """
    bias = _folded(graph, p) + _rest(graph, p)
    for q in lifted(graph):
        if q.post == p.name:
            weight = graph.arrays[q.weight]
            if graph.quantised:
                exponent = None if q.exponent is None else graph.arrays[q.exponent]
                weight = shift_channels(weight, exponent)
            bias = bias - fold_drive(graph, q, weight.astype(np.float64))
    return bias


def _folded(graph: Graph, p: Population) -> np.ndarray:
    values = np.zeros(p.shape) if p.bias is None else graph.arrays[p.bias]
    return values.astype(np.int64 if graph.quantised else np.float64)


def _rest(graph: Graph, p: Population) -> float:
    """Offset of the box of `p` itself, in units of its membrane."""
    offset = p.readout.offset / p.readout.gain
    return offset if p.state is None else int(nearest(offset * p.state.one))


def learns_between_samples(graph: Graph) -> bool:
    """Whether weights change after the last phase of a sample and at no other time.

    Not so where differences are sent: the rooms that they have, louder, can be longer than sums.
    """
    if any(phase.difference for phase in graph.phases):
        return False
    rules = [record.rule for record in graph.plasticity]
    commits = [phase.commit for phase in graph.phases]
    return bool(rules) and all(r.when != "step" for r in rules) and not any(commits[:-1])


def lifted(graph: Graph) -> list[Projection]:
    """Projections whose source has an offset readout: its box does not start at 0."""
    names = {p.name for p in graph.populations if trace_offset(p, graph.quantised)}
    return [p for p in graph.projections if p.pre in names]


def fold_drive(graph: Graph, p: Projection, operand: np.ndarray) -> np.ndarray:
    """Drive of the constant message ``offset / gain`` of the source, full shape of the post."""
    pre, post = graph.population(p.pre), graph.population(p.post)
    constant = np.full((1, *pre.shape), float(trace_offset(pre, graph.quantised)))
    drive = apply(p.operator, operand, constant, post.shape)[0]
    if p.rescale is None or pre.message is None:
        return p.scale * drive
    finer = trace_frac(pre) - pre.message.frac
    return shift(drive.astype(np.int64) * p.rescale.multiplier, p.rescale.shift - finer)


def _first(bias: np.ndarray, p: Population) -> np.ndarray:
    """One value for each element of the first axis: the first that the membrane of `p` holds.

    A dead neuron's bias may lie beyond, and its neighbours live.
    """
    flat, rows = bias.reshape(len(bias), -1), np.arange(len(bias))
    low, high = p.state.range if p.state else (-np.inf, np.inf)
    return flat[rows, ((low <= flat) & (flat <= high)).argmax(1)]


def spread(values: np.ndarray, p: Population) -> np.ndarray:
    """One value for each element of the first axis of `p`, full shape."""
    return np.broadcast_to(values.reshape(-1, *[1] * (len(p.shape) - 1)), p.shape)
