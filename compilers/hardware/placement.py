"""What a graph asks of the neuro-cores it is placed on: loads of cores, messages between them.

A core holds the synapses of the messages that it *receives*. The model, one core at a time:

- A convolution with shared kernels stores each kernel of its channels once, wherever its neurons
  lie; every other connection stores one weight a synapse.
- An input axon is an entry that leads from a message to its synapses. Convolutions need one for
  each position that reaches the core, since the channel travels with the message as an index
  into the kernel (population connectivity, Davies et al. 2018); dense ones need one a neuron,
  and one of partial sums those of its share.
- An output axon is an entry that sends a message to one core: one for each position, or neuron,
  and core that it reaches. Machines whose routers copy messages on the way need none.
- State is what the neuron's dynamics keep between steps; see `state_words`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compilers.hardware.limits import HardwareLimits
from compilers.ir import graph as ir

FLOAT_BITS = 32
"""Bits of a weight or state that is not quantised."""

Range = tuple[int, int]


@dataclass(frozen=True)
class CoreLoad:
    """What one core holds; bytes are rounded up."""

    core: int
    chip: int
    """Where it lies: both are counted through the machine."""
    populations: tuple[str, ...]
    """Whose neurons it runs."""
    neurons: int
    axons_in: int
    axons_out: int
    """Routing entries, like `axons_in`."""
    synaptic_bytes: int
    state_bytes: int
    memory_bytes: int
    """Weights, states, and the routing entries."""


def volume(population: ir.Population) -> tuple[int, int, int]:
    """Shape as (channels, height, width); a flat population is channels only."""
    if len(population.shape) == 3:
        channels, height, width = population.shape
        return channels, height, width
    return population.size, 1, 1


def reach(operator: ir.Operator, kernel: int, post: Range, size: int) -> np.ndarray:
    """Which of `size` rows of the pre population send to the rows `post`, bool (size,).

    Columns work the same way.
    """
    rows, (low, high) = np.arange(size), post
    if isinstance(operator, ir.Conv):
        # Row x meets output o where 0 <= x + padding - stride o < kernel.
        first = -((kernel - 1 - rows - operator.padding) // operator.stride)
        last = (rows + operator.padding) // operator.stride
        return np.maximum(first, low) <= np.minimum(last, high - 1)
    if isinstance(operator, ir.ConvTranspose):
        start = operator.stride * rows - operator.padding
        return (start < high) & (start + kernel > low)
    return np.ones(size, bool)


def is_convolution(operator: ir.Operator) -> bool:
    """Whether kernels can be shared between positions."""
    return isinstance(operator, ir.Conv | ir.ConvTranspose)


def heard(operator: ir.Partial, tile: ir.Tile, size: int) -> Range:
    """Which of `size` neurons, flattened, the partial sums of `tile` add up."""
    first, end = (min(size, row * operator.share) for row in tile.rows)
    return first, end


def neurons_of(population: ir.Population, tile: ir.Tile) -> np.ndarray:
    """Index of each neuron of `tile` in the flattened population."""
    index = np.arange(population.size).reshape(volume(population))
    return index[slice(*tile.channels), slice(*tile.rows), slice(*tile.columns)].ravel()


# --- one tile ----------------------------------------------------------------------------------


def weight_bits(graph: ir.Graph) -> int:
    """Bits of a weight."""
    return int(graph.provenance.get("bits", FLOAT_BITS))


def state_bits(population: ir.Population) -> int:
    """Bits of a state of `population`."""
    return population.state.bits if population.state else FLOAT_BITS


def state_words(graph: ir.Graph, population: ir.Population) -> int:
    """State variables a neuron: membrane, remainder, bias, and what its dynamics add.

    Sigma-delta neurons keep what they sent, and the sum of the changes that each projection
    brought; spiking ones their filtered current; all the sum of their input, which speaks once.
    """
    sums = [
        p
        for p in graph.into(population.name)
        if isinstance(graph.population(p.pre).dynamics, ir.SigmaDelta | ir.Source)
    ]
    integer = population.state is not None
    own = 1 if isinstance(population.dynamics, ir.Graded) else 2
    return own + integer + (population.bias is not None) + len(sums)


def synapses_into(graph: ir.Graph, p: ir.Projection, tile: ir.Tile, shared: bool) -> int:
    """Weights that `tile` stores for projection `p`, each kernel once where `shared`."""
    channels = tile.channels[1] - tile.channels[0]
    pre_channels, height, width = volume(graph.population(p.pre))
    if not is_convolution(p.operator):
        axons = axons_into(graph, p, tile)
        return axons * {ir.Partial: channels, ir.Total: 1}.get(type(p.operator), tile.size)
    kernel = graph.arrays[p.weight].shape[2]
    if shared:
        return channels * pre_channels * kernel * graph.arrays[p.weight].shape[3]
    return channels * pre_channels * _taps(p, kernel, tile, (height, width))


def _taps(p: ir.Projection, kernel: int, tile: ir.Tile, plane: tuple[int, int]) -> int:
    """(position, position) pairs that a kernel joins, from `plane` into `tile`."""
    per_axis = [
        sum(int(reach(p.operator, kernel, (i, i + 1), size).sum()) for i in range(*span))
        for span, size in zip((tile.rows, tile.columns), plane, strict=True)
    ]
    return math.prod(per_axis)


def axons_into(graph: ir.Graph, p: ir.Projection, tile: ir.Tile) -> int:
    """Input axons that projection `p` takes on the core of `tile`."""
    pre = graph.population(p.pre)
    if isinstance(p.operator, ir.Partial):
        first, end = heard(p.operator, tile, pre.size)
        return end - first
    if isinstance(p.operator, ir.Total):
        return tile.size * graph.arrays[p.weight].size
    if not is_convolution(p.operator):
        return pre.size
    kernel, (_, height, width) = graph.arrays[p.weight].shape[2], volume(pre)
    rows = reach(p.operator, kernel, tile.rows, height).sum()
    return int(rows * reach(p.operator, kernel, tile.columns, width).sum())


def synaptic_bytes(graph: ir.Graph, tile: ir.Tile, shared: bool) -> int:
    """Bytes of all weights that `tile` stores."""
    count = sum(synapses_into(graph, p, tile, shared) for p in graph.into(tile.population))
    return -(-count * weight_bits(graph) // 8)


def state_bytes(graph: ir.Graph, tile: ir.Tile) -> int:
    """Bytes of all states that `tile` keeps."""
    population = graph.population(tile.population)
    return -(-tile.size * state_words(graph, population) * state_bits(population) // 8)


# --- the whole placement -----------------------------------------------------------------------


def routes(graph: ir.Graph, p: ir.Projection) -> tuple[list[ir.Tile], list[ir.Tile], np.ndarray]:
    """Sending tiles, receiving tiles, and the positions of the one that reach the other.

    Of a dense projection, every neuron is a position.
    """
    pre = [t for t in graph.placement if t.population == p.pre]
    post = [t for t in graph.placement if t.population == p.post]
    if isinstance(p.operator, ir.Partial):
        neurons = graph.population(p.pre)
        spans = [heard(p.operator, t, neurons.size) for t in post]
        return pre, post, _inside([neurons_of(neurons, t) for t in pre], spans)
    if isinstance(p.operator, ir.Total):
        neurons = graph.population(p.post)
        own = _inside([neurons_of(neurons, t) for t in post], [t.channels for t in pre])
        return pre, post, own.T * np.array([[t.positions] for t in pre], np.int64)
    if not is_convolution(p.operator):
        sizes = np.array([t.size for t in pre], np.int64)
        return pre, post, np.repeat(sizes[:, None], len(post), axis=1)
    kernel = graph.arrays[p.weight].shape[2]
    _, height, width = volume(graph.population(p.pre))
    rows = _shares([t.rows for t in pre], [t.rows for t in post], p.operator, kernel, height)
    columns = _shares(
        [t.columns for t in pre], [t.columns for t in post], p.operator, kernel, width
    )
    return pre, post, rows * columns


def _inside(indices: Sequence[np.ndarray], spans: Sequence[Range]) -> np.ndarray:
    """How many of each array of `indices` lie in each span, int64 (arrays, spans)."""
    counts = [[((low <= i) & (i < end)).sum() for low, end in spans] for i in indices]
    return np.array(counts, np.int64).reshape(len(indices), len(spans))


def _shares(
    pre: Sequence[Range], post: Sequence[Range], operator: ir.Operator, kernel: int, size: int
) -> np.ndarray:
    """Rows of each `pre` range that reach each `post` range, (pre, post)."""
    index = np.arange(size)
    inside = np.array([(low <= index) & (index < high) for low, high in pre], np.int64)
    reached = np.array([reach(operator, kernel, span, size) for span in post], np.int64)
    return inside.reshape(-1, size) @ reached.reshape(-1, size).T


def messages(graph: ir.Graph) -> np.ndarray:
    """Messages from core to core if every neuron spoke once, int64 (`core_span`, `core_span`)."""
    total = np.zeros((core_span(graph),) * 2, np.int64)
    for p in graph.projections:
        pre, post, positions = routes(graph, p)
        channels = np.ones(len(pre), np.int64)
        if is_convolution(p.operator):
            channels = np.array([t.channels[1] - t.channels[0] for t in pre], np.int64)
        senders, receivers = ([t.core for t in tiles] for tiles in (pre, post))
        np.add.at(total, np.ix_(senders, receivers), channels.reshape(-1, 1) * positions)
    return total


def between_chips(graph: ir.Graph, sent: np.ndarray | None = None) -> np.ndarray:
    """`messages` summed by chip, int64 (chips, chips)."""
    sent = messages(graph) if sent is None else sent
    chip_of = np.zeros(len(sent), np.int64)
    for t in graph.placement:
        chip_of[t.core] = t.chip
    chips = int(np.max(chip_of, initial=-1)) + 1
    member = (chip_of[:, None] == np.arange(chips)).astype(np.int64)
    return member.T @ sent @ member


def core_span(graph: ir.Graph) -> int:
    """Number of cores up to the last one that holds a neuron, empty ones included."""
    return max((t.core for t in graph.placement), default=-1) + 1


def cores_used(graph: ir.Graph) -> int:
    """Number of cores that hold a neuron."""
    return len({t.core for t in graph.placement})


def chips_used(graph: ir.Graph) -> int:
    """Number of chips that hold a neuron."""
    return len({t.chip for t in graph.placement})


def axons_out(graph: ir.Graph, hardware: HardwareLimits) -> np.ndarray:
    """Output axons of each core, int64 (cores,); none where routers copy messages on the way."""
    out = np.zeros(core_span(graph), np.int64)
    for p in graph.projections if hardware.parameter("multicast", 0) == 0 else ():
        pre, _, positions = routes(graph, p)
        for t, count in zip(pre, positions.sum(1), strict=True):
            out[t.core] += count
    return out


def loads(graph: ir.Graph, hardware: HardwareLimits) -> tuple[CoreLoad, ...]:
    """The load of every core that holds a neuron, by core."""
    shared = hardware.parameter("shared_kernels", 1) > 0
    out = axons_out(graph, hardware)
    by_core: dict[int, list[ir.Tile]] = {}
    for t in graph.placement:
        by_core.setdefault(t.core, []).append(t)
    return tuple(
        _load(graph, by_core[core], int(out[core]), shared, hardware.parameter("axon_bytes", 0))
        for core in sorted(by_core)
    )


def _load(
    graph: ir.Graph, tiles: Sequence[ir.Tile], axons_out: int, shared: bool, axon_bytes: float
) -> CoreLoad:
    synaptic = sum(synaptic_bytes(graph, t, shared) for t in tiles)
    state = sum(state_bytes(graph, t) for t in tiles)
    axons_in = sum(axons_into(graph, p, t) for t in tiles for p in graph.into(t.population))
    return CoreLoad(
        core=tiles[0].core,
        chip=tiles[0].chip,
        populations=tuple(t.population for t in tiles),
        neurons=sum(t.size for t in tiles),
        axons_in=axons_in,
        axons_out=axons_out,
        synaptic_bytes=synaptic,
        state_bytes=state,
        memory_bytes=synaptic + state + math.ceil(axon_bytes * (axons_in + axons_out)),
    )
