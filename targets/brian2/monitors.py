"""From what the monitors of Brian2 recorded to the results of a phase, and to rasters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compilers.ir.graph import Graded, Graph, Phase, Population
from targets.interface.fanout import require_finite
from targets.interface.protocols import PhaseResult
from targets.interface.request import Probe

Record = Mapping[str, np.ndarray]
"""One phase: what `settle` of a script gives."""


def raster(record: Record, population: str, shape: Sequence[int], steps: int) -> np.ndarray:
    """Messages as `ep_neuro.report.plots.spike_raster` draws them, for one sample or many.

    Parameters
    ----------
    record : mapping of ndarray
        What `settle` of a script gives for a phase.
    population : str
        Whose messages.
    shape : sequence of int
        Samples, then the population's shape; for one sample, drop the first axis afterwards.
    steps : int
        Length of the phase.

    Returns
    -------
    ndarray, (steps, *shape)
        1 for a spike, the change for a change, 0 where nothing was sent.
    """
    dense = np.zeros((steps, int(np.prod(shape))))
    values = record.get(f"{population}/value", 1.0)
    dense[record[f"{population}/step"], record[f"{population}/neuron"]] = values
    return dense.reshape(steps, *shape)


def phase_result(
    graph: Graph,
    phase: Phase,
    record: Record,
    probes: Sequence[Probe],
    x: np.ndarray,
    synapses: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    speaks: bool,
) -> PhaseResult:
    """The result of `phase` for inputs `x`, which may be fewer than the samples that ran.

    `synapses` are those that a message of each neuron meets, and those of them not of weight zero.
    `speaks` says whether the input does, as it does once, in the first phase.

    Raises
    ------
    RunError
        If the outputs are not finite.
    """
    samples, steps = len(x), phase.steps
    output = graph.population(graph.output)
    outputs = record["outputs"][:samples].reshape(samples, *output.shape)
    require_finite(outputs, phase.name, steps)
    counts = {p.name: _counts(record, p, samples, steps, *synapses[p.name]) for p in graph.neurons}
    for source in graph.sources:
        counts[source.name] = _spoken(x, steps, *synapses[source.name], speaks)
    return PhaseResult(
        outputs=outputs,
        events={p.name: counts[p.name][0] for p in graph.populations},
        synops={p.name: counts[p.name][1] for p in graph.populations},
        nonzero_synops={} if graph.plasticity else {name: c[2] for name, c in counts.items()},
        probes={q.name: _probe(graph, record, q, samples, steps) for q in probes},
    )


def _counts(
    record: Record,
    p: Population,
    samples: int,
    steps: int,
    fanouts: np.ndarray,
    nonzero: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Messages and synaptic operations, int64, each (T, N); those not of weight zero, (N,)."""
    sample, unit = np.divmod(record[f"{p.name}/neuron"], p.size)
    real = sample < samples
    place = record[f"{p.name}/step"][real].astype(np.int64) * samples + sample[real]
    events = np.bincount(place, minlength=steps * samples)
    synops = np.bincount(place, fanouts[unit[real]], minlength=steps * samples)
    shape = (steps, samples)
    effective = np.bincount(sample[real], nonzero[unit[real]], minlength=samples)
    return events.reshape(shape), np.rint(synops).astype(np.int64).reshape(shape), effective


def _spoken(
    x: np.ndarray, steps: int, fanouts: np.ndarray, nonzero: np.ndarray, speaks: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_counts` of the input, which speaks once."""
    events, synops = (np.zeros((steps, len(x)), np.int64) for _ in range(2))
    sent = (x.reshape(len(x), -1) != 0) & speaks
    events[0], synops[0] = sent.sum(1), sent @ fanouts
    return events, synops, sent @ nonzero


def _probe(graph: Graph, record: Record, probe: Probe, samples: int, steps: int) -> np.ndarray:
    population, variable = graph.population(probe.population), recorded(graph, probe)
    if variable is None:
        batch = len(record["outputs"])
        dense = raster(record, population.name, (batch, *population.shape), steps)
    else:
        dense = record[f"{population.name}.{variable}"]
    return dense[:, :samples].reshape(steps, samples, *population.shape)


def recorded(graph: Graph, probe: Probe) -> str | None:
    """What a script has to record for `probe`; nothing for messages, which it does in any case.

    Graded messages are the states themselves.
    """
    if probe.variable != "message":
        return probe.variable
    return "z" if isinstance(graph.population(probe.population).dynamics, Graded) else None
