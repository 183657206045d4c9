"""From a plan to a faithful network: what moves to hardware as it is; runs in the supervisor.

One Process for each population and one for each directed projection, joined to layers; one for the
input and the nudge. One sample settles at a time. Projections are Lava's own
Dense and Sparse wherever those compute the right thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.process import AbstractProcess
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.proc.dense.process import Dense, LearningDense
from lava.proc.sparse.models import PySparseModelBitAcc, PySparseModelFloat
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode

from compilers.ir.graph import Population, Projection, SigmaDelta, Source
from targets.interface.fanout import synapses_of
from targets.lava.builders.faithful_learning import FaithfulLearning
from targets.lava.connections.native import DENSE, OWN, SPARSE, kind, own_weights, parameters
from targets.lava.processes.declared import Bases, models
from targets.lava.processes.dynamics import NEURON_MODELS
from targets.lava.processes.faithful.hopfield_layer import (
    Afferent,
    DirectedModel,
    HopfieldLayer,
    PyHopfieldLayer,
    Synapses,
)
from targets.lava.processes.faithful.learning_dense import (
    ConstantInput,
    ConstantModel,
    Gate,
    GateModel,
    PyTaughtDense,
    PyTaughtDenseFixed,
)
from targets.lava.processes.faithful.nudge import Nudge, NudgeModel
from targets.lava.processes.faithful.per_sample import PerSampleModel, PerSampleSource
from targets.lava.processes.neurons import NEURONS
from targets.lava.processes.source import InputSource
from targets.lava.runtime.layout import NetworkLayout
from targets.lava.runtime.monitor import PopulationMonitor
from targets.lava.runtime.shared_memory import SharedArrays

PROCESSES: Mapping[str, type[AbstractProcess]] = {OWN: Synapses, DENSE: Dense, SPARSE: Sparse}
"""The Process of each kind of projection."""

MODELS: Bases = {
    InputSource: (PerSampleSource,),
    **{neurons: (PerSampleModel, model) for neurons, model in NEURON_MODELS.items()},
    Synapses: (DirectedModel,),
    Nudge: (NudgeModel,),
    Gate: (GateModel,),
    ConstantInput: (ConstantModel,),
}
"""What the model of each Process of ours is made of."""

FLOATING = {Dense: PyDenseModelFloat, Sparse: PySparseModelFloat, LearningDense: PyTaughtDense}
FIXED = {Dense: PyDenseModelBitAcc, Sparse: PySparseModelBitAcc, LearningDense: PyTaughtDenseFixed}
"""The floating-point and the fixed-point model of each Process of Lava's own."""


def build_layers(plan: NetworkLayout, board: SharedArrays) -> dict[Any, type[AbstractProcessModel]]:
    """All processes of `plan`, connected, with their models; and models of those inside layers."""
    builder, graph = _Builder(plan, board), plan.graph
    senders: dict[str, AbstractProcess] = {p.name: builder.source(p) for p in graph.sources}
    layers = {p.name: builder.layer(p) for p in graph.neurons}
    senders |= layers
    one = ConstantInput(name="one", shape=(1,))
    for name, layer in layers.items():
        for k, p in enumerate(graph.into(name)):
            senders[p.pre].s_out.connect(getattr(layer, f"s_in_{k}"))
        if builder.taught.bias(graph.population(name)) is not None:
            one.s_out.connect(getattr(layer, f"s_in_{len(graph.into(name))}"))
    output = graph.population(graph.output)
    nudge = Nudge(**builder.common("nudge", output))
    layers[output.name].z_out.connect(nudge.z_in)
    nudge.a_out.connect(layers[output.name].a_in)
    ones = (one,) if one.s_out.out_connections else ()
    made: dict[Any, type[AbstractProcessModel]] = {
        **models(MODELS, integers=graph.quantised),
        **(FIXED if graph.quantised else FLOATING),
        HopfieldLayer: PyHopfieldLayer,
    }
    return {**{p: made[type(p)] for p in (*senders.values(), nudge, *ones)}, **made}


class _Builder:
    """Makes processes that share a board."""

    def __init__(self, plan: NetworkLayout, board: SharedArrays) -> None:
        self.plan, self.graph, self.board = plan, plan.graph, board
        self.taught = FaithfulLearning(plan, self.board)

    def common(self, name: str, population: Population) -> dict[str, Any]:
        shape = (population.size,)
        common = {"name": name, "board": self.board, "population": population, "rows": 1}
        return {**common, "shape": shape, "sample_shape": shape}

    def source(self, population: Population) -> InputSource:
        return InputSource(**self._recorded(population))

    def layer(self, population: Population) -> HopfieldLayer:
        bias = 0 if population.bias is None else self.graph.arrays[population.bias].ravel()
        if self.taught.biases is not None:
            bias = self.taught.biases[population.name].ravel()
        own = self.taught.bias(population)
        is_output = population.name == self.graph.output
        neurons = {**self._recorded(population), "bias": bias, "is_output": is_output}
        return HopfieldLayer(
            name=f"layer {population.name}",
            neurons=(NEURONS[type(population.dynamics)], neurons),
            afferents=[
                *map(self._afferent, self.graph.into(population.name)),
                *(() if own is None else (own,)),
            ],
            nudged=is_output,
        )

    def _recorded(self, population: Population) -> dict[str, Any]:
        counts, probes = synapses_of(self.graph, population), self.plan.probed(population.name)
        recorder = PopulationMonitor(self.board, population.name, counts, probes)
        common = self.common(population.name, population)
        return {**common, **self.taught.neurons(population), "recorder": recorder}

    def _afferent(self, p: Projection) -> Afferent:
        pre, name = self.graph.population(p.pre), kind(self.graph, p)
        adds_up = isinstance(pre.dynamics, SigmaDelta | Source)
        taught = self.taught.afferent(p, pre.size, adds_up)
        if taught is not None:
            return taught
        if name == OWN:
            params = self._own(p, adds_up=adds_up)
        else:
            params = {**parameters(self.graph, p), "sign_mode": SignMode.MIXED}
        return Afferent(PROCESSES[name], {"name": p.name, **params}, pre.size, adds_up)

    def _own(self, p: Projection, *, adds_up: bool) -> dict[str, Any]:
        pre, post = self.graph.population(p.pre), self.graph.population(p.post)
        return {
            "board": self.board,
            "projection": p,
            "weights": own_weights(self.graph, p),
            "adds_up": adds_up,
            "pre_shape": (pre.size,),
            "post_shape": (post.size,),
        }
