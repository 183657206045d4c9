"""From a layout to a network of connected Lava Processes; runs in the supervisor.

Batched: one Process for each population and one for each symmetric coupling, so that a weight
lives in one place; projections without a partner have a Process of their own. The faithful network
is built by `targets.lava.builders.faithful`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.process import AbstractProcess

from compilers.execution.constants import fits_word
from compilers.ir.graph import (
    Dense,
    FixedPoint,
    Graded,
    Graph,
    Population,
    Projection,
    Rescale,
    SigmaDelta,
    Spiking,
)
from compilers.learning.plastic_weights import (
    PlasticWeights,
    fold_drive,
    learns_between_samples,
    lifted,
)
from compilers.passes.send_differences import response_graph
from targets.lava.connections.arithmetic import Integer
from targets.lava.connections.connection import Connection, operand
from targets.lava.connections.currents import Currents
from targets.lava.processes.batched import BatchedModel
from targets.lava.processes.declared import Bases, DeclaredProcess, models
from targets.lava.processes.neurons import NEURON_MODELS, NEURONS, InputSource, Neurons, SourceModel
from targets.lava.processes.process_weights import ProcessWeights
from targets.lava.processes.synapses import (
    Coupling,
    FromInput,
    FromInputModel,
    OneWay,
    RecurrentModel,
)
from targets.lava.runtime.layout import FAITHFUL, NetworkLayout, only_spikes, received
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
    """All processes of the layout that is `message`, connected, with their models."""
    layout, shared = received(message)
    if layout.lowering == FAITHFUL:
        from targets.lava.builders.faithful import build_layers

        return build_layers(layout, shared)
    builder, graph = _Builder(layout, shared), layout.graph
    sources = {p.name: InputSource(**builder.place(p)) for p in graph.sources}
    neurons = {p.name: builder.neurons(p) for p in graph.neurons}
    synapses = [
        builder.join(FromInput, p, None, sources[p.pre], neurons[p.post])
        for p in graph.projections
        if p.pre in sources
    ]
    for tie in graph.tied(recurrent=True):
        p, back = tie.first, tie.backward if tie.forward else None
        kind = OneWay if back is None else Coupling
        synapses.append(builder.join(kind, p, back, neurons[p.pre], neurons[p.post]))
    made = models(MODELS, integers=graph.quantised, **_narrow(graph))
    processes = (*sources.values(), *neurons.values(), *synapses)
    return {process: made[type(process)] for process in processes}


def compile_steps() -> None:
    """Compile what messages in integers call, once for all forks of this process."""
    one, message = np.ones((1, 1), np.int64), FixedPoint(8, 0)
    for dynamics, short in ((Spiking(), np.int8), (Graded(), np.int64)):
        box, state = (0.0, 1.0), FixedPoint(24, 12)
        neurons = Population("a", (1,), dynamics, box=box, state=state, message=message)
        numbers = Integer(neurons)
        if isinstance(dynamics, Spiking):
            numbers.fire(one, one, one, one)
        else:
            numbers.relax(one, one, one)
        for bits in (0, 40):  # in short and in long numbers
            projection = Projection("a", "a", Dense(), "w", rescale=Rescale(1, bits))
            sums = Currents(projection, neurons, (1,))
            sums.load(np.ones((1, 1)), 1.0)
            sums.of(one.astype(short))


def _narrow(graph: Graph) -> dict[str, type[Any]]:
    """What holds the messages and the currents between neurons that all spike, in integers."""
    if not only_spikes(graph):
        return {}
    return {"messages": np.int8, "currents": np.int32 if fits_word(graph) else np.int64}


class _Builder:
    """Makes processes that share memory; `join` connects what it makes."""

    def __init__(self, layout: NetworkLayout, shared: SharedArrays) -> None:
        self.layout, self.graph, self.shared = layout, layout.graph, shared
        records = self.graph.plasticity
        self.response = response_graph(self.graph)
        self.weights: dict[tuple[str, str | None], np.ndarray] = {}
        self.plastic = {
            r.weight: ProcessWeights(self.graph, i, shared) for i, r in enumerate(records)
        }
        self.fixed = PlasticWeights(self.graph).fixed_biases() if records else {}
        self.lifted = [p for p in lifted(self.graph) if p.weight in self.plastic]
        self.stepwise = any(r.rule.when == "step" for r in records)

    def place(self, population: Population) -> dict[str, Any]:
        """Parameters of any population."""
        return {
            "name": population.name,
            "shared": self.shared,
            "population": population,
            "shape": self.layout.shape(population.name),
            "sample_shape": population.shape,
            "once": (1, *population.shape),
            "monitor": self.layout.monitor(self.shared, population),
        }

    def neurons(self, population: Population) -> Neurons:
        name, own = population.name, population.bias
        bias = 0 if own is None else self.graph.arrays[own]
        return NEURONS[type(population.dynamics)](
            **self.place(population),
            bias=self.fixed.get(name, bias),
            is_output=name == self.graph.output,
            plastic=self.plastic.get(own or ""),
            folded=any(q.post == name for q in self.lifted),
            stepwise=self.stepwise,
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
        pre_shape, post_shape = self.layout.shape(p.pre), self.layout.shape(p.post)
        plastic = self.plastic.get(p.weight)
        folds = {
            "post" if q.post == p.post else "pre": partial(fold_drive, self.graph, q)
            for q in self.lifted
            if q.weight == p.weight
        }
        process = kind(
            name=p.name if back is None else f"{p.pre}<->{p.post}",
            shared=self.shared,
            source=self.graph.population(p.pre),
            **{"pre_shape": pre_shape, "pre_once": (1, *pre_shape[1:])},
            **{"post_shape": post_shape, "post_once": (1, *post_shape[1:])},
            forward=self._connection(p),
            backward=None if back is None else self._connection(back),
            plastic=plastic,
            folds=folds,
            stepwise=self.stepwise,
        )
        pre.s_out.connect(process.s_pre)
        process.a_post.connect(post.x_in if kind is FromInput else post.a_in)
        if back is not None:
            post.s_out.connect(process.s_post)
            process.a_pre.connect(pre.a_in)
        for end, neurons in (("pre", pre), ("post", post)):
            if plastic is not None and f"t_{end}" in kind.inputs:
                neurons.t_out.connect(getattr(process, f"t_{end}"))
            if end in folds:
                getattr(process, f"f_{end}").connect(neurons.f_in)
        return process

    def _connection(self, p: Projection) -> Connection:
        key = (p.weight, p.exponent)
        if key not in self.weights:  # tied projections share one array
            self.weights[key] = operand(self.graph, p)
        pre, shape = self.graph.population(p.pre), self.graph.population(p.post).shape
        sparse = p.rescale is not None and (
            isinstance(pre.dynamics, Spiking)
            or (isinstance(pre.dynamics, Graded) and learns_between_samples(self.graph))
        )
        response = next((q for q in self.response.projections if q.name == p.name), None)
        return Connection(
            p,
            self.weights[key],
            shape,
            adds_up=isinstance(pre.dynamics, SigmaDelta),
            sparse=pre if sparse else None,
            response=response,
        )
