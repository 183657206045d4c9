"""NeuroBench's figures of a run, by its definitions, from what the run counted.

Source: NeuroBench 2.3.0 (Yik et al. 2025, Nature Communications 16, 1545), ``neurobench.metrics``:
its code, where this and the paper differ. All are of one inference, the free phase, a sample, and
sums over the network; nudged phases teach, and are no part of it.

- footprint: bytes of parameters in whole numbers of a computer, so that 4 bits take a byte. A
  weight that both directions share counts once. States do not count: its harness looks before
  the first batch, when the layers of snnTorch hold none.
- connection sparsity: share of zeros among weights, of the modules of both directions.
- activation sparsity: share of zeros among the messages of all neurons and time steps; an input is
  no activation.
- effective operations: synapses that a message meets, those with a weight of zero left out, and
  biases. An AC if the message is 0, 1 or -1, else a MAC.
- dense operations: the same, if no message and no weight were zero.
- membrane updates: all membranes in the first time step, then those that changed.

Where NeuroBench is silent: a settling step is a time step. Feedback is a connection like any other,
so both directions count. Graded and sigma-delta messages are MACs, also in a batch whose values
happen to be 0 and 1, where its harness says AC; spikes are ACs. Inputs are sent once a sample.
"""

from __future__ import annotations

import numpy as np

from compilers.hardware.placement import state_bits, weight_bits
from compilers.ir.graph import Graph, Source, Spiking
from ep_neuro.results import NeuroBench
from targets.interface.fanout import synapses_of
from targets.interface.protocols import RunResult

EXPONENT_BITS = 8
"""Bits of the shift of a channel of weights."""


def neurobench(graph: Graph, result: RunResult, x: np.ndarray) -> NeuroBench:
    """The figures of the free phase of `result`, a run of `graph` on inputs `x` (N, *shape).

    What the target did not count stays out, with the reason: effective operations where weights
    may have been learnt, membrane updates where they were not asked for.
    """
    free = result.free
    steps = len(next(iter(free.events.values())))
    met = {name: float(counts.sum()) for name, counts in free.nonzero_synops.items()}
    spikes = {p.name for p in graph.neurons if isinstance(p.dynamics, Spiking)}
    if np.isin(x, (-1, 0, 1)).all():
        spikes |= {p.name for p in graph.sources}
    size, samples = sum(p.size for p in graph.neurons), len(x)
    sent, messages = (
        sum(int(free.events[p.name].sum()) for p in graph.neurons),
        samples * steps * size,
    )
    accumulated = sum(n for name, n in met.items() if name in spikes)
    updates = sum(float(counts.sum()) for counts in free.updates.values())
    untold = [] if met else ["effective operations"]
    untold += [] if free.updates else ["membrane updates"]
    return NeuroBench(
        footprint=footprint(graph),
        connection_sparsity=connection_sparsity(graph),
        activation_sparsity=(messages - sent) / messages,
        effective_macs=(sum(met.values()) - accumulated) / samples if met else None,
        effective_acs=accumulated / samples if met else None,
        dense=dense(graph, steps),
        membrane_updates=(samples * size + updates) / samples if free.updates else None,
        reason=f"the target does not count {' and '.join(untold)}" if untold else None,
    )


def held_bits(graph: Graph) -> dict[str, int]:
    """Bits of a value of each array that is a parameter."""
    weights = {p.weight: weight_bits(graph) for p in graph.projections}
    shifts = {p.exponent: EXPONENT_BITS for p in graph.projections if p.exponent is not None}
    biases = {p.bias: state_bits(p) for p in graph.neurons if p.bias is not None}
    return {**weights, **shifts, **biases}


def whole_bytes(bits: int) -> int:
    """Bytes of the smallest number of a computer that has so many bits: 1, 2, 4 or 8."""
    return max(8, 1 << (bits - 1).bit_length()) // 8


def footprint(graph: Graph) -> int:
    """Bytes of weights, biases and the shifts of channels."""
    return sum(graph.arrays[name].size * whole_bytes(b) for name, b in held_bits(graph).items())


def connection_sparsity(graph: Graph) -> float:
    """Share of zeros among the weights of all projections."""
    weights = [graph.arrays[p.weight] for p in graph.projections]
    zeros = sum(weight.size - np.count_nonzero(weight) for weight in weights)
    return float(zeros / sum(weight.size for weight in weights))


def dense(graph: Graph, steps: int) -> float:
    """Operations of a sample if every message and weight counted."""
    return float(
        sum(
            synapses_of(graph, p).sum() * (1 if isinstance(p.dynamics, Source) else steps)
            for p in graph.populations
        )
    )
