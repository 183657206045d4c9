"""From a graph to NIR: which nodes a population and a projection become."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from compilers.ir import graph as ir
from compilers.ir.operators import apply, shift_channels
from compilers.ir.text import print_graph
from ep_neuro.deployment.nudgeable import SQUARED_ERROR
from targets.nir.convolutions import convolutions
from targets.nir.kernel_shapes import keeps_planes, plane, stays_convolution

FORMATS = ("ep-neuro graph 1", "ep-neuro graph 2")
"""Name and version of the metadata that `targets.nir.files` reads back: of flat populations, and of
planes."""

ROWS = 256
"""Unit vectors that go through an operator at once when it is unrolled."""


def to_nir(graph: ir.Graph, planes: bool | None = None) -> nir.NIRGraph:
    """The NIR graph of `graph`: nodes that any reader may run, and metadata that loses nothing.

    Time constants are in steps: forward Euler with dt = 1, each edge reading the values of the
    step before, is what the graph computes, up to what stands in the metadata alone.

    ===================== ======================================================================
    in the graph          in NIR
    ===================== ======================================================================
    `Source`              ``Input``
    `Graded`              ``LI``, tau = 1 / leak; box in the metadata
    `SigmaDelta`          the same; threshold in the metadata
    `Spiking`             ``LI`` (the current; none if leak = 1), then ``IF`` with r = 1 and
                          threshold 1; soft reset, start at 0.5 and bound in the metadata
    projection            ``Conv2d`` if populations are planes, one more where feedback is strided;
                          else ``Affine``, or ``Conv2d`` and ``Flatten`` out of the input
    bias                  bias of the first ``Affine`` of its population, or of its first ``Conv2d``
                          if populations are planes and it is even over each; else ``v_leak``
    delay > 1             ``Delay`` of delay - 1
    ===================== ======================================================================

    ``Affine`` with a zero bias stands where ``Linear`` would do, because more tools read it.
    Gains are folded into the weights, in float32; integers are written as the reals they stand for.

    Parameters
    ----------
    graph : Graph
    planes : bool, optional
        Whether populations are planes (channels, rows, columns), or flat; by default what
        `targets.nir.kernel_shapes.keeps_planes` says.

    Raises
    ------
    ValueError
        From NIR's own type check, if the graph is inconsistent.
    """
    return Export(graph, keeps_planes(graph) if planes is None else planes).build()


class Export:
    """One graph on its way to NIR; what some readers want otherwise is in `for_reader`."""

    def __init__(self, graph: ir.Graph, planes: bool) -> None:
        self.graph, self.planes = graph, planes
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        # Populations keep their names; what stands between them yields.
        self.taken = {p.name for p in graph.populations}
        self.entry: dict[str, str] = {}
        self.flat: dict[str, str] = {}
        self.bias = {p.name: _real_bias(graph, p) for p in graph.neurons}

    def build(self) -> nir.NIRGraph:
        hosts = self.hosts()
        for p in self.graph.populations:
            self._population(p, p.name in hosts)
        for q in self.graph.projections:
            self._projection(q, hosts.get(q.post) == q.name)
        output = self.graph.population(self.graph.output)
        node = nir.Output(np.array(self._written_shape(output)), metadata=_output_facts(output))
        self._chain(output.name, self._fresh("output"), node)
        facts = {"format": FORMATS[self.planes], **_graph_facts(self.graph)}
        return nir.NIRGraph(self.nodes, self.edges, metadata=facts)

    def hosts(self) -> dict[str, str]:
        """The projection that carries the bias, by population, of those that have one that can."""
        return {p.post: p.name for p in reversed(self.graph.projections) if self._fits_bias(p)}

    def _weight(self, p: ir.Projection) -> np.ndarray:
        return real_weight(self.graph, p)

    def _affine(self, p: ir.Projection, weight: np.ndarray, bias: np.ndarray) -> nir.NIRNode:
        return nir.Affine(unrolled(self.graph, p, weight), bias)

    def _convolved(self, p: ir.Projection, weight: np.ndarray) -> list[nir.Conv2d]:
        pre, post = self.graph.population(p.pre), self.graph.population(p.post)
        return convolutions(p.operator, weight, pre.shape, post.shape)

    def _matrix(self, p: ir.Projection) -> bool:
        return not (self.planes or stays_convolution(self.graph, p))

    def _fits_bias(self, p: ir.Projection) -> bool:
        """Whether `p` can carry the bias of its population, which a ``Conv2d`` has by channel."""
        if not self.planes:
            return self._matrix(p)
        bias = self.bias[p.post].reshape(plane(self.graph.population(p.post).shape)[0], -1)
        return bool((bias == bias[:, :1]).all())

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _chain(self, before: str, name: str, node: nir.NIRNode) -> str:
        self.nodes[name] = node
        self.edges.append((before, name))
        return name

    def _population(self, p: ir.Population, bias_elsewhere: bool) -> None:
        facts = population_facts(p)
        if isinstance(p.dynamics, ir.Source):
            self.nodes[p.name] = nir.Input(np.array(self._written_shape(p)), metadata=facts)
            return
        ones = np.ones(self._written_shape(p), np.float32)
        bias = np.zeros_like(ones) if bias_elsewhere else self.bias[p.name].reshape(ones.shape)
        tau = (ones / p.dynamics.leak).astype(np.float32)
        if not isinstance(p.dynamics, ir.Spiking):
            self.nodes[p.name] = nir.LI(tau=tau, r=ones, v_leak=bias, metadata=facts)
            self.entry[p.name] = p.name
            return
        spikes = nir.IF(r=ones, v_threshold=ones, v_reset=np.zeros_like(ones), metadata=facts)
        if p.dynamics.leak == 1 and bias_elsewhere:
            self.nodes[p.name] = spikes
            self.entry[p.name] = p.name
            return
        current = self.entry[p.name] = self._fresh(f"{p.name}_current")
        filters = {"population": p.name, "variable": "u"}
        self.nodes[current] = nir.LI(tau=tau, r=ones, v_leak=bias, metadata=filters)
        self._chain(current, p.name, spikes)

    def _projection(self, p: ir.Projection, carries_bias: bool) -> None:
        post = self.graph.population(p.post)
        name = self._fresh(f"{p.pre}_to_{p.post}")
        weight, facts = self._weight(p), _projection_facts(p)
        bias = self.bias[p.post] if carries_bias else np.zeros(post.size, np.float32)
        if self._matrix(p):
            matrix = self._affine(p, weight, bias)
            matrix.metadata = facts
            last = self._chain(self._flattened(p.pre), name, matrix)
        else:
            last = p.pre
            *spread, kernel = self._convolved(p, weight)
            for node in spread:
                last = self._chain(last, self._fresh(f"{name}_spread"), node)
            kernel.bias, kernel.metadata = bias.reshape(len(kernel.bias), -1)[:, 0].copy(), facts
            last = self._chain(last, name, kernel)
            last = last if self.planes else self._flatten(last, post.shape)
        if p.delay > 1:
            delay = nir.Delay(np.full(self._written_shape(post), p.delay - 1, np.float32))
            last = self._chain(last, self._fresh(f"{name}_delay"), delay)
        self.edges.append((last, self.entry[p.post]))

    def _flattened(self, name: str) -> str:
        """The node of population `name` whose output is one-dimensional."""
        shape = self._written_shape(self.graph.population(name))
        if len(shape) == 1:
            return name
        if name not in self.flat:
            self.flat[name] = self._flatten(name, shape)
        return self.flat[name]

    def _written_shape(self, p: ir.Population) -> tuple[int, ...]:
        """Flat unless a convolution needs the shape: readers differ on what ``Flatten`` means."""
        if self.planes:
            return plane(p.shape)
        convolved = any(not self._matrix(q) for q in self.graph.out_of(p.name))
        return p.shape if convolved else (p.size,)

    def _flatten(self, before: str, shape: tuple[int, ...]) -> str:
        node = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
        return self._chain(before, self._fresh(f"{before}_flat"), node)


# --- numbers -----------------------------------------------------------------------------------


def real_weight(graph: ir.Graph, p: ir.Projection) -> np.ndarray:
    """The weight of `p` with its gain, in real numbers, float64, in the weight's own shape."""
    weight = graph.arrays[p.weight]
    if p.rescale is None:
        return weight.astype(np.float64) * p.scale
    exponent = None if p.exponent is None else graph.arrays[p.exponent]
    pre, post = graph.population(p.pre), graph.population(p.post)
    power = p.rescale.shift + _frac(pre.message) - _frac(post.state)
    integers = shift_channels(weight, exponent).astype(np.float64)
    return integers * p.rescale.multiplier * 2.0**power


