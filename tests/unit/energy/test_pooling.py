"""Claims about pooled couplings: both directions come from one energy."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.energy import pooling
from ep_neuro.energy.spec import CouplingSpec
from ep_neuro.errors import ConfigError, SpecError
from ep_neuro.estimators import Centered, FrozenMean, Holomorphic
from ep_neuro.estimators.baselines import FeedForwardTwin, implicit_gradient
from ep_neuro.estimators.gradient_check import check_network, cosine, watched
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import Schedule
from tests.helpers.problems import TIGHT, pooled, problem, smooth

Pool = Literal["max", "avg"]
POOLS: list[Pool] = ["max", "avg"]
SEEDS = st.integers(0, 10**6)


def random_state(landscape: Landscape, seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    shapes = {p: (landscape.size, *landscape.shapes[p]) for p in landscape.boxes}
    return {p: torch.randn(s, generator=generator, dtype=torch.float64) for p, s in shapes.items()}


@given(st.integers(2, 9), st.integers(2, 9), SEEDS)
def test_both_directions_of_a_pool_are_one_bilinear_form(rows: int, cols: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(2, 3, rows, cols, generator=generator, dtype=torch.float64)
    z = torch.randn(2, 3, rows // 2, cols // 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        (pooling.average(u) * z).sum(), (u * pooling.spread(z, (rows, cols))).sum()
    )
    values, places = pooling.choose(u)
    torch.testing.assert_close(values, F.max_pool2d(u, 2))
    torch.testing.assert_close(pooling.pick(u, places), values)
    torch.testing.assert_close(
        (values * z).sum(), (u * pooling.place(z, places, (rows, cols))).sum()
    )


@pytest.mark.parametrize("pool", POOLS)
@given(SEEDS)
@settings(max_examples=8)
def test_the_drive_is_the_state_less_the_slope_of_the_energy(pool: Pool, seed: int) -> None:
    network, x, _ = problem(seed, pooled(pool))
    landscape = Landscape(network, x)
    z = {p: v.requires_grad_() for p, v in random_state(landscape, seed).items()}
    slopes = torch.autograd.grad(landscape.energy(z).sum(), list(z.values()))
    for (name, value), slope in zip(z.items(), slopes, strict=True):
        torch.testing.assert_close(landscape.drive(z, name), value - slope)


@pytest.mark.parametrize("relaxation", [0.7, 1.0, 1.7])
@pytest.mark.parametrize("pool", POOLS)
def test_the_energy_never_rises_while_what_is_pooled_into_is_not_negative(
    pool: Pool, relaxation: float
) -> None:
    network, x, _ = problem(0, pooled(pool, gain=3.0))
    assert watched(network, x, Schedule(sweeps=60, relaxation=relaxation))[1] == 0


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("seed", range(2))
def test_a_pooled_network_passes_the_check_with_finite_differences(pool: Pool, seed: int) -> None:
    result = check_network(*problem(seed, pooled(pool)))
    assert result.holds
    assert result.finite_difference is not None
    assert result.finite_difference < 1e-4


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("kind", [Centered, FrozenMean])
def test_estimators_see_through_pools(kind: Any, pool: Pool) -> None:
    network, x, y = problem(7, pooled(pool))
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    estimate = kind(beta=1e-4, free=TIGHT, nudged=TIGHT)(network, x, y)
    assert cosine(estimate.gradient, exact) > 0.99999


def test_a_pinned_landscape_has_the_drive_of_its_state_and_is_affine() -> None:
    network, x, _ = problem(1, pooled("max"))
    landscape = Landscape(network, x)
    z, h = random_state(landscape, 0), random_state(landscape, 1)
    with torch.no_grad():
        pinned = landscape.pinned(z)
        for p in z:
            torch.testing.assert_close(pinned.drive(z, p), landscape.drive(z, p))
            moved = pinned.drive({k: z[k] + h[k] for k in z}, p)
            torch.testing.assert_close(moved, pinned.drive(z, p) + pinned.linear_drive(h, p))


def test_the_feed_forward_twin_pools_as_torch_does() -> None:
    network, x, _ = problem(2, pooled("max"))
    w = network.weights
    a = F.max_pool2d(F.conv2d(x, w["input->a"], padding=1), 2)
    a = (a + network.biases["a"].view(-1, 1, 1)).clamp(0, 2)
    b = F.max_pool2d(F.conv2d(a, w["a->b"], padding=1), 2)
    b = b + F.max_pool2d(F.conv2d(x, w["input->b"], stride=2, padding=1), 2)
    b = (b + network.biases["b"].view(-1, 1, 1)).clamp(0, 2)
    out = (F.linear(b.flatten(1), w["b->out"]) + network.biases["out"]).clamp(0, 3)
    torch.testing.assert_close(FeedForwardTwin(network)(x), out)


def test_holomorphic_ep_takes_average_pools_and_refuses_maxima() -> None:
    network, x, y = problem(3, smooth(pooled("avg")))
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    found = Holomorphic(beta=0.05, free=TIGHT, nudged=TIGHT)(network, x, y).gradient
    assert cosine(found, exact) > 0.999999
    with pytest.raises(ConfigError, match="'input->a': taking a maximum is not holomorphic"):
        Holomorphic()(Network(smooth(pooled("max"))), x, y)


def test_a_pool_changes_the_shape_that_is_asked_for() -> None:
    c = CouplingSpec(pre="a", post="b", kind="conv", kernel=3, padding=1, pool="max")
    c.check_shapes((1, 9, 8), (5, 4, 4))
    with pytest.raises(SpecError, match=r"a 2x2 pool on \[1, 9, 8\] gives \[4, 4\]"):
        c.check_shapes((1, 9, 8), (5, 9, 8))
    with pytest.raises(SpecError, match="pool belong to kind: conv"):
        CouplingSpec(pre="a", post="b", pool="max").check_shapes((3,), (3,))
