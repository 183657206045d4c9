"""map_to_cores: lays every population out over the neuro-cores and chips of a machine.

Each population is cut into equal boxes of channels x rows x columns, a box a core: a core runs
the program of one population. Of all cuts that the core's limits allow, the one with the fewest
cores is taken, and among those the one with the fewest kernels stored twice (fewest cuts of the
plane). Cutting channels divides the kernels; cutting the plane copies them and divides the axons.
How many output axons a box needs is known once its receivers are cut; where they are too many,
the sender's plane is cut more finely, until all fit or nothing is left to cut.

Populations follow each other in the order of the graph, which is that of the signal, their boxes
row by row, so that neighbours in the plane and in depth lie on neighbouring cores. Chips are
either filled to the last core, or a population that fits on one chip is kept together on it;
whichever sends fewer messages between chips, within the machine's number of chips, is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from compilers.hardware.limits import HardwareLimits
from compilers.hardware.placement import (
    Range,
    axons_into,
    axons_out,
    between_chips,
    chips_used,
    is_convolution,
    messages,
    reach,
    state_bytes,
    synaptic_bytes,
    volume,
)
from compilers.ir.graph import Graph, Population, Tile, Total
from ep_neuro.errors import GraphError

_ROUNDS = 8
"""Attempts to fit the output axons: a finer cut of one population costs its senders more."""

MAX_CORES = 4096
"""Cores that a graph may take: what passes between them is a table of all pairs."""


def map_to_cores(graph: Graph, hardware: HardwareLimits, chips: int | None = None) -> Graph:
    """Place `graph` on `hardware`.

    Where not even one neuron of a population fits a core, the limits that it breaks are left aside
    for that population; `compilers.hardware.limit_checks.violations` lists them. Nothing is refused
    here.

    Parameters
    ----------
    graph : Graph
        With directed projections; quantised, or its weights count 32 bits each.
    hardware : HardwareLimits
        The machine.
    chips : int, optional
        Chips to use, the machine's own number if None.

    Raises
    ------
    GraphError
        If the graph has undirected couplings, `chips` is not positive, or over `MAX_CORES` cores
        would be needed.
    """
    if graph.couplings:
        problem = f"{len(graph.couplings)} couplings are not directed projections yet"
        raise GraphError(f"graph '{graph.name}'", problem, "run the pass 'expand_couplings'")
    if chips is not None and chips < 1:
        raise GraphError("chips", f"{chips} is below 1", "give the number of chips to use")
    boxes = _cut(graph, hardware)
    per_chip = hardware.limit("cores")
    available = hardware.limit("chips") if chips is None else chips
    placed = [
        replace(graph, placement=_lay_out(boxes, per_chip, together)) for together in (False, True)
    ]
    fitting = [g for g in placed if chips_used(g) <= available] or placed[:1]
    best = min(fitting, key=chip_traffic)
    notes = {"hardware": hardware.name, **({} if chips is None else {"chips": str(chips)})}
    return replace(best, provenance={**graph.provenance, **notes})


def chip_traffic(graph: Graph) -> int:
    """Messages that cross from chip to chip if every neuron spoke once."""
    if chips_used(graph) < 2:
        return 0
    by_chip = between_chips(graph, messages(graph))
    return int(by_chip.sum() - by_chip.trace())


# --- cutting -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    """Sizes of a box: channels, rows, columns."""

    channels: int
    rows: int
    columns: int

    @property
    def places(self) -> int:
        """Output axons toward one core: the positions, or the neurons of a flat population."""
        positions = self.rows * self.columns
        return positions if positions > 1 else self.channels


def _cut(graph: Graph, hardware: HardwareLimits) -> list[list[Tile]]:
    """Boxes of each population, cut until the output axons fit or cannot be fewer."""
    limit = hardware.limit("axons_out_per_core")
    most = dict.fromkeys((p.name for p in graph.neurons), math.inf)
    kept: list[list[Tile]] = []
    for _ in range(_ROUNDS):
        cuts = {p.name: _best_cut(graph, p, hardware, most[p.name]) for p in graph.neurons}
        cores = sum(_count(p, cuts[p.name]) for p in graph.neurons)
        if cores > MAX_CORES:
            return kept or _refuse(graph, hardware, cores)
        kept = [_boxes(p, cuts[p.name]) for p in graph.neurons]
        needed = _axons_by_population(graph, hardware, kept)
        finer = {
            name: max(1, math.floor(cuts[name].places * limit / count))
            for name, count in needed.items()
            if count > limit and cuts[name].places > 1
        }
        if not finer:
            break
        most |= finer
    return kept


def _refuse(graph: Graph, hardware: HardwareLimits, cores: int) -> NoReturn:
    raise GraphError(
        f"graph '{graph.name}' on {hardware.name}",
        f"{cores:,} cores exceed the {MAX_CORES:,} that can be mapped",
        "narrow the layers, or choose a machine with larger cores",
    )


def _axons_by_population(
    graph: Graph, hardware: HardwareLimits, boxes: Sequence[Sequence[Tile]]
) -> dict[str, int]:
    """Output axons of the core of each population that needs most."""
    placed = replace(graph, placement=_lay_out(boxes, math.inf, False))
    needed, worst = axons_out(placed, hardware), dict[str, int]()
    for t in placed.placement:
        worst[t.population] = max(worst.get(t.population, 0), int(needed[t.core]))
    return worst


def _best_cut(graph: Graph, population: Population, hardware: HardwareLimits, most: float) -> _Cut:
    """The cut with the fewest cores that breaks no limit of a core, of at most `most` places."""
    channels, height, width = volume(population)
    limits = _attainable(graph, population, hardware)
    best: tuple[tuple[int, int], _Cut] | None = None
    for rows, columns in _planes(height, width):
        fitting = _channels_that_fit(graph, population, limits, (rows, columns))
        if height == width == 1:
            fitting = min(fitting, int(min(most, channels)))
        if fitting == 0 or rows * columns > max(most, 1):
            continue
        parts = math.ceil(height / rows) * math.ceil(width / columns)
        groups = math.ceil(channels / fitting)
        key = (parts * groups, parts)
        if best is None or key < best[0]:
            best = key, _Cut(math.ceil(channels / groups), rows, columns)
    assert best is not None  # a single neuron breaks none of the limits that are left
    return best[1]


def _attainable(graph: Graph, population: Population, hardware: HardwareLimits) -> HardwareLimits:
    """`hardware` without the limits that a single neuron of `population` breaks."""
    load = _single(graph, population, hardware)
    kept = {k: q for k, q in hardware.limits.items() if load.get(k, 0) <= q.value}
    return replace(hardware, limits=kept)


def _single(graph: Graph, population: Population, hardware: HardwareLimits) -> dict[str, float]:
    """What one neuron asks of a core, by limit; the most that any asks."""
    fixed, own, synaptic, state = _demand(graph, population, hardware, (1, 1))
    axons = fixed + own
    routing = hardware.parameter("axon_bytes", 0) * _entries(axons, hardware)
    return {
        "axons_in_per_core": axons,
        "synaptic_bytes_per_core": synaptic,
        "memory_bytes_per_core": synaptic + state + routing,
    }


def _demand(
    graph: Graph, population: Population, hardware: HardwareLimits, plane: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Of the fullest box of `plane`: input axons of all channels, and what each channel adds.

    That is input axons of its own, synaptic bytes and state bytes.
    """
    shared = hardware.parameter("shared_kernels", 1) > 0
    boxes = [replace(t, channels=(0, 1)) for t in _boxes(population, _Cut(population.size, *plane))]
    # Shared kernels are the same in every box, and the first box is the largest.
    synaptic = max(synaptic_bytes(graph, t, shared) for t in (boxes[:1] if shared else boxes))
    return *input_axons(graph, population, plane), synaptic, state_bytes(graph, boxes[0])


