"""Claims about activations: state, energy and slope belong to each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.energy.activations import Activation, Clip, HardReset, Sigmoid
from ep_neuro.energy.spec import PopulationSpec
from ep_neuro.errors import SpecError
from ep_neuro.estimators.gradient_check import check_network, watched
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import Schedule, settle
from tests.helpers.graphs import digits_like_residual, random_residual_spec
from tests.helpers.problems import TIGHT, problem, smooth

ENDS = st.tuples(st.floats(-3, 2), st.floats(0.1, 5)).map(lambda b: (b[0], b[0] + b[1]))
ACTIVATIONS = ENDS.map(Sigmoid) | ENDS.map(HardReset) | ENDS.map(Clip) | st.just(Clip(None))


@given(ENDS)
def test_the_sigmoid_is_the_box_made_smooth(box: tuple[float, float]) -> None:
    activation = Sigmoid(box)
    drive = torch.linspace(box[0] - 9, box[1] + 9, 101, dtype=torch.float64)
    z = activation(drive)
    assert bool(((z >= box[0]) & (z <= box[1])).all())
    assert bool((z.diff() >= 0).all())
    torch.testing.assert_close(z[[0, -1]], torch.tensor(box).double(), atol=1e-3, rtol=0)
    middle = torch.tensor([activation.middle], dtype=torch.float64)
    torch.testing.assert_close(activation(middle), middle)
    torch.testing.assert_close(activation.slope(middle), torch.ones_like(middle))


@given(ACTIVATIONS, st.floats(-4, 4))
def test_a_state_at_rest_is_the_minimum_of_its_potential_under_the_drive(
    activation: Activation, drive: float
) -> None:
    force = torch.full((1,), drive, dtype=torch.float64)
    rest = activation(force)
    lowest = activation.potential(rest) - force * rest
    for other in torch.linspace(-6, 6, 49, dtype=torch.float64):
        z = activation(other[None])
        assert float(activation.potential(z) - force * z) >= float(lowest) - 1e-9


@given(st.sampled_from([Sigmoid, HardReset]), ENDS, st.floats(0.1, 0.9))
def test_the_slope_is_the_derivative_of_the_state(
    kind: type[Sigmoid | HardReset], box: tuple[float, float], share: float
) -> None:
    activation = kind(box)
    drive = torch.tensor([box[0] + share * activation.height]).double().requires_grad_()
    z = activation(drive)
    (exact,) = torch.autograd.grad(z.sum(), [drive])
    torch.testing.assert_close(activation.slope(z.detach()), exact)
    value = z.detach().requires_grad_()
    (inverse,) = torch.autograd.grad(activation.potential(value).sum(), [value])
    torch.testing.assert_close(inverse, drive.detach(), atol=1e-9, rtol=1e-9)


def test_the_rate_of_a_hard_reset_bridges_the_stairs_of_a_constant_drive() -> None:
    drive = torch.linspace(0.02, 0.5, 2001, dtype=torch.float64)[:-1]
    stairs, rate = 1 / torch.ceil(1 / drive), HardReset((0.0, 1.0))(drive)
    assert abs(float((stairs - rate).mean())) < 0.006
    assert float((stairs - rate).abs().max()) < 0.07
    assert float((drive - stairs).mean()) > 0.04
    ends = HardReset((-1.0, 3.0))(torch.tensor([-5.0, -1.0, 7.0, 9.0]))
    assert ends.tolist() == [-1.0, -1.0, 3.0, 3.0]


def settled(seed: int) -> tuple[Landscape, State]:
    network, x, _ = problem(seed, smooth(random_residual_spec(seed)))
    landscape = Landscape(network, x)
    return landscape, settle(landscape, TIGHT).state


@given(st.integers(0, 10**6))
@settings(max_examples=10)
def test_at_the_fixed_point_of_a_smooth_network_its_energy_is_flat(seed: int) -> None:
    landscape, z = settled(seed)
    values = {p: v.requires_grad_() for p, v in z.items()}
    slopes = torch.autograd.grad(landscape.energy(values).sum(), list(values.values()))
    assert max(float(s.abs().max()) for s in slopes) < 1e-8


@pytest.mark.parametrize("relaxation", [0.5, 1.0, 1.9])
def test_the_energy_of_a_smooth_network_never_rises(relaxation: float) -> None:
    network = Network(smooth(digits_like_residual()), seed=1).double()
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= 3
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert watched(network, x, Schedule(sweeps=60, relaxation=relaxation))[1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_smooth_network_passes_the_check_with_finite_differences(seed: int) -> None:
    result = check_network(*problem(seed, smooth(random_residual_spec(seed))))
    assert result.holds
    assert result.finite_difference is not None
    assert result.finite_difference < 1e-4


def test_a_sigmoid_without_ends_is_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match="population 'h': a sigmoid has two ends") as caught:
        PopulationSpec(name="h", shape=(3,), box=None, activation="sigmoid")
    assert "\n" not in str(caught.value)
