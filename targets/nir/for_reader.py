"""From a graph to the nodes that one reader takes, such that its own step computes ours."""

from __future__ import annotations

import math
import warnings
from typing import Any

import nir
import numpy as np

from compilers.ir import graph as ir
from compilers.passes.encode import with_spiking
from ep_neuro.errors import TargetError
from targets.nir.convolutions import conv2d, convolutions
from targets.nir.export import Export, population_facts, unrolled
from targets.nir.kernel_shapes import MATRIX_BYTES, keeps_planes, plane, weight_bytes
from targets.nir.readers import MEMBRANE, Reader


class ReaderWarning(UserWarning):
    """What a reader of a NIR file loses of the network."""


def written_for(graph: ir.Graph, reader: Reader) -> nir.NIRGraph:
    """The NIR graph of `graph` in nodes that `reader` takes, its name in the metadata.

    A spiking population is a ``CubaLIF``, whose synapse is the filter of the current and whose
    membrane forgets a millionth a step, or an ``IF``, behind an ``LI`` unless its leak is 1. Where
    the reader's filter scales its drive otherwise than ours, weights and biases undo that. What
    carries no bias is ``Linear`` if the reader takes it. Where nothing has a bias, one more input
    brings it: it is 1 at every step. Where populations are planes and a bias differs within a
    channel, it is the last pixel of one more channel.
    """
    return _export(graph, reader).build()


def _export(graph: ir.Graph, reader: Reader) -> ForReader:
    export = ForReader(graph, reader.planes and keeps_planes(graph), reader)
    sides = {plane(p.shape)[1:] for p in graph.populations}
    if export.lone and export.planes and any(rows != columns for rows, columns in sides):
        export = ForReader(graph, False, reader)
    return export


class ForReader(Export):
    """`Export` in the words of one reader."""

    def __init__(self, graph: ir.Graph, planes: bool, reader: Reader) -> None:
        super().__init__(graph, planes)
        self.reader, self.biased = reader, "Affine" in reader.takes
        self.gain = {p.name: reader.gain(_leak(p)) for p in graph.neurons}
        for name, bias in self.bias.items():
            self.bias[name] = bias * np.float32(self.gain[name])
        fit = super().hosts() if self.biased else {}
        # Populations whose bias one more input brings.
        self.lone = {
            p.name for p in graph.neurons if (planes or not self.biased) and p.name not in fit
        }

    def build(self) -> nir.NIRGraph:
        net = super().build()
        net.metadata |= {"reader": self.reader.name, "dt": self.reader.dt}
        return net

    def hosts(self) -> dict[str, str]:
        return super().hosts() | dict.fromkeys(self.lone, "")

    def _matrix(self, p: ir.Projection) -> bool:
        return not self.planes

    def _weight(self, p: ir.Projection) -> np.ndarray:
        return super()._weight(p) * self.gain[p.post]

    def _affine(self, p: ir.Projection, weight: np.ndarray, bias: np.ndarray) -> nir.NIRNode:
        matrix = unrolled(self.graph, p, weight)
        if self.lone and isinstance(self.graph.population(p.pre).dynamics, ir.Source):
            matrix = np.pad(matrix, ((0, 0), (0, 1)))
        linear = "Linear" in self.reader.takes and not bias.any()
        return nir.Linear(matrix) if linear else nir.Affine(matrix, bias)

    def _convolved(self, p: ir.Projection, weight: np.ndarray) -> list[nir.Conv2d]:
        pre, post = self.graph.population(p.pre), self.graph.population(p.post)
        shape = pre.shape
        if isinstance(pre.dynamics, ir.Source) and self.lone:
            shape = self._with_lone(plane(shape))
            more = math.prod(shape[1:]) if isinstance(p.operator, ir.Dense) else 1
            weight = np.pad(weight, [(0, 0), (0, more), *[(0, 0)] * (weight.ndim - 2)])
        return convolutions(p.operator, weight, shape, post.shape)

    def _population(self, p: ir.Population, bias_elsewhere: bool) -> None:
        facts, shape = population_facts(p), self._written_shape(p)
        if isinstance(p.dynamics, ir.Source):
            shape = self._with_lone(shape)
            self.nodes[p.name] = nir.Input(np.array(shape), metadata=facts)
            return
        leak, reader, entry = _leak(p), self.reader, p.name
        ones = np.ones(shape, np.float32)
        none = np.zeros_like(ones)
        tau = ones * np.float32(reader.tau(leak))
        levels: dict[str, Any] = {"v_threshold": ones, "v_reset": none, "metadata": facts}
        if reader.neuron == "LI":
            self.nodes[p.name] = nir.LI(tau=tau, r=ones, v_leak=none, metadata=facts)
        elif reader.neuron == "CubaLIF" and not (reader.plain and leak == 1):
            membrane = {"tau_mem": ones * np.float32(MEMBRANE * reader.dt), "r": ones * MEMBRANE}
            w_in = ones / np.float32(self.gain[p.name])
            self.nodes[p.name] = nir.CubaLIF(
                tau_syn=tau, w_in=w_in, v_leak=none, **membrane, **levels
            )
        else:
            if leak != 1:
                entry = self._fresh(f"{p.name}_current")
                filters = {"population": p.name, "variable": "u"}
                self.nodes[entry] = nir.LI(tau=tau, r=ones, v_leak=none, metadata=filters)
                self.edges.append((entry, p.name))
            self.nodes[p.name] = nir.IF(r=ones, **levels)
        self.entry[p.name] = entry
        if p.name in self.lone:
            (source,) = self.graph.sources
            node = self._brought(self.bias[p.name].reshape(shape), self._written_shape(source))
            node.metadata = {"bias": p.name}
            name = self._chain(source.name, self._fresh(f"{p.name}_bias"), node)
            self.edges.append((name, entry))

    def _with_lone(self, shape: ir.Shape) -> ir.Shape:
        """`shape` of the input, with room for what brings biases."""
        return (shape[0] + 1, *shape[1:]) if self.lone else shape

    def _brought(self, bias: np.ndarray, source: ir.Shape) -> nir.NIRNode:
        """What makes `bias` of the last input alone, which is 1."""
        if not self.planes:
            lone = np.zeros((bias.size, source[0] + 1), np.float32)
            lone[:, -1] = bias
            return nir.Linear(lone)
        # Of one pixel a convolution makes its kernel, turned.
        side, padding = source[1], bias.shape[1] - 1
        kernel = np.zeros((len(bias), source[0] + 1, *[side + padding] * 2), np.float32)
        kernel[:, -1, side - 1 :, side - 1 :] = bias[:, ::-1, ::-1]
        return conv2d(kernel, source[1:], padding=padding)