def unrolled(graph: ir.Graph, p: ir.Projection, weight: np.ndarray) -> np.ndarray:
    """The matrix (post size, pre size) of `p` with `weight`, float32."""
    if isinstance(p.operator, ir.Dense | ir.DenseTranspose):
        matrix = weight if isinstance(p.operator, ir.Dense) else weight.T
        return np.ascontiguousarray(matrix, np.float32)
    pre, post = graph.population(p.pre), graph.population(p.post)
    matrix = np.empty((post.size, pre.size), np.float32)
    for first in range(0, pre.size, ROWS):
        rows = min(ROWS, pre.size - first)
        units = np.eye(rows, pre.size, first).reshape(rows, *pre.shape)
        images = apply(p.operator, weight, units, post.shape)
        matrix[:, first : first + rows] = images.reshape(rows, -1).T
    return matrix


def _real_bias(graph: ir.Graph, p: ir.Population) -> np.ndarray:
    if p.bias is None:
        return np.zeros(p.size, np.float32)
    bias = graph.arrays[p.bias].astype(np.float64).ravel()
    return (bias * 2.0 ** -_frac(p.state)).astype(np.float32)


def _frac(number: ir.FixedPoint | None) -> int:
    return 0 if number is None else number.frac


# --- metadata ----------------------------------------------------------------------------------


