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
from targets.lava.processes.declared import models
from targets.lava.processes.dynamics import GradedModel, SigmaDeltaModel, SpikingModel
from targets.lava.processes.neurons import (
    NEURONS,
    GradedNeurons,
    Neurons,
    SigmaDeltaNeurons,
    SpikingNeurons,
)
from targets.lava.processes.source import InputSource, SourceModel
from targets.lava.processes.synapses import (
    Coupling,
    FromInput,
    FromInputModel,
    OneWay,
    RecurrentModel,
)
from targets.lava.runtime.layout import FAITHFUL, NetworkLayout, partners, received
from targets.lava.runtime.monitor import PopulationMonitor
from targets.lava.runtime.shared_memory import SharedArrays

MODELS = {
    InputSource: (SourceModel,),
    GradedNeurons: (BatchedModel, GradedModel),
    SigmaDeltaNeurons: (BatchedModel, SigmaDeltaModel),
    SpikingNeurons: (BatchedModel, SpikingModel),
    Coupling: (RecurrentModel,),
    OneWay: (RecurrentModel,),
    FromInput: (FromInputModel,),
}
"""What the models of each Process are made of."""

FLOATING, FIXED = (models(MODELS, integers=integers) for integers in (False, True))
"""The floating-point and the fixed-point model of each Process."""


def build(message: Mapping[str, Any]) -> dict[AbstractProcess, type[AbstractProcessModel]]:
    """All processes of the plan that is `message`, connected, with their models."""
    plan, board = received(message)
    if plan.lowering == FAITHFUL:
        from targets.lava.builders.faithful import build_layers

        return build_layers(plan, board)
    builder = _Builder(plan, board)
    sources = {p.name: builder.source(p) for p in plan.graph.sources}
    neurons = {p.name: builder.neurons(p) for p in plan.graph.neurons}
    synapses: list[AbstractProcess] = [
        builder.from_input(p, sources[p.pre], neurons[p.post])
        for p in plan.graph.projections
        if p.pre in sources
    ]
    for forward, backward in partners(plan.graph):
        pre, post = neurons[forward.pre], neurons[forward.post]
        if backward is None:
            synapses.append(builder.one_way(forward, pre, post))
        else:
            synapses.append(builder.coupling(forward, backward, pre, post))
    processes = (*sources.values(), *neurons.values(), *synapses)
    chosen = FIXED if plan.graph.quantised else FLOATING
    return {process: chosen[type(process)] for process in processes}


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

    def from_input(self, p: Projection, pre: InputSource, post: Neurons) -> FromInput:
        source = self.graph.population(p.pre)
        process = FromInput(**self._between(p, p.name), source=source)
        pre.s_out.connect(process.s_pre)
        process.a_post.connect(post.x_in)
        self._teach(process, post=post)
        return process

    def one_way(self, p: Projection, pre: Neurons, post: Neurons) -> OneWay:
        process = OneWay(**self._between(p, p.name))
        pre.s_out.connect(process.s_pre)
        process.a_post.connect(post.a_in)
        self._teach(process, pre=pre, post=post)
        return process

    def coupling(self, p: Projection, back: Projection, pre: Neurons, post: Neurons) -> Coupling:
        process = Coupling(**self._between(p, f"{p.pre}<->{p.post}", back))
        pre.s_out.connect(process.s_pre)
        post.s_out.connect(process.s_post)
        process.a_post.connect(post.a_in)
        process.a_pre.connect(pre.a_in)
        self._teach(process, pre=pre, post=post)
        return process

    def _teach(self, process: AbstractProcess, **ends: Neurons) -> None:
        """Join what a plastic weight needs of the populations at its ends."""
        if process.proc_params["plastic"] is None:
            return
        for end, neurons in ends.items():
            neurons.t_out.connect(getattr(process, f"t_{end}"))
            if f"f_{end}" in process.proc_params["folds"]:
                getattr(process, f"f_{end}").connect(neurons.f_in)

    def _place(self, population: Population) -> dict[str, Any]:
        name = population.name
        counts, probes = synapses_of(self.graph, population), self.plan.probed(name)
        recorder = PopulationMonitor(self.board, name, counts, probes)
        shape = self.plan.shape(name)
        shapes = {"shape": shape, "sample_shape": population.shape, "rows": self.plan.batch}
        place = {"name": name, "board": self.board, "population": population, **shapes}
        return {**place, "recorder": recorder, "stepwise": self.teaching.stepwise}

    def _between(self, p: Projection, name: str, back: Projection | None = None) -> dict[str, Any]:
        shapes = {}
        for end, population in (("pre", p.pre), ("post", p.post)):
            shapes[f"{end}_shape"] = self.plan.shape(population)
            shapes[f"{end}_sample"] = self.plan.shape(population)[1:]
        paths = {
            "forward": self._path(p),
            "backward": None if back is None else self._path(back),
        }
        between = {"name": name, "board": self.board, **shapes, **paths}
        return {**between, **self.teaching.synapses(p)}

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
