"""Layer by layer: how far deployed states are from the equilibrium in floating point."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from compilers.ir.graph import Graph, Population, Spiking
from ep_neuro.data.datasets import Split
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle
from ep_neuro.results import LayerError
from targets.interface.session import Session

MOST_SAMPLES = 64
"""Samples that are looked at, unless their states need too much memory."""

PROBE_BYTES = 64 << 20
"""Memory that the recorded states of all steps may take."""


def equilibrium(
    network: Network, split: Split, schedule: Schedule, graphs: Sequence[Graph]
) -> dict[str, np.ndarray]:
    """Real states by population of the first of `split`, as many as all `graphs` can record.

    Warns
    -----
    UserWarning
        If `network` does not settle in `schedule`: distances are from where it ended.
    """
    samples = split.head(min((recordable(graph) for graph in graphs), default=MOST_SAMPLES))
    with torch.no_grad():
        found = settle(Landscape(network, torch.from_numpy(samples.x)), schedule)
    if not found.settled:
        warnings.warn(
            f"network '{network.spec.name}' did not settle in {found.sweeps} sweeps, so that "
            "--layerwise measures from where it ended",
            stacklevel=2,
        )
    return {name: z.cpu().numpy().astype(np.float64) for name, z in found.state.items()}


def recordable(graph: Graph) -> int:
    """Samples whose states fit in `PROBE_BYTES` over the free phase; at least one."""
    neurons = sum(p.size for p in graph.neurons)
    return max(1, min(MOST_SAMPLES, PROBE_BYTES // (8 * neurons * graph.phases[0].steps)))


def departures(
    session: Session, graph: Graph, settled: Mapping[str, np.ndarray], x: np.ndarray
) -> tuple[LayerError, ...]:
    """Settle the first of `x` (N, *input shape) that are `settled` in floating point, and measure.

    A spiking population shows the rate that would be read if the run ended there.
    """
    probes = [probe_of(p) for p in graph.neurons]
    found = session.settle(x[: len(settled[graph.output])], probes=probes).free.probes
    return tuple(
        _departure(p, shown_states(p, found[probe_of(p)]), settled[p.name]) for p in graph.neurons
    )


def probe_of(population: Population) -> str:
    """The probe from which `shown_states` reads `population`."""
    spiking = isinstance(population.dynamics, Spiking)
    return f"{population.name}.{'message' if spiking else 'z'}"


def shown_states(population: Population, probed: np.ndarray, from_rest: bool = True) -> np.ndarray:
    """Real states after each step, (T, N, *shape), from ``z`` or from the spikes of a probe."""
    values = np.asarray(probed, np.float64)
    if population.message is not None:
        values = values / population.message.one
    if isinstance(population.dynamics, Spiking):
        values = _rates(values, from_rest)
    return population.readout.offset + population.readout.gain * values


def _rates(spikes: np.ndarray, from_rest: bool) -> np.ndarray:
    """What a readout after each step t shows: means by ``spike_weights(t, from_rest)``.

    A triangle over n steps is the convolution of two boxes of ``(n + 1) // 2`` and ``n // 2 + 1``,
    so that sums of sums have all of them at once.
    """
    nothing = np.zeros((2, *spikes.shape[1:]))
    sums = np.cumsum(np.concatenate([nothing, np.cumsum(spikes, axis=0)]), axis=0)
    t = np.arange(1, len(spikes) + 1)
    n = t - t // 2 if from_rest else t
    one, other = (n + 1) // 2, n // 2 + 1
    end = t + 1
    found = sums[end] - sums[end - one] - sums[end - other] + sums[end - one - other]
    return found / (one * other).reshape(-1, *[1] * (spikes.ndim - 1))


def _departure(population: Population, shown: np.ndarray, settled: np.ndarray) -> LayerError:
    difference = (shown - settled.reshape(shown.shape[1:])).reshape(len(shown), -1)
    size = float(np.sqrt(np.mean(settled**2)))
    rms = np.sqrt(np.mean(difference**2, axis=1))
    relative = rms / size if size else np.full_like(rms, np.nan)
    worst = np.abs(difference).max(axis=1) / abs(population.readout.gain)
    return LayerError(population.name, relative, worst)
