"""Whether a chip learns what equilibrium propagation says: its updates against the float ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from compilers.ir.graph import Graph
from ep_neuro.data.datasets import Split
from ep_neuro.energy.costs import one_hot
from ep_neuro.estimators import Centered
from ep_neuro.network.settling import Schedule
from targets.experiments.onchip.to_network import UnevenBiasWarning, network_of, real_weight

SETTLED = Schedule(sweeps=80, tolerance=1e-4)
"""How far the network in floating point settles, in either phase."""

SYNAPSES = 12
"""Synapses of each weight that are watched while they learn."""

COMPARED_BETA = 0.2
"""Nudging factor in floating point; at equilibrium the gradient hardly depends on it."""


@dataclass(frozen=True)
class GradientAlignment:
    """Changes of weights against the negative gradient.

    Attributes
    ----------
    sign : float
        Share of the weights that changed, and have a gradient, which moved as it says.
    cosine : float
        Between the change of all weights and the negative gradient.
    """

    sign: float
    cosine: float


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

    The negative gradient of the mean cost by weight id, in real units (Laborieux 2021, eq. 11).
    """
    with warnings.catch_warnings():
        # A gradient of the median bias is what there is to compare with.
        warnings.simplefilter("ignore", UnevenBiasWarning)
        network = network_of(graph)
    targets = one_hot(torch.from_numpy(samples.y), network.spec.target_shape, torch.float32)
    estimate = Centered(beta=COMPARED_BETA, free=SETTLED, nudged=SETTLED)
    found = estimate(network, torch.from_numpy(samples.x), targets).gradient
    return {
        tie.weight: -found[f"weight/{tie.name}"].numpy().astype(np.float64)
        for tie in map(graph.tie, graph.ties)
    }


def compare_updates(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    step: Mapping[str, np.ndarray],
) -> GradientAlignment:
    """How the change from `before` to `after` compares with `step`; NaN where nothing changed."""
    change = np.concatenate([(after[name] - before[name]).ravel() for name in step])
    wanted = np.concatenate([step[name].ravel() for name in step])
    moved = (change != 0) & (wanted != 0)
    norms = float(np.linalg.norm(change) * np.linalg.norm(wanted))
    if not moved.any() or norms == 0:
        return GradientAlignment(float("nan"), float("nan"))
    equal = np.sign(change[moved]) == np.sign(wanted[moved])
    return GradientAlignment(float(equal.mean()), float(change @ wanted) / norms)