def _graph_facts(graph: ir.Graph) -> dict[str, Any]:
    return {
        "encoding": graph.encoding,
        "dt": 1.0,
        "timestep": graph.timestep,
        "records": print_graph(graph),
        "arrays": dict(sorted(graph.arrays.items())),
        **({} if graph.cost == SQUARED_ERROR else {"cost": graph.cost}),
    }


def population_facts(p: ir.Population) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "population": p.name,
        "dynamics": type(p.dynamics).__name__,
        "shape": np.array(p.shape),
        **_dynamics_facts(p.dynamics),
    }
    if p.box is not None:
        facts["box"] = np.array(p.box, np.float64)
    for key, number in (("state_format", p.state), ("message_format", p.message)):
        if number is not None:
            facts[key] = np.array([number.bits, number.frac])
    return facts


def _dynamics_facts(d: ir.Dynamics) -> dict[str, Any]:
    if isinstance(d, ir.SigmaDelta):
        return {"threshold": np.array([d.start, d.end, d.decay])}
    if isinstance(d, ir.Spiking):
        reset = {"soft": "subtract", "hard": "zero"}[d.reset]
        return {"reset": reset, "v_start": 0.5, "v_bounds": np.array([-d.bound, 1 + d.bound])}
    return {}


def _output_facts(p: ir.Population) -> dict[str, Any]:
    return {"readout": np.array([p.readout.offset, p.readout.gain])}


def _projection_facts(p: ir.Projection) -> dict[str, Any]:
    return {"projection": p.name, "tie": p.weight, "operator": repr(p.operator)}
