"""A graph in real units: the network that it settles, its weights, biases and boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compilers.ir.graph import Conv, Coupling, Graph, Population
from compilers.ir.operators import shift_channels
from compilers.learning.plastic_weights import true_bias
from compilers.learning.synapses import weight_unit
from ep_neuro.deployment.nudgeable import SQUARED_ERROR
from ep_neuro.energy.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import GraphError


def spec_of(graph: Graph) -> NetworkSpec:
    """The description of what `graph` settles: its populations in real units, its couplings."""
    if len(graph.sources) != 1:
        problem = f"it has {len(graph.sources)} inputs, and a network has 1"
        raise GraphError(f"graph '{graph.name}'", problem, "read back what `compile` wrote")
    return NetworkSpec(
        name=graph.name,
        input=_input(graph.sources[0]),
        populations=tuple(
            PopulationSpec(name=p.name, shape=p.shape, box=real_box(p)) for p in graph.neurons
        ),
        couplings=tuple(_coupling(graph, tie) for tie in map(graph.tie, graph.ties)),
        output=graph.output,
        cost="squared-error" if graph.cost == SQUARED_ERROR else "cross-entropy",
    )


def _input(source: Population) -> InputSpec:
    offset, gain = source.readout.offset, source.readout.gain
    if (offset, gain) == (0.0, 1.0):
        return InputSpec(shape=source.shape)
    channels = source.shape[0]
    return InputSpec(
        shape=source.shape, mean=(-offset / gain,) * channels, std=(1 / gain,) * channels
    )


def real_box(p: Population) -> tuple[float, float] | None:
    """Box of `p` in real units."""
    if p.box is None:
        return None
    low, high = (p.readout.offset + p.readout.gain * edge for edge in p.box)
    return low, high


def real_weight(graph: Graph, weight: str) -> np.ndarray:
    """The weight of that id in real units, float64."""
    values, p = graph.arrays[weight], graph.tie(weight).first
    if not graph.quantised:
        return values.astype(np.float64)
    shifts = None if p.exponent is None else graph.arrays[p.exponent]
    return shift_channels(values, shifts) * weight_unit(graph, p)


def in_floating_point(graph: Graph) -> Graph:
    """`graph` with the same weights, biases and leaks, all computed in floating point."""
    if not graph.quantised:
        return graph
    arrays = {weight: real_weight(graph, weight).astype(np.float32) for weight in graph.ties}
    for p in graph.neurons:
        if p.bias is not None and p.state is not None:
            arrays[p.bias] = (graph.arrays[p.bias] / p.state.one).astype(np.float32)
    return graph.with_arrays(
        populations=tuple(replace(p, state=None, message=None) for p in graph.populations),
        projections=tuple(replace(p, rescale=None, exponent=None) for p in graph.projections),
        arrays={**graph.arrays, **arrays},
        plasticity=tuple(replace(r, bits=None) for r in graph.plasticity),
    )


def real_bias(graph: Graph, p: Population) -> np.ndarray:
    """Bias of each neuron of `p` in real units, without what `fold_boxes` put into it."""
    one = 1 if p.state is None else p.state.one
    return true_bias(graph, p) * p.readout.gain / one


def _coupling(graph: Graph, c: Coupling) -> CouplingSpec:
    if not isinstance(c.operator, Conv):
        return CouplingSpec(pre=c.pre, post=c.post)
    kernel = graph.arrays[c.weight].shape[-1]
    stride, padding = c.operator.stride, c.operator.padding
    return CouplingSpec(
        pre=c.pre, post=c.post, kind="conv", kernel=kernel, stride=stride, padding=padding
    )
