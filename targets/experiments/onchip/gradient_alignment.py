"""Whether a chip learns what equilibrium propagation says: its updates against the float ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from compilers.ir.graph import Graph
from compilers.learning.real_units import real_weight
from ep_neuro.data.datasets import Split
from ep_neuro.energy.costs import one_hot
from ep_neuro.estimators import Centered
from ep_neuro.network.settling import Schedule
from targets.experiments.onchip.to_network import UnevenBiasWarning, network_of

SETTLED = Schedule(sweeps=80, tolerance=1e-4)
"""How far the network in floating point settles, in either phase."""

SYNAPSES = 12
"""Synapses of each weight that are watched while they learn."""

COMPARED_BETA = 0.2
"""Nudging factor in floating point; at equilibrium the gradient hardly depends on it."""


@dataclass(frozen=True)
class GradientAlignment:
    """Changes of weights against the negative gradient."""

    sign: float
    """Share of the weights that changed, and have a gradient, which moved as it says."""
    cosine: float
    """Between the change of all weights and the negative gradient, each at its rate."""


def weights_of(graph: Graph) -> dict[str, np.ndarray]:
    """All weights of `graph` in real units, by id."""
    return {weight: real_weight(graph, weight) for weight in graph.ties}


def watched_synapses(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Indices of a fixed choice of `SYNAPSES` of each weight, by its id."""
    generator = np.random.default_rng([seed, 17])
    sizes = {weight: graph.arrays[weight].size for weight in graph.ties}
    return {
        weight: np.sort(generator.choice(size, min(size, SYNAPSES), replace=False))
        for weight, size in sizes.items()
    }


def ep_step(graph: Graph, samples: Split) -> dict[str, np.ndarray]:
    """The direction in which centered EP moves the weights of `graph`, in floating point.

    By weight id the negative gradient of the mean cost (Laborieux 2021, eq. 11), times the power of
    two by which the weight's rate counts; in real units.
    """
    with warnings.catch_warnings():
        # A gradient of the median bias is what there is to compare with.
        warnings.simplefilter("ignore", UnevenBiasWarning)
        network = network_of(graph)
    targets = one_hot(torch.from_numpy(samples.y), network.spec.target_shape, torch.float32)
    estimate = Centered(beta=COMPARED_BETA, free=SETTLED, nudged=SETTLED)
    found = estimate(network, torch.from_numpy(samples.x), targets).gradient
    powers = powers_of(graph)
    return {
        tie.weight: -found[f"weight/{tie.name}"].numpy() * 2.0 ** powers[tie.weight]
        for tie in map(graph.tie, graph.ties)
    }


def powers_of(graph: Graph) -> dict[str, int]:
    """Powers of two by which the rates of the weights of `graph` count, by id."""
    return dict.fromkeys(graph.ties, 0) | {r.weight: r.power for r in graph.plasticity}


def compare_updates(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    step: Mapping[str, np.ndarray],
    powers: Mapping[str, int] | None = None,
) -> GradientAlignment:
    """How the change from `before` to `after` compares with `step`; NaN where nothing changed.

    With `powers` both are taken in units, where all weights count alike.
    """
    units = {name: 2.0 ** ((powers or {}).get(name, 0) / 2) for name in step}
    change = np.concatenate([((after[k] - before[k]) / units[k]).ravel() for k in step])
    wanted = np.concatenate([(step[k] / units[k]).ravel() for k in step])
    moved = (change != 0) & (wanted != 0)
    norms = float(np.linalg.norm(change) * np.linalg.norm(wanted))
    if not moved.any() or norms == 0:
        return GradientAlignment(float("nan"), float("nan"))
    equal = np.sign(change[moved]) == np.sign(wanted[moved])
    return GradientAlignment(float(equal.mean()), float(change @ wanted) / norms)
