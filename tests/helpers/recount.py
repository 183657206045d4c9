"""Public figures once more: from messages and outputs alone, by sums over dense matrices.

It shares no code with the counters, the fan-outs or the estimates of energy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compilers.ir.graph import Graph, Source
from targets.interface.protocols import PhaseResult
from tests.helpers.oracle import Sample, unrolled

EVENT, SYNAPTIC_OPERATION, UPDATE, WEIGHT_UPDATE = 1.7e-12, 23.6e-12, 81.0e-12, 120.0e-12
"""Joule on Loihi, as in Davies et al. 2018, table 2."""

Messages = Mapping[str, np.ndarray]
"""By population, (T, N, ...)."""


@dataclass(frozen=True)
class Figures:
    """What commands print of a run, a sample; joules on Loihi, without placement."""

    accuracy: float
    events: float
    synops: float
    energy_joule: float


def recount(
    graph: Graph, x: np.ndarray, y: np.ndarray, phases: Sequence[Messages], outputs: np.ndarray
) -> Figures:
    """The figures of `phases`, the first of which begins with a new input."""
    right = [int(np.argmax(output) == label) for output, label in zip(outputs, y, strict=True)]
    met = synapses(graph)
    events = synops = updates = 0.0
    for index, messages in enumerate(phases):
        spoken = {name: sent != 0 for name, sent in messages.items()}
        if index == 0:
            (source,) = graph.sources
            spoken[source.name] = (x != 0)[None]
        for name, sent in spoken.items():
            flat = sent.reshape(*sent.shape[:2], -1)
            events += np.count_nonzero(flat)
            synops += float((flat @ met[name]).sum())
        updates += sum(len(messages[p.name]) * p.size for p in graph.neurons)
    samples = len(x)
    return Figures(
        accuracy=sum(right) / samples,
        events=events / samples,
        synops=synops / samples,
        energy_joule=(EVENT * events + SYNAPTIC_OPERATION * synops) / samples + UPDATE * updates,
    )


def synapses(graph: Graph, zeros: bool = True) -> dict[str, np.ndarray]:
    """How many synapses a message of each neuron meets, by population: entries of matrices.

    Without `zeros` those of a weight of zero do not count.
    """
    arrays = graph.arrays.items()
    ones = replace(graph, arrays={k: ((a != 0) | zeros).astype(a.dtype) for k, a in arrays})
    return {
        p.name: sum((unrolled(ones, way).sum(0) for way in graph.out_of(p.name)), np.zeros(p.size))
        for p in graph.populations
    }


def change_joule(graph: Graph) -> float:
    """Energy of one change of every weight, in every direction that stores it."""
    return WEIGHT_UPDATE * sum(graph.arrays[p.weight].size for p in graph.projections)


def messages_of(graph: Graph, phase: PhaseResult) -> dict[str, np.ndarray]:
    """The messages that a run probed in `phase`."""
    return {p.name: np.asarray(phase.probes[f"{p.name}.message"]) for p in graph.neurons}


def plain_run(graph: Graph, x: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Messages and outputs of the free phase by `tests.helpers.oracle`, sample by sample."""
    assert not any(isinstance(p.dynamics, Source) for p in graph.neurons)
    runs = [next(Sample(graph, one).phases()) for one in x]
    messages = {
        p.name: np.stack([[step[f"{p.name}.message"] for step in steps] for _, steps, _ in runs], 1)
        for p in graph.neurons
    }
    return messages, np.stack([output for _, _, output in runs])
