"""The nodes of a NIR graph made ready to run: paths between neurons, leaks, constant currents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import nir
import numpy as np

from compilers.ir.graph import Conv, Graph
from compilers.ir.operators import apply


@dataclass(frozen=True)
class Connection:
    """What leads from population `pre` into a neuron: nodes in order, and the steps it takes."""

    pre: str
    nodes: tuple[nir.NIRNode, ...]
    delay: int

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The current that messages `x` (N, ...) become, without biases; (N, size)."""
        for node in self.nodes:
            x = _linear(node, x)
        return x

    @property
    def bias(self) -> np.ndarray | float:
        """The part of the current that no message causes: an `Affine` always ends a path."""
        biases = [node.bias for node in self.nodes if isinstance(node, nir.Affine)]
        return np.sum(biases, axis=0, dtype=np.float64) if biases else 0.0


def _linear(node: nir.NIRNode, x: np.ndarray) -> np.ndarray:
    if isinstance(node, nir.Affine):
        return x.reshape(len(x), -1) @ node.weight.T
    if isinstance(node, nir.Flatten):
        return x.reshape(len(x), -1)
    if isinstance(node, nir.Conv2d):
        operator = Conv(node.stride[0], node.padding[0])
        return apply(operator, node.weight, x, tuple(node.output_type["output"]))
    return x


class Circuit:
    """What `net` computes between two steps; populations by the name in their metadata.

    Numbers come from the nodes, in float64; `graph` says which populations there are.
    """

    def __init__(self, graph: Graph, net: nir.NIRGraph) -> None:
        self.graph, self.net = graph, net
        self._before: dict[str, list[str]] = {}
        for pre, post in net.edges:
            self._before.setdefault(post, []).append(pre)
        self._entry = {p.name: self._entry_of(p.name) for p in graph.neurons}
        self._paths = {
            name: [self._path(node) for node in self._before.get(entry, ())]
            for name, entry in self._entry.items()
        }
        self._sources = {p.name for p in graph.sources}
        recurrent = (p for paths in self._paths.values() for p in paths)
        self.depth = max((p.delay for p in recurrent), default=1)

    def _entry_of(self, name: str) -> str:
        """The node that a population's currents go into."""
        before = self._before.get(name, ())
        # The filter of a spiking population is the one neuron that feeds another directly.
        filters = [node for node in before if isinstance(self.net.nodes[node], nir.LI)]
        return filters[0] if filters else name

    def _path(self, node: str) -> Connection:
        nodes: list[nir.NIRNode] = []
        delay = 1
        names = {p.name for p in self.graph.populations}
        while node not in names:
            found = self.net.nodes[node]
            if isinstance(found, nir.Delay):
                delay += int(found.delay[0])
            elif isinstance(found, nir.Affine):
                weight, bias = (np.asarray(a, np.float64) for a in (found.weight, found.bias))
                found = nir.Affine(weight, bias)
            nodes.insert(0, found)
            (node,) = self._before[node]
        return Connection(node, tuple(nodes), delay)

    def constant(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Currents by population that input `x` (N, *shape) and the biases cause at every step."""
        currents = {}
        for p in self.graph.neurons:
            current = np.zeros((len(x), p.size))
            for path in self._paths[p.name]:
                current = current + path.bias
                if path.pre in self._sources:
                    current = current + path(x)
            currents[p.name] = current
        return currents

    def current(
        self, name: str, past: Mapping[str, tuple[np.ndarray, ...]], constant: np.ndarray
    ) -> np.ndarray:
        """The current into population `name`, given what all others meant in the last steps."""
        current = constant
        for path in self._paths[name]:
            if path.pre not in self._sources:
                current = current + path(past[path.pre][path.delay - 1])
        return current

    def leak(self, name: str, v: np.ndarray, current: np.ndarray) -> np.ndarray:
        """One step of ``tau dv/dt = v_leak - v + r I``; without a filter, the current itself."""
        node = self.net.nodes[self._entry[name]]
        if isinstance(node, nir.IF):
            return current
        return v + (node.v_leak - v + node.r * current) / node.tau

    def gain(self, name: str) -> np.ndarray:
        """What a unit of current adds to the membrane of spiking population `name` in a step."""
        return np.asarray(self.net.nodes[name].r, np.float64)
