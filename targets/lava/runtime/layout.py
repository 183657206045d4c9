"""What a session asks its supervisor to build, and the shared memory that this takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compilers.ir.graph import Graph
from compilers.ir.text import parse_graph, print_graph
from compilers.learning.synapses import Synapses
from targets.interface.fanout import synapses_of
from targets.interface.request import Probe
from targets.lava.connections.replicas import copies
from targets.lava.runtime.shared_memory import Layout, SharedArrays

BATCHED, FAITHFUL = "batched", "faithful"
"""The two lowerings of a graph."""

INPUT, TARGET, OUTPUT = "x", "y", "output"
"""Fields of the board: the input, the nudge's target and the readout, (batch, *shape)."""

WRITES = "writes"
"""Field of the board that counts how often the session has written weights, (1,)."""


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
    strict : bool
        Whether all `batch` samples have to settle at once: they teach.
    teaches : bool
        Whether a faithful network is made of processes that learn; a batched one always is.
    """

    graph: Graph
    batch: int
    steps: int
    probes: tuple[Probe, ...] = ()
    lowering: str = BATCHED
    strict: bool = False
    teaches: bool = False

    @property
    def lead(self) -> int:
        """Time steps before the first one of a phase: a faithful network loads its state."""
        return int(self.lowering == FAITHFUL)

    def fits(self, wanted: NetworkLayout) -> bool:
        """Whether what runs under this plan can do what `wanted` is for, too.

        Fewer samples at once cost little, a restart costs seconds: batches may shrink by half.
        Samples that teach run at once, many times over, and not among many that are not there.
        """
        recorded = wanted.steps <= self.steps and set(wanted.probes) <= set(self.probes)
        if self.lowering == FAITHFUL:
            return recorded and self.teaches == wanted.teaches
        if wanted.strict:
            return recorded and wanted.batch <= self.batch < 2 * wanted.batch
        return recorded and wanted.batch < 2 * self.batch

    def shape(self, population: str) -> tuple[int, ...]:
        """(batch, *shape) of a population."""
        return (self.batch, *self.graph.population(population).shape)

    def probed(self, population: str) -> tuple[str, ...]:
        """Names of the probed variables of a population."""
        return tuple(p.variable for p in self.probes if p.population == population)

    @property
    def layout(self) -> Layout:
        """Fields of the board.

        Beside `INPUT`, `TARGET`, `OUTPUT` and `WRITES`, each with what it is of: ``array`` (of the
        graph, as the supervisor builds from it), ``events``, ``synops``, ``probe`` (messages sent,
        synaptic operations caused, probed variables), ``saturations`` (values that met the end of
        their format). Of a plasticity record, ``weight`` and ``tag`` in the units of
        `PlasticWeights`, ``tally`` (the sum of |change| in real units, and the values clipped), and
        ``copy``, the matrix (post, pre) of a dense process that learns.
        """
        return dict(self._fields())

    def board(self) -> SharedArrays:
        """A new board for this plan, with the arrays of the graph on it."""
        board = SharedArrays.create(self.layout)
        for name, array in self.graph.arrays.items():
            board["array", name][...] = array
        return board

    def message(self, board: SharedArrays) -> dict[str, Any]:
        """The plan in JSON values, with its `board`, whose arrays are not repeated."""
        return {
            "graph": print_graph(self.graph, arrays=False),
            "arrays": list(self.graph.arrays),
            "batch": int(self.batch),
            "steps": int(self.steps),
            "probes": [[p.population, p.variable] for p in self.probes],
            "lowering": self.lowering,
            "strict": self.strict,
            "teaches": self.teaches,
            "fd": board.fd,
            "layout": {name: [dtype, list(shape)] for name, (dtype, shape) in self.layout.items()},
        }

    def _fields(self) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
        for name, array in self.graph.arrays.items():
            yield f"array/{name}", (array.dtype.str, array.shape)
        (source,) = self.graph.sources
        yield INPUT, ("float64", self.shape(source.name))
        yield TARGET, ("float64", self.shape(self.graph.output))
        yield OUTPUT, ("float64", self.shape(self.graph.output))
        for p in self.graph.populations:
            yield f"events/{p.name}", ("int64", (self.steps, self.batch))
            yield f"synops/{p.name}", ("int64", (self.steps, self.batch))
            if self.graph.quantised:
                yield f"saturations/{p.name}", ("int64", (self.batch,))
        states = "int64" if self.graph.quantised else "float64"
        for q in self.probes:
            shape = (self.steps, *self.shape(q.population))
            yield f"probe/{q.name}", (states, shape)
        yield from self._learning_fields(states)

    def _learning_fields(self, states: str) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
        for s in plastic_synapses(self.graph):
            name = s.record.weight
            yield f"tally/{name}", ("float64", (2,))
            if self.lowering == BATCHED or (s.pre is None and self.graph.quantised):
                yield f"weight/{name}", (states, s.shape)
                yield f"tag/{name}", (states, s.shape)
        if self.teaches:
            yield WRITES, ("int64", (1,))
            for copy in copies(self.graph).values():
                yield f"copy/{copy.name}", ("float64", copy.shape)


def received(message: Mapping[str, Any]) -> tuple[NetworkLayout, SharedArrays]:
    """The plan that became `message`, and its board, mapped again."""
    layout = {name: (dtype, tuple(shape)) for name, (dtype, shape) in message["layout"].items()}
    board = SharedArrays(message["fd"], layout)
    arrays = {name: board["array", name].copy() for name in message["arrays"]}
    return (
        NetworkLayout(
            graph=parse_graph(message["graph"], arrays),
            batch=message["batch"],
            steps=message["steps"],
            probes=tuple(Probe(*pair) for pair in message["probes"]),
            lowering=message["lowering"],
            strict=message["strict"],
            teaches=message["teaches"],
        ),
        board,
    )


def plastic_synapses(graph: Graph) -> list[Synapses]:
    """The synapses of each plasticity record, in order."""
    return [Synapses(graph, i) for i in range(len(graph.plasticity))]


def layout_bytes(layout: Layout) -> int:
    """Bytes that the fields of `layout` hold."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in layout.values())


# --- facts about graphs ------------------------------------------------------------------------


def homes(graph: Graph, weight: str) -> int:
    """How many processes of the batched lowering hold `weight`."""
    return sum(tie.weight == weight for tie in graph.tied())


def synapses(graph: Graph) -> int:
    """Synaptic operations of one step in which every neuron sends."""
    return sum(int(synapses_of(graph, p).sum()) for p in graph.neurons)


def unreached(graph: Graph) -> list[str]:
    """Populations that no chain of projections joins to the first one."""
    reached: set[str] = set()
    edge = {p.name for p in graph.populations[:1]}
    while edge:
        reached |= edge
        ends = {q for p in graph.projections for q in (p.pre, p.post) if {p.pre, p.post} & edge}
        edge = ends - reached
    return [p.name for p in graph.populations if p.name not in reached]


def without_format(graph: Graph) -> list[str]:
    """What an integer graph lacks to be one throughout: populations and projections by name."""
    if not graph.quantised:
        return []
    neurons = {p.name for p in graph.neurons}
    populations = [
        p.name
        for p in graph.populations
        if p.message is None or (p.name in neurons and p.state is None)
    ]
    return populations + [p.name for p in graph.projections if p.rescale is None]
