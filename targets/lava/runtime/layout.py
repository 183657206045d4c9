"""What a session asks its supervisor to build, and the shared memory that this takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from compilers.ir.graph import Graph, Population, Shape, Spiking
from compilers.ir.text import parse_graph, print_graph
from compilers.learning.synapses import Synapses
from targets.interface.fanout import nonzero_synapses_of, synapses_of
from targets.interface.request import Probe, variables
from targets.lava.connections.replicas import WeightReplica, copies, unlearnable
from targets.lava.runtime.monitor import COUNTS, PopulationMonitor
from targets.lava.runtime.shared_memory import PLANNED, PhaseCommand, SharedArrays, size_of

BATCHED, FAITHFUL = "batched", "faithful"
"""The two lowerings of a graph."""

INPUT, TARGET, OUTPUT = "x", "y", "output"
"""Shared arrays: the input, the nudge's target, (batch, *shape), and the readout of each command of
a plan."""

WRITES = "writes"
"""Shared array that counts how often the session has written weights, (1,)."""

RECORDS, PROBED = "records", "probed"
"""Shared arrays: bytes in which each command has its records, (slots, room), and which of
`NetworkLayout.probes` are among them."""


@dataclass(frozen=True)
class NetworkLayout:
    """What the supervisor builds: one network for all that a session does.

    How many samples settle at once, for how many steps, what is recorded, whether a nudge acts and
    whether weights change is said phase by phase (`targets.lava.runtime.shared_memory`).
    """

    graph: Graph
    """Directed, with one source."""
    batch: int
    """Most samples that settle at once; the first axis of every port."""
    room: int
    """Bytes that the records of a phase may take; those that no phase takes are no memory yet."""
    lowering: str = BATCHED
    """``batched``, or ``faithful``: one sample at a time, stock synapses."""

    @property
    def copies(self) -> dict[str, WeightReplica]:
        """What Lava's own rule changes, by projection or bias; the batched lowering has none."""
        graph = self.graph
        if self.lowering == BATCHED or not graph.plasticity or unlearnable(graph):
            return {}
        return copies(graph)

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Everything that can be recorded."""
        return tuple(Probe(p.name, v) for p in self.graph.populations for v in variables(p))

    def shape(self, population: str) -> Shape:
        """(batch, *shape) of a population."""
        return (self.batch, *self.graph.population(population).shape)

    def monitor(self, shared: SharedArrays, population: Population) -> PopulationMonitor:
        """What records `population` in the `shared` arrays."""
        fanout = synapses_of(self.graph, population)
        nonzero = nonzero_synapses_of(self.graph, population)
        met = (fanout, fanout if nonzero is None else nonzero)
        return PopulationMonitor(shared, population.name, *met, partial(self.recorded, shared))

    def recorded(self, shared: SharedArrays, command: PhaseCommand) -> dict[str, np.ndarray]:
        """The records of the phase of `command` in the `shared` arrays; see `records`."""
        probed = [p for p, on in zip(self.probes, shared[PROBED], strict=True) if on]
        records = self.records(command.steps, command.rows, probed)
        return shared.within(RECORDS, command.slot, records)

    def records(
        self, steps: int, rows: int, probes: Sequence[Probe]
    ) -> dict[str, tuple[str, Shape]]:
        """Data type and shape of what a phase of `rows` samples leaves in `RECORDS`.

        `COUNTS`, ``updates`` (membranes changed) and ``probe`` (probed variables), each with what
        it is of.
        """
        names, kinds = [p.name for p in self.graph.populations], (*COUNTS, "updates")
        counts = {f"{kind}/{n}": ("int64", (steps, rows)) for kind in kinds for n in names}
        shape = {p.name: (steps, rows, *p.shape) for p in self.graph.populations}
        return {**counts, **{f"probe/{q.name}": (self._state, shape[q.population]) for q in probes}}

    def rows(self, samples: int, steps: int, probes: Sequence[Probe]) -> int:
        """In how many samples at a time to divide `samples`: equally, within the room."""
        most = min(self.batch, self.room // size_of(self.records(steps, 1, probes)))
        return math.ceil(samples / math.ceil(samples / most))

    @property
    def fields(self) -> dict[str, tuple[str, Shape]]:
        """Data type and shape of the shared arrays.

        Beside `INPUT`, `TARGET`, `OUTPUT`, `RECORDS`, `PROBED` and `WRITES`, each with what it is
        of: ``array`` (of the graph, as the supervisor builds from it) and ``saturations`` (values
        that met the end of their format). Of a plasticity record, ``weight`` and ``tag`` in the
        units of `PlasticWeights`, ``tally`` (the sum of |change| in real units, and the values
        clipped), and ``copy``, the matrix (post, pre) of a dense process that learns.
        """
        return dict(self._fields())

    @property
    def _state(self) -> str:
        return "int64" if self.graph.quantised else "float64"

    def allocate(self) -> SharedArrays:
        """New shared arrays, with those of the graph among them."""
        shared = SharedArrays.create(self.fields)
        for name, array in self.graph.arrays.items():
            shared["array", name][...] = array
        return shared

    def message(self, shared: SharedArrays) -> dict[str, Any]:
        """The layout in JSON values, with its `shared` arrays, whose contents are not repeated."""
        graph = print_graph(self.graph, arrays=False)
        return {"layout": {**vars(self), "graph": graph}, "fd": shared.fd, "fields": self.fields}

    def _fields(self) -> Iterator[tuple[str, tuple[str, Shape]]]:
        graph, states = self.graph, self._state
        for name, array in graph.arrays.items():
            yield f"array/{name}", (array.dtype.str, array.shape)
        (source,), slots = graph.sources, max(PLANNED, len(graph.phases))
        yield INPUT, ("float64", self.shape(source.name))
        yield TARGET, ("float64", self.shape(graph.output))
        yield OUTPUT, ("float64", (slots, *self.shape(graph.output)))
        yield RECORDS, ("uint8", (slots, self.room))
        yield PROBED, ("bool", (len(self.probes),))
        for p in graph.populations if graph.quantised else ():
            yield f"saturations/{p.name}", ("int64", (slots, self.batch))
        for index, record in enumerate(graph.plasticity):
            s, name = Synapses(graph, index), record.weight
            yield f"tally/{name}", ("float64", (2,))
            if self.lowering == BATCHED or (s.pre is None and graph.quantised):
                yield f"weight/{name}", (states, s.shape)
                yield f"tag/{name}", (states, s.shape)
        if self.copies:
            yield WRITES, ("int64", (1,))
            for copy in self.copies.values():
                yield f"copy/{copy.name}", ("float64", copy.shape)


def received(message: Mapping[str, Any]) -> tuple[NetworkLayout, SharedArrays]:
    """The layout that became `message`, and its shared arrays, mapped again."""
    shared, given = SharedArrays(message["fd"], message["fields"]), dict(message["layout"])
    names = [key.removeprefix("array/") for key in message["fields"] if key.startswith("array/")]
    graph = parse_graph(given["graph"], {name: shared["array", name].copy() for name in names})
    return NetworkLayout(**{**given, "graph": graph}), shared


# --- facts about graphs ------------------------------------------------------------------------


def homes(graph: Graph, weight: str) -> int:
    """How many processes of the batched lowering hold `weight`."""
    return sum(tie.weight == weight for tie in graph.tied())


def only_spikes(graph: Graph) -> bool:
    """Whether all neurons spike, in integers."""
    return graph.quantised and all(isinstance(p.dynamics, Spiking) for p in graph.neurons)


def unreached(graph: Graph) -> list[str]:
    """Populations that no chain of projections joins to the first one."""
    reached: set[str] = set()
    edge = {p.name for p in graph.populations[:1]}
    while edge:
        reached |= edge
        ends = {q for p in graph.projections for q in (p.pre, p.post) if {p.pre, p.post} & edge}
        edge = ends - reached
    return [p.name for p in graph.populations if p.name not in reached]
