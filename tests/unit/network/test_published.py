"""Claims about `schedule: published`: states and gradients of the public code, to rounding.

`tests/data/published_states.npz` was computed with the code of arXiv:2509.26003, as the README
beside it says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.estimators import Estimate
from ep_neuro.network.architectures import hopfield_resnet
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.training.config import build_config

FIGURES = Path(__file__).parents[2] / "data" / "published_states.npz"
CLOSE = {"rtol": 0.0, "atol": 1e-12}


@pytest.fixture(scope="module")
def figures() -> dict[str, Tensor]:
    return published_figures()


def published_figures() -> dict[str, Tensor]:
    """Every figure of the public code, by name."""
    with np.load(FIGURES) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def narrow() -> NetworkSpec:
    """The network that the figures belong to."""
    channels = (4, 4, 6, 6, 8, 8, 8, 8)
    return hopfield_resnet("narrow", image=(3, 32, 32), channels=channels, gain=1.0)


@pytest.fixture(scope="module")
def network(figures: dict[str, Tensor]) -> Network:
    network = Network(narrow()).double()
    with torch.no_grad():
        for name, parameter in parameter_names(network).items():
            parameter.copy_(figures[name])
    return network


@pytest.fixture(scope="module")
def estimate(network: Network, figures: dict[str, Tensor]) -> Estimate:
    config = build_config(
        {
            "network": network.spec.to_dict(),
            "estimator": {"kind": "frozen-mean", "beta": 0.1},
            "schedule": "published",
        }
    )
    y = one_hot(figures["labels"], network.spec.target_shape, torch.float64)
    found: Estimate = config.estimator(network, figures["x"], y)
    return found


def test_the_free_states_are_those_of_the_published_code(
    estimate: Estimate, figures: dict[str, Tensor]
) -> None:
    assert estimate.free.sweeps == 120
    for name, value in estimate.free.state.items():
        torch.testing.assert_close(value, figures[f"free/{name}"], **CLOSE)


def test_the_nudged_states_are_those_of_the_published_code(
    estimate: Estimate, figures: dict[str, Tensor]
) -> None:
    assert estimate.nudged is not None
    assert estimate.nudged.sweeps == 50
    for name, value in estimate.nudged.state.items():
        expected = torch.cat([figures[f"plus/{name}"], figures[f"minus/{name}"]])
        torch.testing.assert_close(value, expected, **CLOSE)


def test_the_clipped_gradient_is_that_of_the_published_code(
    network: Network, estimate: Estimate, figures: dict[str, Tensor]
) -> None:
    for name, parameter in parameter_names(network).items():
        parameter.grad = estimate.gradient[name].clone()
    # As `optimiser.clip_norm: 1.0` does.
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    assert norm > 1
    for name, parameter in parameter_names(network).items():
        found = parameter.grad
        assert found is not None
        torch.testing.assert_close(found, figures[f"grad/{name.split('/')[1]}"], **CLOSE)