def input_axons(
    graph: Graph, population: Population, plane: tuple[int, int] = (1, 1)
) -> tuple[int, int]:
    """Input axons of the box of `plane` that needs most: of all its channels, and of each alone.

    Rows and columns are independent.
    """
    _, height, width = volume(population)
    spans = _split(height, plane[0]), _split(width, plane[1])
    total, own = np.zeros(tuple(map(len, spans)), np.int64), 0
    for p in graph.into(population.name):
        pre = graph.population(p.pre)
        if isinstance(p.operator, Total):
            own += math.prod(plane) * graph.arrays[p.weight].size
            continue
        if not is_convolution(p.operator):
            rows = [Tile(population.name, 0, 0, (0, 1), span) for span in spans[0]]
            total += np.array([[axons_into(graph, p, tile)] for tile in rows])
            continue
        kernel = graph.arrays[p.weight].shape[2]
        by_row, by_column = (
            np.array([reach(p.operator, kernel, span, size).sum() for span in along])
            for along, size in zip(spans, volume(pre)[1:], strict=True)
        )
        total += np.outer(by_row, by_column)
    return int(np.max(total)), own


def _entries(axons: float, hardware: HardwareLimits) -> float:
    """Routing entries of a core with so many input axons.

    Where its messages go is known once all populations are cut: room for every output axon that
    the core may have is left, or for as many as it has input axons where there is no limit.
    """
    if hardware.parameter("multicast", 0) > 0:
        return axons
    outgoing = hardware.limits.get("axons_out_per_core")
    return axons + (outgoing.value if outgoing else axons)


