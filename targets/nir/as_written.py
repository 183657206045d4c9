"""What NIR nodes compute, as a graph that the executor runs: numbers come from the nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import nir
import numpy as np

from compilers.ir.graph import Conv, Dense, Graph, Operator, Projection


def as_written(graph: Graph, net: nir.NIRGraph) -> Graph:
    """The graph of real numbers that `net` computes, which `graph` was written as.

    Leaks, weights, biases, delays and what leads where are read from the nodes; what NIR has no
    words for, such as boxes, thresholds and phases, is that of `graph`. A coupling is two matrices.
    """
    before: dict[str, list[str]] = {}
    for pre, post in net.edges:
        before.setdefault(post, []).append(pre)
    names = {p.name for p in graph.populations}
    populations, projections, arrays = list(graph.sources), [], {}
    for p in graph.neurons:
        # The filter of a spiking population is the one neuron that feeds another directly.
        filters = [name for name in before[p.name] if isinstance(net.nodes[name], nir.LI)]
        entry = filters[0] if filters else p.name
        node, leak, bias = net.nodes[entry], 1.0, np.zeros(p.size)
        if isinstance(node, nir.LI):
            leak, bias = 1 / _same(node.tau), node.v_leak.astype(np.float64)
        for end in before[entry]:
            pre, nodes = _path(net, before, end, names)
            q, weight, drive = _projection(pre, p.name, nodes, _same(node.r))
            projections.append(q)
            arrays[q.weight] = weight
            bias = bias + drive
        dynamics = replace(p.dynamics, leak=leak)  # type: ignore[arg-type]
        populations.append(replace(p, dynamics=dynamics, bias=f"bias/{p.name}"))
        arrays[f"bias/{p.name}"] = bias.reshape(p.shape)
    return replace(
        graph,
        populations=tuple(populations),
        projections=tuple(projections),
        arrays=arrays,
        plasticity=(),
    )


def _path(
    net: nir.NIRGraph, before: Mapping[str, list[str]], node: str, names: Collection[str]
) -> tuple[str, list[nir.NIRNode]]:
    """What leads through `node`: the population that it starts from, and the nodes in between."""
    nodes = []
    while node not in names:
        nodes.append(net.nodes[node])
        (node,) = before[node]
    return node, nodes


def _projection(
    pre: str, post: str, nodes: Sequence[nir.NIRNode], gain: float
) -> tuple[Projection, np.ndarray, np.ndarray | float]:
    """What `nodes` do with messages, the weight of it, and what they drive `post` with anyway."""
    (linear,) = (n for n in nodes if isinstance(n, nir.Affine | nir.Conv2d))
    delay = 1 + sum(int(_same(n.delay)) for n in nodes if isinstance(n, nir.Delay))
    operator: Operator = Dense()
    drive = 0.0
    if isinstance(linear, nir.Conv2d):
        operator = Conv(linear.stride[0], linear.padding[0])
    else:
        drive = gain * linear.bias
    return Projection(pre, post, operator, f"{pre}->{post}", gain, delay), linear.weight, drive


def _same(values: np.ndarray) -> float:
    """The one value that `values` repeat."""
    (value,) = np.unique(values)
    return float(value)
