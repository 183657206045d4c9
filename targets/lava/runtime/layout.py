"""What a session asks its supervisor to build, and the shared memory that this takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compilers.ir.graph import Graph, Population, Shape
from compilers.ir.text import parse_graph, print_graph
from compilers.learning.synapses import Synapses
from targets.interface.fanout import nonzero_synapses_of, synapses_of
from targets.interface.request import Probe
from targets.lava.connections.replicas import copies
from targets.lava.runtime.monitor import COUNTS, PopulationMonitor
from targets.lava.runtime.shared_memory import SharedArrays

BATCHED, FAITHFUL = "batched", "faithful"
"""The two lowerings of a graph."""

INPUT, TARGET, OUTPUT = "x", "y", "output"
"""Shared arrays: the input, the nudge's target and the readout, (batch, *shape)."""

WRITES = "writes"
"""Shared array that counts how often the session has written weights, (1,)."""


@dataclass(frozen=True)
class NetworkLayout:
    """What the supervisor builds.

    Attributes
    ----------
    graph : Graph
        Directed, with one source.
    batch : int
        Samples that settle at once; the first axis of every port.
    steps : int
        Steps of the longest phase that the records have room for.
    probes : tuple of Probe
        Variables that are recorded.
    lowering : str
        ``batched``, or ``faithful``: one sample at a time, stock synapses.
    teaches : bool
        Batched, whether all `batch` samples have to settle at once, as those of a lesson do.
        Faithful, whether the network is made of processes that learn; a batched one always is.
    """

    graph: Graph
    batch: int
    steps: int
    probes: tuple[Probe, ...] = ()
    lowering: str = BATCHED
    teaches: bool = False

    def fits(self, wanted: NetworkLayout) -> bool:
        """Whether what runs in this layout can do what `wanted` is for, too.

        Fewer samples at once cost little, a restart costs seconds: batches may shrink by half.
        Samples that teach run at once, many times over, and not among many that are not there.
        """
        recorded = wanted.steps <= self.steps and set(wanted.probes) <= set(self.probes)
        if self.lowering == FAITHFUL:
            return recorded and self.teaches == wanted.teaches
        if wanted.teaches:
            return recorded and wanted.batch <= self.batch < 2 * wanted.batch
        return recorded and wanted.batch < 2 * self.batch

    def shape(self, population: str) -> Shape:
        """(batch, *shape) of a population."""
        return (self.batch, *self.graph.population(population).shape)

    def monitor(self, shared: SharedArrays, population: Population) -> PopulationMonitor:
        """What records `population` in the `shared` arrays."""
        name, fanout = population.name, synapses_of(self.graph, population)
        nonzero = nonzero_synapses_of(self.graph, population)
        probes = [p.variable for p in self.probes if p.population == name]
        return PopulationMonitor(
            shared, name, fanout, fanout if nonzero is None else nonzero, probes
        )

    @property
    def fields(self) -> dict[str, tuple[str, Shape]]:
        """Data type and shape of the shared arrays.

        Beside `INPUT`, `TARGET`, `OUTPUT` and `WRITES`, each with what it is of: ``array`` (of the
        graph, as the supervisor builds from it), `COUNTS`, ``updates`` (membranes changed),
        ``probe`` (probed variables), ``saturations`` (values that met the end of their format). Of
        a plasticity record, ``weight`` and ``tag`` in the units of `PlasticWeights`, ``tally`` (the
        sum of |change| in real units, and the values clipped), and ``copy``, the matrix (post, pre)
        of a dense process that learns.
        """
        return dict(self._fields())

    @property
    def size(self) -> int:
        """Bytes of the shared arrays."""
        return sum(
            math.prod(shape) * np.dtype(kind).itemsize for _, (kind, shape) in self._fields()
        )

    def allocate(self) -> SharedArrays:
        """New shared arrays, with those of the graph among them."""
        shared = SharedArrays.create(self.fields)
        for name, array in self.graph.arrays.items():
            shared["array", name][...] = array
        return shared

    def message(self, shared: SharedArrays) -> dict[str, Any]:
        """The layout in JSON values, with its `shared` arrays, whose contents are not repeated."""
        graph = print_graph(self.graph, arrays=False)
        probes = [[p.population, p.variable] for p in self.probes]
        layout = {**vars(self), "graph": graph, "probes": probes}
        return {"layout": layout, "fd": shared.fd, "fields": self.fields}

    def _fields(self) -> Iterator[tuple[str, tuple[str, Shape]]]:
        graph, states = self.graph, "int64" if self.graph.quantised else "float64"
        for name, array in graph.arrays.items():
            yield f"array/{name}", (array.dtype.str, array.shape)
        (source,) = graph.sources
        yield INPUT, ("float64", self.shape(source.name))
        yield TARGET, ("float64", self.shape(graph.output))
        yield OUTPUT, ("float64", self.shape(graph.output))
        for p in graph.populations:
            for kind in (*COUNTS, "updates"):
                yield f"{kind}/{p.name}", ("int64", (self.steps, self.batch))
            if graph.quantised:
                yield f"saturations/{p.name}", ("int64", (self.batch,))
        for q in self.probes:
            yield f"probe/{q.name}", (states, (self.steps, *self.shape(q.population)))
        for index, record in enumerate(graph.plasticity):
            s, name = Synapses(graph, index), record.weight
            yield f"tally/{name}", ("float64", (2,))
            if self.lowering == BATCHED or (s.pre is None and graph.quantised):
                yield f"weight/{name}", (states, s.shape)
                yield f"tag/{name}", (states, s.shape)
        if self.teaches and self.lowering == FAITHFUL:
            yield WRITES, ("int64", (1,))
            for copy in copies(graph).values():
                yield f"copy/{copy.name}", ("float64", copy.shape)


def received(message: Mapping[str, Any]) -> tuple[NetworkLayout, SharedArrays]:
    """The layout that became `message`, and its shared arrays, mapped again."""
    shared, given = SharedArrays(message["fd"], message["fields"]), dict(message["layout"])
    names = [key.removeprefix("array/") for key in message["fields"] if key.startswith("array/")]
    graph = parse_graph(given["graph"], {name: shared["array", name].copy() for name in names})
    probes = tuple(Probe(*pair) for pair in given["probes"])
    return NetworkLayout(**{**given, "graph": graph, "probes": probes}), shared


# --- facts about graphs ------------------------------------------------------------------------


def homes(graph: Graph, weight: str) -> int:
    """How many processes of the batched lowering hold `weight`."""
    return sum(tie.weight == weight for tie in graph.tied())


def unreached(graph: Graph) -> list[str]:
    """Populations that no chain of projections joins to the first one."""
    reached: set[str] = set()
    edge = {p.name for p in graph.populations[:1]}
    while edge:
        reached |= edge
        ends = {q for p in graph.projections for q in (p.pre, p.post) if {p.pre, p.post} & edge}
        edge = ends - reached
    return [p.name for p in graph.populations if p.name not in reached]