def _planes(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Boxes of the plane: whole rows first, parts of one row where those are too much."""
    for rows in sorted({math.ceil(height / n) for n in range(1, height + 1)}, reverse=True):
        yield rows, width
    for columns in sorted({math.ceil(width / n) for n in range(2, width + 1)}, reverse=True):
        yield 1, columns


def _channels_that_fit(
    graph: Graph, population: Population, hardware: HardwareLimits, plane: tuple[int, int]
) -> int:
    """Channels of a box of `plane` that one core holds; 0 if not even one."""
    axons, own, synaptic, state = _demand(graph, population, hardware, plane)
    left = hardware.limit("axons_in_per_core") - axons
    if left < 0:
        return 0
    routing, more = (
        hardware.parameter("axon_bytes", 0) * _entries(n, hardware) for n in (axons, axons + own)
    )
    room = hardware.limit("memory_bytes_per_core") - routing
    bounds = (
        volume(population)[0],
        hardware.limit("neurons_per_core") / math.prod(plane),
        left / own if own else math.inf,
        hardware.limit("synaptic_bytes_per_core") / max(synaptic, 1),
        room / max(synaptic + state + more - routing, 1),
    )
    return max(0, math.floor(min(bounds)))


def _boxes(population: Population, cut: _Cut) -> list[Tile]:
    """The boxes of `population`, row by row, all on core 0 for the time being."""
    channels, height, width = volume(population)
    return [
        Tile(population.name, 0, 0, c, r, w)
        for r in _split(height, cut.rows)
        for w in _split(width, cut.columns)
        for c in _split(channels, cut.channels)
    ]


def _count(population: Population, cut: _Cut) -> int:
    """Number of boxes."""
    parts = zip(volume(population), (cut.channels, cut.rows, cut.columns), strict=True)
    return math.prod(math.ceil(size / part) for size, part in parts)


def _split(size: int, part: int) -> list[Range]:
    return [(start, min(size, start + part)) for start in range(0, size, part)]


# --- laying the boxes out ----------------------------------------------------------------------


def _lay_out(cuts: Sequence[Sequence[Tile]], per_chip: float, together: bool) -> tuple[Tile, ...]:
    """Boxes on successive cores; with `together`, no needless cut of a population by a chip."""
    placed: list[Tile] = []
    core = 0
    for boxes in cuts:
        if math.isfinite(per_chip):
            left = int(per_chip) - core % int(per_chip)
            if together and left < len(boxes) <= per_chip:
                core += left
        for box in boxes:
            chip = int(core // per_chip) if math.isfinite(per_chip) else 0
            placed.append(replace(box, core=core, chip=chip))
            core += 1
    return tuple(placed)
