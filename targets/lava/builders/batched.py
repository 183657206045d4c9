"""From a plan to a network of connected Lava Processes; runs in the supervisor.

Batched: one Process for each population and one for each symmetric coupling, so that a weight
lives in one place; projections without a partner have a Process of their own. The faithful network
is built by `targets.lava.builders.faithful`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.process import AbstractProcess

from compilers.ir.graph import Population, Projection, SigmaDelta
from compilers.ir.operators import shift_channels
from targets.interface.fanout import synapses_of
from targets.lava.builders.batched_learning import BatchedLearning
from targets.lava.connections.connection import Connection
from targets.lava.processes.batched import BatchedModel
from targets.lava.processes.declared import Bases, DeclaredProcess, models
from targets.lava.processes.dynamics import NEURON_MODELS
from targets.lava.processes.neurons import NEURONS, Neurons
from targets.lava.processes.source import InputSource, SourceModel
from targets.lava.processes.synapses import (
    Coupling,
    FromInput,
    FromInputModel,
    OneWay,
    RecurrentModel,
)
from targets.lava.runtime.layout import FAITHFUL, NetworkLayout, received
from targets.lava.runtime.monitor import PopulationMonitor
from targets.lava.runtime.shared_memory import SharedArrays

MODELS: Bases = {
    InputSource: (SourceModel,),
    **{neurons: (BatchedModel, model) for neurons, model in NEURON_MODELS.items()},
    Coupling: (RecurrentModel,),
    OneWay: (RecurrentModel,),
    FromInput: (FromInputModel,),
}
"""What the model of each Process is made of."""


def build(message: Mapping[str, Any]) -> dict[AbstractProcess, type[AbstractProcessModel]]:
    """All processes of the plan that is `message`, connected, with their models."""
    plan, board = received(message)
    if plan.lowering == FAITHFUL:
        from targets.lava.builders.faithful import build_layers

        return build_layers(plan, board)
    builder = _Builder(plan, board)
    sources = {p.name: builder.source(p) for p in plan.graph.sources}
    neurons = {p.name: builder.neurons(p) for p in plan.graph.neurons}
    synapses = [
        builder.join(FromInput, p, None, sources[p.pre], neurons[p.post])
        for p in plan.graph.projections
        if p.pre in sources
    ]
    for tie in plan.graph.tied(recurrent=True):
        p, back = tie.first, tie.backward if tie.forward else None
        kind = OneWay if back is None else Coupling
        synapses.append(builder.join(kind, p, back, neurons[p.pre], neurons[p.post]))
    made = models(MODELS, integers=plan.graph.quantised)
    processes = (*sources.values(), *neurons.values(), *synapses)
    return {process: made[type(process)] for process in processes}


class _Builder:
    """Makes processes that share a board; each method connects what it makes."""

    def __init__(self, plan: NetworkLayout, board: SharedArrays) -> None:
        self.plan, self.graph, self.board = plan, plan.graph, board
        self.weights: dict[tuple[str, str | None], np.ndarray] = {}
        self.teaching = BatchedLearning(plan, self.board)

    def source(self, population: Population) -> InputSource:
        return InputSource(**self._place(population))

    def neurons(self, population: Population) -> Neurons:
        bias = 0 if population.bias is None else self.graph.arrays[population.bias]
        return NEURONS[type(population.dynamics)](
            **self._place(population),
            bias=bias,
            is_output=population.name == self.graph.output,
            plastic=self.teaching.bias(population),
        )

    def join(
        self,
        kind: type[DeclaredProcess],
        p: Projection,
        back: Projection | None,
        pre: AbstractProcess,
        post: Neurons,
    ) -> DeclaredProcess:
        """The process of `p`, and of its opposite `back`, with what it needs to learn."""
        process = kind(**self._between(p, back))
        pre.s_out.connect(process.s_pre)
        process.a_post.connect(post.x_in if kind is FromInput else post.a_in)
        if back is not None:
            post.s_out.connect(process.s_post)
            process.a_pre.connect(pre.a_in)
        for end, neurons in (("pre", pre), ("post", post)):
            if process.proc_params["plastic"] is not None and f"t_{end}" in kind.inputs:
                neurons.t_out.connect(getattr(process, f"t_{end}"))
            if f"f_{end}" in process.proc_params["folds"]:
                getattr(process, f"f_{end}").connect(neurons.f_in)
        return process

    def _place(self, population: Population) -> dict[str, Any]:
        name = population.name
        counts, probes = synapses_of(self.graph, population), self.plan.probed(name)
        recorder = PopulationMonitor(self.board, name, counts, probes)
        shape = self.plan.shape(name)
        shapes = {"shape": shape, "sample_shape": population.shape, "rows": self.plan.batch}
        place = {"name": name, "board": self.board, "population": population, **shapes}
        return {**place, "recorder": recorder, "stepwise": self.teaching.stepwise}

    def _between(self, p: Projection, back: Projection | None) -> dict[str, Any]:
        pre, post = self.plan.shape(p.pre), self.plan.shape(p.post)
        return {
            "name": p.name if back is None else f"{p.pre}<->{p.post}",
            "board": self.board,
            "source": self.graph.population(p.pre),
            **{"pre_shape": pre, "pre_sample": pre[1:], "forward": self._path(p)},
            **{"post_shape": post, "post_sample": post[1:]},
            "backward": None if back is None else self._path(back),
            **self.teaching.synapses(p),
        }

    def _path(self, p: Projection) -> Connection:
        adds_up = isinstance(self.graph.population(p.pre).dynamics, SigmaDelta)
        return Connection(p, self._weight(p), self.plan.shape(p.post), adds_up=adds_up)

    def _weight(self, p: Projection) -> np.ndarray:
        """The forward weight with its channels' shifts; tied projections share one array."""
        key = (p.weight, p.exponent)
        if key not in self.weights:
            weight = self.graph.arrays[p.weight]
            if p.exponent is not None:
                weight = shift_channels(weight, self.graph.arrays[p.exponent])
            self.weights[key] = np.ascontiguousarray(weight, np.float64)
        return self.weights[key]
