"""From a layout to a faithful network: what moves to hardware as it is; runs in the supervisor.

One Process for each population and one for each directed projection, joined to layers; one for the
input and the nudge. One sample settles at a time. Projections are Lava's own
Dense and Sparse wherever those compute the right thing, and LearningDense where they learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.learning.constants import GradedSpikeCfg
from lava.magma.core.learning.learning_rule import Loihi3FLearningRule
from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.process import AbstractProcess
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.proc.dense.process import Dense, LearningDense
from lava.proc.sparse.models import PySparseModelBitAcc, PySparseModelFloat
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode

from compilers.ir.graph import Population, Projection, SigmaDelta, Source
from compilers.learning.synapses import Synapses as PlasticSynapses
from targets.lava.connections.connection import Connection, operand
from targets.lava.connections.loihi_rule import ENDLESS, rate_of, rule_of
from targets.lava.connections.native import DENSE, OWN, kind, message_bits, parameters
from targets.lava.connections.replicas import WeightReplica, bare_biases
from targets.lava.processes.declared import Bases, models
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
from targets.lava.processes.faithful.per_sample import (
    Nudge,
    NudgeModel,
    PerSampleModel,
    PerSampleSource,
)
from targets.lava.processes.neurons import NEURON_MODELS, NEURONS, InputSource
from targets.lava.processes.process_weights import ProcessWeights
from targets.lava.runtime.layout import WRITES, NetworkLayout
from targets.lava.runtime.shared_memory import SharedArrays

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

TAG, WEIGHT = "2^1*x0*x1*y1*y2 - u0*t*y3", "u0*t*y3"
"""The rule: x1 is half the payload of the graded spike, y2 and y3 are the gates."""


def learning_rule(dt: str = TAG, dw: str = WEIGHT, endless: float = np.inf) -> Loihi3FLearningRule:
    """Lava's rule, whose traces hold what they are given: `endless` is how long, in steps."""
    rule = Loihi3FLearningRule(dt=dt, dw=dw, x1_tau=endless, x2_tau=endless, t_epoch=1)
    rule.y1_tau = rule.y2_tau = rule.y3_tau = endless
    return rule


def build_layers(
    layout: NetworkLayout, shared: SharedArrays
) -> dict[Any, type[AbstractProcessModel]]:
    """All processes of `layout`, connected, with their models; and models of those in layers."""
    builder, graph = _Builder(layout, shared), layout.graph
    senders: dict[str, AbstractProcess] = {
        p.name: InputSource(**builder.recorded(p)) for p in graph.sources
    }
    layers = {p.name: builder.layer(p) for p in graph.neurons}
    senders |= layers
    one = ConstantInput(name="one", shape=(1,))
    for name, layer in layers.items():
        into = graph.into(name)
        for k, p in enumerate(into):
            senders[p.pre].s_out.connect(getattr(layer, f"s_in_{k}"))
        if graph.population(name).bias in builder.copies:
            one.s_out.connect(getattr(layer, f"s_in_{len(into)}"))
    nudge = Nudge(**builder.common("nudge", graph.population(graph.output)))
    layers[graph.output].z_out.connect(nudge.z_in)
    nudge.a_out.connect(layers[graph.output].a_in)
    ones = (one,) if one.s_out.out_connections else ()
    made: dict[Any, type[AbstractProcessModel]] = {
        **models(MODELS, integers=graph.quantised),
        **(FIXED if graph.quantised else FLOATING),
        HopfieldLayer: PyHopfieldLayer,
    }
    return {**{p: made[type(p)] for p in (*senders.values(), nudge, *ones)}, **made}


