"""What NIR nodes compute, as a graph that the executor runs: numbers come from the nodes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from compilers.execution.maps import Apply, channels_first, channels_last
from compilers.ir.graph import Graph, Shape
from targets.nir.linear_nodes import bias_of, linear_map
from targets.nir.readers import Reader, reader_of


def as_written(graph: Graph, net: nir.NIRGraph) -> tuple[Graph, dict[str, Apply]]:
    """The graph of real numbers that `net` computes, which `graph` was written as, and its maps.

    Leaks, biases, delays and what leads where are read from the nodes; what NIR has no words for,
    such as boxes, thresholds and phases, is that of `graph`. The maps are what the nodes do with
    messages, by projection, in place of operators and weights.
    """
    before: dict[str, list[str]] = {}
    for pre, post in net.edges:
        before.setdefault(post, []).append(pre)
    names = {p.name for p in graph.populations}
    between = {(q.pre, q.post): q for q in graph.projections}
    name = net.metadata.get("reader")
    reader = None if name is None else reader_of(name)
    populations, projections, biases = list(graph.sources), [], {}
    maps: dict[str, Apply] = {}
    for p in graph.neurons:
        # The filter of a spiking population is the one neuron that feeds another directly.
        filters = [name for name in before[p.name] if isinstance(net.nodes[name], nir.LI)]
        entry = filters[0] if filters else p.name
        leak, gain, bias = _entry(net.nodes[entry], reader, p.size)
        for end in before[entry]:
            pre, nodes = _path(net, before, end, names)
            linear, drive = _through(nodes, p.shape)
            bias = bias + gain * drive
            if "bias" in nodes[-1].metadata:
                continue
            delay = 1 + sum(int(_same(n.delay)) for n in nodes if isinstance(n, nir.Delay))
            q = replace(between[pre, p.name], scale=gain, delay=delay)
            maps[q.name] = linear
            projections.append(q)
        dynamics = replace(p.dynamics, leak=leak)  # type: ignore[arg-type]
        populations.append(replace(p, dynamics=dynamics, bias=f"bias/{p.name}"))
        biases[f"bias/{p.name}"] = bias.reshape(p.shape)
    written = replace(
        graph,
        populations=tuple(populations),
        projections=tuple(projections),
        arrays={**graph.arrays, **biases},
        plasticity=(),
    )
    return written, maps


def _entry(node: nir.NIRNode, reader: Reader | None, size: int) -> tuple[float, float, np.ndarray]:
    """Leak, gain of the drive, and constant drive of the neurons at which drives arrive."""
    if isinstance(node, nir.LI | nir.CubaLIF) and reader is not None:
        # What a float32 has in excess of 1 is no leak.
        tau = node.tau if isinstance(node, nir.LI) else node.tau_syn
        leak = min(1.0, reader.leak(_same(tau)))
        return leak, 1 / reader.gain(leak), np.zeros(size)
    if isinstance(node, nir.LI):
        return 1 / _same(node.tau), _same(node.r), node.v_leak.astype(np.float64).ravel()
    return 1.0, _same(node.r), np.zeros(size)


def _path(
    net: nir.NIRGraph, before: Mapping[str, list[str]], node: str, names: Collection[str]
) -> tuple[str, list[nir.NIRNode]]:
    """What leads through `node`: the population that it starts from, and the nodes from there."""
    nodes: list[nir.NIRNode] = []
    while node not in names:
        nodes.insert(0, net.nodes[node])
        (node,) = before[node]
    return node, nodes


def _through(nodes: Sequence[nir.NIRNode], post: Shape) -> tuple[Apply, np.ndarray]:
    """What `nodes` do with messages to a population of shape `post`, and what they add anyway."""
    linear = [(linear_map(n), n) for n in nodes if not isinstance(n, nir.Delay)]

    size = math.prod(nodes[0].input_type["input"])

    def apply(x: Tensor) -> Tensor:
        x = channels_first(x).double().flatten(1)
        # An input more, of biases alone, is not for messages.
        x = pad(x, (0, size - x.shape[1]))
        for mapped, _ in linear:
            x = mapped(x)
        return channels_last(x.reshape(-1, *post))

    drive = torch.zeros(1, size, dtype=torch.float64)
    if "bias" in nodes[-1].metadata:
        drive[:, -1] = 1
    for mapped, node in linear:
        drive = mapped(drive) + bias_of(node)
    return apply, drive.numpy()[0]


def _same(values: np.ndarray) -> float:
    """The one value that `values` repeat."""
    (value,) = np.unique(values)
    return float(value)