def _leak(p: ir.Population) -> float:
    assert not isinstance(p.dynamics, ir.Source)
    return p.dynamics.leak


def fitting(graph: ir.Graph, reader: Reader) -> ir.Graph:
    """`graph` with the reset that `reader` has; warns of what it loses.

    Raises
    ------
    TargetError
        If `reader` has no words for it.
    """
    wanted = "graded" if reader.neuron == "LI" else "spike"
    where = f"reader '{reader.name}'"
    if graph.encoding != wanted:
        problem = f"its neurons are {reader.neuron}, and messages are {graph.encoding}"
        raise TargetError(where, problem, f"compile with --code {wanted}")
    resets = {p.dynamics.reset for p in graph.neurons if isinstance(p.dynamics, ir.Spiking)}
    if reader.resets == ("hard",):
        graph, resets = with_spiking(graph, reset="hard"), {"hard"}
    if not resets <= {*reader.resets}:
        problem = "a spike takes 1 off its membranes, and those of this network are to be emptied"
        raise TargetError(where, problem, "compile with --reset soft, or for norse or snntorch")
    late = [q for q in graph.projections if q.delay > 1]
    if late:
        problem = f"it takes no Delay, and '{late[0].name}' has one of {late[0].delay - 1}"
        raise TargetError(where, problem, "compile without delays of more than a step")
    if reader.filters == "decaying" and any(_leak(p) == 1 for p in graph.neurons):
        problem = "its filter passes nothing on at a leak of 1"
        raise TargetError(where, problem, "compile with --leak 0.5")
    neurons = sum(p.size for p in graph.neurons)
    if reader.neurons is not None and neurons > reader.neurons:
        problem = f"{neurons} neurons exceed the {reader.neurons} of one chip"
        raise TargetError(where, problem, "narrow the layers")
    planes = _export(graph, reader).planes
    taken = sum(weight_bytes(graph, q, planes) for q in graph.projections)
    if taken > MATRIX_BYTES:
        problem = f"matrices for it take {taken:g} bytes, above {MATRIX_BYTES:g}"
        raise TargetError(where, problem, "narrow the feature maps")
    tested = f"{reader.tested} tested" if reader.tested else "untested, from its source"
    call = reader.hard if "hard" in resets and reader.hard else reader.call
    lost = f"{where} ({tested}) loses: {reader.loses}; load it by {call}"
    warnings.warn(lost, ReaderWarning, stacklevel=2)
    return graph
