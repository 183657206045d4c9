"""Claims about settling health: the spectral radius is that of the recurrent Jacobian."""

from __future__ import annotations

import pytest
import torch
from torch.func import jacrev

from ep_neuro.estimators import Centered
from ep_neuro.health import spectral_radius, with_more_sweeps
from ep_neuro.network import Landscape, Network
from ep_neuro.settle import Schedule, settle
from tests.helpers.graphs import random_residual_spec

TIGHT = Schedule(sweeps=2000, tolerance=1e-9)


def exact_radius(network: Network, x: torch.Tensor) -> float:
    """Largest absolute eigenvalue of the dense Jacobian of the synchronous update, one sample."""
    landscape = Landscape(network, x)
    z = settle(landscape, TIGHT).state
    sizes = [v.numel() for v in z.values()]

    def update(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split(sizes)
        state = {p: part.view_as(v) for (p, v), part in zip(z.items(), parts, strict=True)}
        return torch.cat([landscape.clip(p, landscape.drive(state, p)).flatten() for p in state])

    jacobian = jacrev(update)(torch.cat([v.flatten() for v in z.values()]))
    return float(torch.linalg.eigvals(jacobian.detach()).abs().max())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_power_iteration_finds_the_radius_of_the_jacobian(seed: int) -> None:
    network = Network(random_residual_spec(seed), seed).double()
    x = torch.rand(1, *network.spec.input.shape, dtype=torch.float64)
    expected = exact_radius(network, x)
    found = spectral_radius(network, x, TIGHT, iterations=300)
    assert found == pytest.approx(expected, rel=1e-2)
    assert found > 0


def test_stronger_weights_have_a_larger_radius_and_the_worst_sample_counts() -> None:
    network = Network(random_residual_spec(5), 5)
    x = torch.rand(6, *network.spec.input.shape)
    schedule = Schedule(sweeps=300)
    alone = [spectral_radius(network, x[i : i + 1], schedule, iterations=100) for i in range(6)]
    together = spectral_radius(network, x, schedule, iterations=100)
    assert together == pytest.approx(max(alone), rel=0.05)
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= 0.1
    assert spectral_radius(network, x, schedule) < 0.2 * together


def test_more_sweeps_lengthen_both_phases_and_nothing_else() -> None:
    estimator = Centered(beta=0.3, free=Schedule(sweeps=7), nudged=Schedule(sweeps=3))
    longer = with_more_sweeps(estimator, 4)
    assert (longer.free.sweeps, longer.nudged.sweeps, longer.beta) == (28, 12, 0.3)
    assert estimator.free.sweeps == 7
