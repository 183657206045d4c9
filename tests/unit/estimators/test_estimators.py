"""Claims about the EP gradient: it is the gradient of the settled loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from ep_neuro.energy.costs import Nudge, SquaredError
from ep_neuro.energy.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.estimators import Centered, Gradient, contrast
from ep_neuro.estimators.baselines import implicit_gradient
from ep_neuro.estimators.contrast import energy_gradient, response
from ep_neuro.network.network import Landscape, Network, parameter_names
from ep_neuro.network.settling import Schedule, settle
from tests.helpers.problems import TIGHT, WIDE, aligned, chain, difference, pooled, problem

SEEDS = st.integers(0, 10**6)


def dense_chain() -> NetworkSpec:
    """5-6-3 in boxes so wide that no neuron ever touches an end: the loss is smooth."""
    return NetworkSpec(
        name="chain",
        input=InputSpec(shape=(5,)),
        populations=(
            PopulationSpec(name="h", shape=(6,), box=WIDE),
            PopulationSpec(name="out", shape=(3,), box=None),
        ),
        couplings=(
            CouplingSpec(pre="input", post="h", gain=0.5),
            CouplingSpec(pre="h", post="out", gain=0.5),
        ),
    )


def settled_loss(network: Network, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        state = settle(Landscape(network, x), TIGHT).state
        return float(SquaredError().value(state[network.spec.output], y).mean())


@given(SEEDS)
@settings(max_examples=12)
def test_at_convergence_centered_ep_is_the_implicit_gradient(seed: int) -> None:
    network, x, y = problem(seed)
    exact = implicit_gradient(network, x, y, TIGHT)
    estimate = Centered(beta=1e-4, free=TIGHT, nudged=TIGHT)(network, x, y)
    assert exact.curvature > 0
    assert estimate.free.settled
    assert aligned(estimate.gradient, exact.gradient) > 0.9999


def test_centered_ep_is_the_slope_of_the_settled_loss_along_every_parameter() -> None:
    network, x, y = problem(0, dense_chain())
    gradient = Centered(beta=1e-3, free=TIGHT, nudged=TIGHT)(network, x, y).gradient
    slopes: Gradient = {}
    for name, parameter in parameter_names(network).items():
        slopes[name] = torch.zeros_like(parameter)
        flat, found = parameter.data.view(-1), slopes[name].view(-1)
        for i in range(len(flat)):
            value, losses = float(flat[i]), []
            for moved in (value + 1e-5, value - 1e-5):
                flat[i] = moved
                losses.append(settled_loss(network, x, y))
            flat[i], found[i] = value, (losses[0] - losses[1]) / 2e-5
    assert difference(gradient, slopes) < 1e-5


def test_the_error_of_centered_ep_falls_with_the_square_of_beta() -> None:
    network, x, y = problem(1, dense_chain())
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    errors = [
        difference(Centered(beta=b, free=TIGHT, nudged=TIGHT)(network, x, y).gradient, exact)
        for b in (0.1, 0.05, 0.025)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_centered_ep_is_the_contrast_of_two_phases_settled_one_by_one() -> None:
    network, x, y = problem(2)
    estimate = Centered(beta=0.2, free=TIGHT, nudged=TIGHT)(network, x, y)
    landscape = Landscape(network, x)
    plus, minus = (
        settle(landscape, TIGHT, estimate.free.state, Nudge(beta, y)).state for beta in (0.2, -0.2)
    )
    assert difference(contrast(landscape, plus, minus, 0.4), estimate.gradient) < 1e-8


@given(SEEDS)
@settings(max_examples=8)
def test_swapping_the_phases_turns_the_gradient_round_exactly(seed: int) -> None:
    network, x, y = problem(seed)
    landscape = Landscape(network, x)
    loose = Schedule(sweeps=4)
    plus, minus = (settle(landscape, loose, nudge=Nudge(b, y)).state for b in (0.2, -0.2))
    there, back = contrast(landscape, plus, minus, 0.4), contrast(landscape, minus, plus, 0.4)
    assert all(torch.equal(there[k], -back[k]) for k in there)


def test_the_contrast_is_post_times_pre_at_plus_less_that_at_minus() -> None:
    network, x, _ = problem(3, dense_chain())
    generator = torch.Generator().manual_seed(0)
    plus, minus = (
        {p: torch.randn(4, n, generator=generator, dtype=torch.float64) for p, n in sizes}
        for sizes in [[("h", 6), ("out", 3)]] * 2
    )
    found = contrast(Landscape(network, x), plus, minus, 0.4)
    hebbian = sum(s * z["out"].T @ z["h"] for s, z in ((1, minus), (-1, plus))) / (4 * 0.4)
    torch.testing.assert_close(found["weight/h->out"], hebbian)
    bias = (minus["h"] - plus["h"]).mean(0) / 0.4
    torch.testing.assert_close(found["bias/h"], bias)


SPECS = [None, pooled("max"), pooled("avg"), chain(untied=True)]


@pytest.mark.parametrize("spec", SPECS, ids=["residual", "max", "avg", "untied"])
@given(SEEDS)
@settings(max_examples=4)
def test_local_products_are_the_derivative_of_the_energy(
    spec: NetworkSpec | None, seed: int
) -> None:
    network, x, _ = problem(seed, spec)
    landscape, pinned = Landscape(network, x), Landscape(network, x)
    width = torch.linspace(0.1, 0.4, len(x))
    generator = torch.Generator().manual_seed(seed)
    plus, minus = (
        {p: torch.rand(v.shape, generator=generator).to(v) for p, v in landscape.rest().items()}
        for _ in range(2)
    )
    fall = ((landscape.energy(plus) - landscape.energy(minus)) / width).mean()
    found = contrast(landscape, plus, minus, width)
    assert difference(found, energy_gradient(network, fall)) < 1e-9
    pinned = pinned.pinned(plus)
    found = response(pinned, plus, minus, width)
    tilt = (pinned.tilt(plus, minus) * width).sum()
    assert difference(found, energy_gradient(network, tilt)) < 1e-9


def test_a_batch_has_the_mean_gradient_of_its_samples() -> None:
    network, x, y = problem(4)
    estimator = Centered(beta=0.1, free=TIGHT, nudged=TIGHT)
    whole = estimator(network, x, y).gradient
    parts = [estimator(network, x[i : i + 1], y[i : i + 1]).gradient for i in range(len(x))]
    mean = {k: torch.stack([p[k] for p in parts]).mean(0) for k in whole}
    assert difference(whole, mean) < 1e-7


def test_a_network_that_is_right_learns_nothing() -> None:
    network, x, _ = problem(5, dense_chain())
    y = settle(Landscape(network, x), TIGHT).state["out"]
    gradient = Centered(beta=0.1, free=TIGHT, nudged=TIGHT)(network, x, y).gradient
    assert max(float(g.abs().max()) for g in gradient.values()) < 1e-9


def test_estimating_leaves_parameters_and_their_gradients_alone() -> None:
    network, x, y = problem(6)
    before = {k: p.detach().clone() for k, p in parameter_names(network).items()}
    Centered()(network, x, y)
    for name, parameter in parameter_names(network).items():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


@pytest.mark.parametrize("beta", [0, 1, -0.1])
def test_a_nudge_without_a_minimum_or_direction_is_refused(beta: float) -> None:
    with pytest.raises(ValidationError):
        Centered(beta=beta)
