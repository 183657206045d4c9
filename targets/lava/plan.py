"""What a session asks its supervisor to build, and the shared memory that this takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compilers.ir import Graph, Population, Projection
from compilers.operators import adjoint, fanout
from targets.inputs import Probe
from targets.lava.board import Layout

BATCHED, FAITHFUL = "batched", "faithful"
"""The two lowerings of a graph."""

INPUT, TARGET, OUTPUT = "x", "y", "output"
"""Fields of the board: the input, the nudge's target and the readout, (batch, *shape)."""


def events_field(population: str) -> str:
    """Field of the board with the messages sent, (steps, batch)."""
    return f"events/{population}"


def synops_field(population: str) -> str:
    """Field of the board with the synaptic operations caused, (steps, batch)."""
    return f"synops/{population}"


def probe_field(population: str, variable: str) -> str:
    """Field of the board with a probed variable, (steps, batch, *shape)."""
    return f"probe/{population}.{variable}"


def saturations_field(population: str) -> str:
    """Field of the board with the values that met the end of their format, (batch,)."""
    return f"saturations/{population}"


@dataclass(frozen=True)
class Plan:
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
    fd : int
        File of the board.
    lowering : str
        ``batched``, or ``faithful``: one sample at a time, stock synapses.
    """

    graph: Graph
    batch: int
    steps: int
    probes: tuple[Probe, ...] = ()
    fd: int = -1
    lowering: str = BATCHED

    @property
    def lead(self) -> int:
        """Time steps before the first one of a phase: a faithful network loads its state."""
        return int(self.lowering == FAITHFUL)

    def fits(self, batch: int, steps: int, probes: Sequence[Probe]) -> bool:
        """Whether what runs under this plan can do that job, too.

        Fewer samples at once cost little, a restart costs seconds: batches may shrink by half.
        """
        recorded = steps <= self.steps and set(probes) <= set(self.probes)
        return recorded and batch < 2 * self.batch

    def shape(self, population: str) -> tuple[int, ...]:
        """(batch, *shape) of a population."""
        return (self.batch, *self.graph.population(population).shape)

    def probed(self, population: str) -> tuple[str, ...]:
        """Names of the probed variables of a population."""
        return tuple(p.variable for p in self.probes if p.population == population)

    @property
    def layout(self) -> Layout:
        """Fields of the board."""
        return dict(self._fields())

    def _fields(self) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
        (source,) = self.graph.sources
        yield INPUT, ("float64", self.shape(source.name))
        yield TARGET, ("float64", self.shape(self.graph.output))
        yield OUTPUT, ("float64", self.shape(self.graph.output))
        for p in self.graph.populations:
            yield events_field(p.name), ("int64", (self.steps, self.batch))
            yield synops_field(p.name), ("int64", (self.steps, self.batch))
            if self.graph.quantised:
                yield saturations_field(p.name), ("int64", (self.batch,))
        states = "int64" if self.graph.quantised else "float64"
        for q in self.probes:
            shape = (self.steps, *self.shape(q.population))
            yield probe_field(q.population, q.variable), (states, shape)


def layout_bytes(layout: Layout) -> int:
    """Bytes that the fields of `layout` hold."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in layout.values())


# --- facts about graphs ------------------------------------------------------------------------


def partners(graph: Graph) -> list[tuple[Projection, Projection | None]]:
    """Recurrent projections, each once, with the adjoint of the same weight if there is one."""
    sources = {p.name for p in graph.sources}
    left = {p.name: p for p in graph.projections if p.pre not in sources}
    pairs: list[tuple[Projection, Projection | None]] = []
    while left:
        p = left.pop(next(iter(left)))
        mate = next((q for q in left.values() if _mirrored(p, q)), None)
        if mate is not None:
            del left[mate.name]
        pairs.append((p, mate))
    return pairs


def _mirrored(p: Projection, q: Projection) -> bool:
    tied = p.weight == q.weight and p.operator == adjoint(q.operator)
    return tied and (p.pre, p.post) == (q.post, q.pre)


def fan_out(graph: Graph, population: Population) -> np.ndarray:
    """Synapses that an event of each neuron meets over all projections, int64, (neurons,)."""
    counts = np.zeros(population.size, np.int64)
    for p in graph.out_of(population.name):
        post = graph.population(p.post).shape
        weight = graph.arrays[p.weight].shape
        counts += fanout(p.operator, weight, population.shape, post).ravel()
    return counts


def synapses(graph: Graph) -> int:
    """Synaptic operations of one step in which every neuron sends."""
    return sum(int(fan_out(graph, p).sum()) for p in graph.neurons)


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