class _Builder:
    """Makes processes that share memory.

    Attributes
    ----------
    copies : dict of WeightReplica
        What learns by Lava's rule, by projection or bias; empty where the network does not.
    biases : dict of ndarray
        Biases that neurons hold themselves, by population, where they are not those of the graph.
    plastic : dict of ProcessWeights
        Biases that learn in the neurons, by id: those of integers.
    """

    def __init__(self, layout: NetworkLayout, shared: SharedArrays) -> None:
        self.layout, self.graph, self.shared = layout, layout.graph, shared
        self.copies = layout.copies
        self.biases = bare_biases(layout.graph) if self.copies else {}
        biases = {p.bias for p in self.graph.neurons}
        self.plastic = {
            record.weight: ProcessWeights(self.graph, i, shared)
            for i, record in enumerate(self.graph.plasticity)
            if self.copies and self.graph.quantised and record.weight in biases
        }

    def common(self, name: str, population: Population) -> dict[str, Any]:
        shape = (population.size,)
        common = {"name": name, "shared": self.shared, "population": population}
        return {**common, "shape": shape, "once": shape}

    def recorded(self, population: Population) -> dict[str, Any]:
        """Parameters of the input or of neurons."""
        return {
            **self.common(population.name, population),
            "monitor": self.layout.monitor(self.shared, population),
            "traced": bool(self.copies),
        }

    def layer(self, population: Population) -> HopfieldLayer:
        name, own = population.name, population.bias
        bias = np.zeros(1) if own is None else self.graph.arrays[own]
        neurons = {
            **self.recorded(population),
            "bias": self.biases.get(name, bias).ravel(),
            "is_output": name == self.graph.output,
            "plastic": self.plastic.get(own or ""),
        }
        afferents = [self._afferent(p) for p in self.graph.into(name)]
        if own in self.copies:
            afferents.append(self._learning(self.copies[own], 1, adds_up=False))
        return HopfieldLayer(
            name=f"layer {name}",
            neurons=(NEURONS[type(population.dynamics)], neurons),
            afferents=afferents,
            nudged=name == self.graph.output,
        )

    def _afferent(self, p: Projection) -> Afferent:
        pre, post = self.graph.population(p.pre), self.graph.population(p.post)
        adds_up, name = isinstance(pre.dynamics, SigmaDelta | Source), kind(self.graph, p)
        if p.name in self.copies:
            return self._learning(self.copies[p.name], pre.size, adds_up, p)
        if name != OWN:
            params = {**parameters(self.graph, p), "name": p.name, "sign_mode": SignMode.MIXED}
            return Afferent(Dense if name == DENSE else Sparse, params, pre.size, adds_up)
        params = {
            "name": p.name,
            "shared": self.shared,
            "connection": Connection(p, operand(self.graph, p), post.shape, adds_up=adds_up),
            "sample_shape": (1, *pre.shape),
            "pre_shape": (pre.size,),
            "post_shape": (post.size,),
        }
        return Afferent(Synapses, params, pre.size, adds_up)

    def _learning(
        self, copy: WeightReplica, inputs: int, adds_up: bool, p: Projection | None = None
    ) -> Afferent:
        """The process of a projection, or of a bias, that learns by Lava's rule.

        In integers it is a stock one of `p` with the rule of 7 bits.
        """
        s, matrix = PlasticSynapses(self.graph, copy.index), self.shared["copy", copy.name]
        params = {
            "name": copy.name,
            "weights": matrix.copy(),
            "graded_spike_cfg": GradedSpikeCfg.OVERWRITE,
            "sign_mode": SignMode.MIXED,
            "copy": matrix,
            "writes": self.shared[WRITES],
            "tally": None if copy.backward else self.shared["tally", s.record.weight],
            "unit": s.unit / copy.scale,
        }
        gate = {"name": f"gate of {copy.name}", "shared": self.shared, "shape": copy.shape[:1]}
        if p is None or p.rescale is None:
            gate["rate"] = copy.factor(self.graph)
            params |= {"num_message_bits": 16, "learning_rule": learning_rule()}
            return Afferent(LearningDense, params, inputs, adds_up, gate)
        sender, rate = self.graph.population(p.pre), rate_of(self.graph, copy.index)
        params |= {
            "weight_exp": p.rescale.shift,
            "num_message_bits": message_bits(sender),
            "learning_rule": learning_rule(*rule_of(sender, rate), endless=ENDLESS),
            "limit": (1 << ((s.record.bits or 8) - 1)) - 1,
            "seed": (s.record.seed, copy.index),
            "shared": self.shared,
        }
        return Afferent(LearningDense, params, inputs, adds_up, {**gate, "rate": rate})
