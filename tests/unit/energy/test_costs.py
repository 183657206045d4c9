"""Claims about costs: their slopes, how they nudge, and the exact gradient of a cross-entropy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.energy.costs import CrossEntropy, Nudge, SoftmaxReadout, SquaredError
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import SpecError
from ep_neuro.estimators import Centered, FrozenMean, OneSided
from ep_neuro.estimators.baselines import Unrolled, implicit_gradient
from ep_neuro.estimators.gradient_check import check_network, cosine
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, nudged_energy, settle
from tests.helpers.problems import TIGHT, chain, problem

SEEDS = st.integers(0, 10**6)


def cross_entropy(box: tuple[float, float] | None = None) -> NetworkSpec:
    """The chain whose output, linear or in a `box`, is its own softmax."""
    data = chain(cost="cross-entropy").to_dict()
    data["populations"][-1]["box"] = box
    return NetworkSpec.from_dict(data)


# --- values and slopes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [chain(), chain(cost="cross-entropy"), chain(readout=True)],
    ids=["squared-error", "cross-entropy", "readout"],
)
@given(seed=SEEDS)
@settings(max_examples=10)
def test_the_slope_of_a_cost_is_its_derivative(spec: NetworkSpec, seed: int) -> None:
    network, x, y = problem(seed, spec)
    z = 3 * torch.randn(len(x), 3, dtype=torch.float64).requires_grad_()
    (exact,) = torch.autograd.grad(network.cost.value(z, y).sum(), [z])
    torch.testing.assert_close(network.cost.slope(z.detach(), y), exact)


def test_cross_entropy_is_that_of_torch_and_a_readout_that_is_the_identity_changes_nothing() -> (
    None
):
    generator = torch.Generator().manual_seed(0)
    z = 4 * torch.randn(6, 5, generator=generator)
    labels = torch.randint(5, (6,), generator=generator)
    y = torch.nn.functional.one_hot(labels, 5).float()
    found = CrossEntropy().value(z, y)
    exact = torch.nn.functional.cross_entropy(z, labels, reduction="none")
    torch.testing.assert_close(found, exact)
    layer = torch.nn.Linear(5, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(5))
        layer.bias.zero_()
        torch.testing.assert_close(SoftmaxReadout(layer).value(z, y), found)
        torch.testing.assert_close(SoftmaxReadout(layer).slope(z, y), CrossEntropy().slope(z, y))


def test_an_output_of_images_is_one_softmax_over_all_its_neurons() -> None:
    z, y = torch.randn(2, 3, 1, 2), torch.eye(6)[:2].view(2, 3, 1, 2)
    slope = CrossEntropy().slope(z, y)
    assert slope.shape == z.shape
    torch.testing.assert_close((slope + y).flatten(1).sum(1), torch.ones(2))


def test_a_network_takes_the_cost_of_its_spec() -> None:
    assert Network(chain()).cost == SquaredError()
    assert Network(chain(cost="cross-entropy")).cost == CrossEntropy()
    network = Network(chain(readout=True))
    assert network.readout is not None
    assert network.cost == SoftmaxReadout(network.readout)


# --- how a cross-entropy nudges ----------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=20)
def test_the_curvature_of_a_cross_entropy_lies_between_zero_and_a_half(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = 5 * torch.randn(1, 4, generator=generator, dtype=torch.float64)
    y = torch.eye(4, dtype=torch.float64)[:1]
    hessian = torch.autograd.functional.hessian(lambda v: CrossEntropy().value(v, y).sum(), z)
    curvatures = torch.linalg.eigvalsh(hessian.view(4, 4))
    assert float(curvatures.min()) > -1e-12
    assert float(curvatures.max()) <= 0.5 + 1e-12


def test_a_curvature_of_a_half_is_met_where_two_classes_share_all() -> None:
    z, y = torch.tensor([[0.0, 0.0, -800.0]]), torch.eye(3)[:1]
    hessian = torch.autograd.functional.hessian(lambda v: CrossEntropy().value(v, y).sum(), z)
    assert float(torch.linalg.eigvalsh(hessian.view(3, 3)).max()) == pytest.approx(0.5)


@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
@given(seed=SEEDS, beta=st.floats(-0.99, 0.99), relaxation=st.sampled_from([0.5, 1.0, 1.5, 1.9]))
@settings(max_examples=15)
def test_no_sweep_raises_the_energy_nudged_by_a_cross_entropy(
    box: Any, seed: int, beta: float, relaxation: float
) -> None:
    network, x, y = problem(seed, cross_entropy(box))
    landscape, nudge = Landscape(network, 3 * x), Nudge(beta, y, network.cost)
    schedule = Schedule(sweeps=30, relaxation=relaxation, tolerance=1e-12)
    found = settle(landscape, schedule, None, nudge, record=True)
    start = float(nudged_energy(landscape, landscape.rest(), nudge).mean().detach())
    energies = torch.tensor([start, *found.energies], dtype=torch.float64)
    assert float(energies.diff().max()) < 1e-10 * float(energies.abs().max().clamp_min(1))


@pytest.mark.parametrize("beta", [-0.9, 0.9])
def test_a_nudged_cross_entropy_settles_where_the_drive_less_its_slope_is_the_state(
    beta: float,
) -> None:
    network, x, y = problem(2, cross_entropy())
    landscape, nudge = Landscape(network, x), Nudge(beta, y, network.cost)
    found = settle(landscape, Schedule(sweeps=2000, tolerance=1e-11), None, nudge)
    assert found.settled
    out = found.state["out"]
    target = landscape.drive(found.state, "out") - beta * network.cost.slope(out, y)
    torch.testing.assert_close(out, target, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
def test_a_nudge_towards_the_target_lowers_the_cost_and_away_raises_it(cost: Any) -> None:
    network, x, y = problem(3, cross_entropy())
    landscape = Landscape(network, x)
    values = [
        cost.value(settle(landscape, TIGHT, nudge=Nudge(beta, y, cost)).state["out"], y)
        for beta in (0.3, 0.0, -0.3)
    ]
    assert bool((values[0] < values[1]).all() and (values[1] < values[2]).all())


# --- the exact gradient ------------------------------------------------------------------------


@pytest.mark.parametrize("box", [None, (0.0, 1.0)], ids=["linear", "boxed"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ep_under_a_cross_entropy_is_the_implicit_gradient(seed: int, box: Any) -> None:
    network, x, y = problem(seed, cross_entropy(box))
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    phases: dict[str, Any] = {"free": TIGHT, "nudged": TIGHT}
    estimators = {
        "one-sided": OneSided(beta=1e-5, **phases),
        "centered": Centered(beta=1e-3, **phases),
        "frozen-mean": FrozenMean(beta=1e-3, **phases),
        "bptt": Unrolled(free=TIGHT.model_copy(update={"sweeps": 300})),
    }
    for name, estimator in estimators.items():
        assert cosine(estimator(network, x, y).gradient, exact) > 0.9999, name


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("box", [None, (0.0, 1.0)], ids=["linear", "boxed"])
def test_a_network_with_a_cross_entropy_passes_its_check(seed: int, box: Any) -> None:
    result = check_network(*problem(seed, cross_entropy(box)))
    assert result.holds, result
    assert result.finite_difference is not None
    assert result.finite_difference < 1e-4


def test_at_a_nudge_that_trains_centered_ep_is_close_to_the_implicit_gradient() -> None:
    network, x, y = problem(0, cross_entropy())
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    centered = Centered(beta=0.2, free=TIGHT, nudged=TIGHT)(network, x, y).gradient
    assert cosine(centered, exact) > 0.99


# --- the specification -------------------------------------------------------------------------


def test_a_cost_is_read_and_written_and_squared_error_needs_no_word(tmp_path: Any) -> None:
    spec = chain(cost="cross-entropy")
    (tmp_path / "net.yaml").write_text(spec.to_yaml())
    assert "cost: cross-entropy" in spec.to_yaml()
    assert NetworkSpec.from_yaml(tmp_path / "net.yaml") == spec
    assert "cost" not in chain().to_dict()


def test_a_readout_and_a_cost_of_the_output_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"cost of 'chain'.*remove readout") as caught:
        chain(readout=True, cost="cross-entropy")
    assert "\n" not in str(caught.value)
