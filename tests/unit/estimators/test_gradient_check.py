"""Claims about the check of a network: it passes what is right and catches what is not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from ep_neuro.energy.costs import one_hot
from ep_neuro.estimators.gradient_check import SMALL, CheckResult, check_network, cosine, watched
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.network.settling import Schedule
from tests.helpers.graphs import digits_like_dense, digits_like_residual, random_residual_spec


def problem(seed: int = 0) -> tuple[Network, Tensor, Tensor]:
    spec = random_residual_spec(seed)
    network = Network(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bias in network.biases.values():
            bias.fill_(0.2)
    x = torch.rand(4, *spec.input.shape, generator=generator)
    labels = torch.randint(spec.classes, (4,), generator=generator)
    return network, x, one_hot(labels, spec.shapes[spec.output], torch.float32)


def scaled(network: Network, factor: float) -> Network:
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= factor
    return network


@pytest.mark.parametrize("seed", range(4))
def test_a_small_network_passes_with_finite_differences(seed: int) -> None:
    network, x, y = problem(seed)
    assert network.spec.parameters <= SMALL
    result = check_network(network, x, y)
    assert result.holds
    assert result.gradient_cosine > 0.9999
    assert result.finite_difference is not None
    assert result.finite_difference < 1e-4
    assert result.energy_rises == 0
    assert result.curvature is not None
    assert result.curvature > 0
    assert result.worst_tensor in parameter_names(network)
    assert result.message.startswith("settled in")


def test_a_larger_network_passes_without_finite_differences() -> None:
    network = scaled(Network(digits_like_dense()), 0.5)
    assert network.spec.parameters > SMALL
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 1, 8, 8, generator=generator)
    result = check_network(network, x, torch.eye(10)[:4])
    assert result.finite_difference is None
    assert result.holds


def test_the_network_under_check_stays_as_it_is() -> None:
    network, x, y = problem()
    before = {k: p.detach().clone() for k, p in parameter_names(network).items()}
    check_network(network, x, y)
    for name, value in parameter_names(network).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_a_phase_cut_short_does_not_pass() -> None:
    network, x, y = problem()
    result = check_network(network, x, y, schedule=Schedule(sweeps=2, tolerance=1e-11))
    assert not result.settled
    assert not result.holds
    assert result.message.startswith("not settled after 2 sweeps")


def test_a_diverging_network_does_not_pass_and_its_energy_rises() -> None:
    network, x, y = problem()
    schedule = Schedule(method="synchronous", sweeps=50, relaxation=1.0)
    result = check_network(scaled(network, 10), x, y, schedule=schedule)
    assert not result.holds
    assert result.energy_rises > 0


def test_a_strong_nudge_shows_in_the_cosine() -> None:
    network, x, y = problem()
    weak, strong = (check_network(network, x, y, beta=b).gradient_cosine for b in (1e-4, 0.9))
    assert strong < weak


@pytest.mark.parametrize(
    "flaw",
    [
        {"gradient_cosine": 0.99},
        {"finite_difference": 0.1},
        {"energy_rises": 1},
        {"settled": False},
        {"gradient_cosine": float("nan")},
    ],
)
def test_one_flaw_is_enough_to_fail(flaw: dict[str, float]) -> None:
    good = CheckResult(1.0, "bias/h", 1.0, 1e-6, 0, 1e-12, True, 0.5, "settled")
    assert good.holds
    assert not dataclasses.replace(good, **flaw).holds  # type: ignore[arg-type]


def test_a_network_held_at_the_ends_of_its_boxes_has_nothing_to_compare() -> None:
    network, x, y = problem()
    with torch.no_grad():
        network.biases[network.spec.output].fill_(-99.0)
    result = check_network(network, x, y)
    assert result.settled
    assert result.vanishes
    assert not result.holds
    assert not check_network(*problem()).vanishes


def test_energy_rises_counts_no_sweep_of_a_coloured_schedule() -> None:
    network = scaled(Network(digits_like_residual()).double(), 3)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coloured, steps = (
        Schedule.model_validate({"method": m, "sweeps": 40, "relaxation": 1.0})
        for m in ("coloured", "synchronous")
    )
    assert watched(network, x, coloured)[1] == 0
    assert watched(network, x, steps)[1] > 5


def test_cosine_knows_direction_only() -> None:
    a = {"w": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    assert cosine(a, {k: 7 * v for k, v in a.items()}) == pytest.approx(1)
    assert cosine(a, {k: -v for k, v in a.items()}) == pytest.approx(-1)
    assert cosine(a, {k: torch.zeros_like(v) for k, v in a.items()}) == 0
