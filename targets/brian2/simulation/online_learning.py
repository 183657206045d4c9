"""What happens between the steps of a run that learns: tags are gathered, weights change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compilers.ir.graph import Graph, Phase
from compilers.ir.operators import apply
from compilers.learning.plastic_weights import PlasticWeights
from compilers.learning.traces import trace
from targets.brian2.codegen.equations import names, synapses_name
from targets.brian2.codegen.plasticity import record_of


class CommitLoop:
    """Changes the weights of a network that runs in NumPy.

    Tags of recurrent weights are written by their Synapses, each for its place and sample; here
    they are summed. Input and biases drive neurons as constants, so theirs are computed here.

    Parameters
    ----------
    graph : Graph
    memory : mapping of ndarray
        What has been learnt before.
    side : int
        Samples side by side that commit together, then the next ones come.
    rate_scale : float
        Factor of all learning rates.
    x : ndarray
        The samples.

    Attributes
    ----------
    learner : PlasticWeights
        What has been learnt.
    """

    def __init__(
        self,
        graph: Graph,
        memory: Mapping[str, np.ndarray],
        side: int,
        rate_scale: float,
        x: np.ndarray,
    ) -> None:
        self.learner = PlasticWeights(graph)
        self.learner.restore(memory)
        self._graph, self._side, self._scale = graph, side, rate_scale
        self._period, self._ends = 0, dict[int, Phase]()
        for phase in graph.phases:
            self._period += phase.steps
            self._ends[self._period - 1] = phase
        (self._source,) = graph.sources
        self._x = x.reshape(-1, side, *self._source.shape)
        self._step = self._turn = 0
        called = names(graph)
        self._names = {synapses_name(t, called): t for t in graph.tied(recurrent=True)}
        self._groups: dict[str, Any] = {}
        self._tied: dict[str, list[Any]] = {}
        self._tags: dict[str, Any] = {}

    def objects(self, groups: Mapping[str, Any], synapses: Sequence[Any]) -> list[Any]:
        """Operations of the network of `groups` by population and of `synapses`."""
        from brian2 import NetworkOperation

        self._groups = dict(groups)
        for one in synapses:
            tie = self._names[one.name]
            if tie.weight in self.learner.weights:
                self._tied.setdefault(tie.weight, []).append(one)
                if record_of(self._graph, tie.weight, tie.pre, tie.post) is not None:
                    self._tags[tie.weight] = one
        self._load()
        return [
            NetworkOperation(self._begin, when="start", order=0),
            NetworkOperation(self._end, when="end", order=2),
        ]

    def _begin(self) -> None:
        self._turn, within = divmod(self._step, self._period)
        if within == 0:
            self._drive()

    def _end(self) -> None:
        phase = self._ends.get(self._step % self._period)
        self._step += 1
        if phase is None:
            return
        if phase.sign:
            now = {self._source.name: trace(self._source, self._x[self._turn])}
            for p in self._graph.neurons:
                shown = np.asarray(self._groups[p.name].x[:]) / p.readout.gain
                now[p.name] = shown.reshape(self._side, *p.shape)
            for s in self.learner.synapses:
                name = s.record.weight
                if name not in self._tags:
                    tag, weight = self.learner.tags[name], self.learner.weights[name]
                    self.learner.tags[name] = s.accumulate(tag, weight, phase.sign, now, {})
        if phase.commit:
            self._commit()

    def _commit(self) -> None:
        for s in self.learner.synapses:
            name = s.record.weight
            if name in self._tags:
                found, places = self._tags[name], int(np.prod(s.shape))
                summed = np.bincount(found.site[:], found.tag[:], places) / s.tag_unit
                tag = self.learner.tags[name].astype(np.float64)
                self.learner.tags[name] = tag + summed.reshape(s.shape)
                found.tag = 0
        self.learner.commit(self._side, self._scale)
        self._load()
        self._drive()

    def _load(self) -> None:
        """The learner's weights into every Synapses object that has them."""
        for name, objects in self._tied.items():
            weight = self.learner.weights[name].ravel()
            for one in objects:
                one.w = weight[one.site[:]]

    def _drive(self) -> None:
        """Bias and input of the samples at hand."""
        x, biases = self._x[self._turn], self.learner.biases()
        operands = self.learner.operands()
        for p in self._graph.neurons:
            own = 0.0 if p.bias is None else self._graph.arrays[p.bias]
            drive = np.zeros((self._side, *p.shape)) + biases.get(p.name, own)
            for q in self._graph.into(p.name):
                if q.pre == self._source.name:
                    weight = operands.get(q.weight, self._graph.arrays[q.weight])
                    drive += q.scale * apply(q.operator, weight, x, p.shape)
            self._groups[p.name].b = drive.ravel()
