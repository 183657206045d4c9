"""Claims about the estimators side by side: all estimate one gradient, each with its own error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ep_neuro.errors import CheckFailed, ConfigError
from ep_neuro.estimators import (
    Centered,
    FrozenMean,
    Holomorphic,
    OneSided,
    RandomSign,
)
from ep_neuro.estimators.baselines import Implicit, Unrolled, implicit_gradient
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network.network import Landscape, parameter_names
from ep_neuro.network.settling import Schedule, Status, settle
from ep_neuro.training.config import build_config
from tests.helpers.graphs import digits_like_residual, random_residual_spec
from tests.helpers.problems import (
    TIGHT,
    aligned,
    chain,
    difference,
    pooled,
    problem,
    slopes,
    smooth,
    smooth_chain,
)

SEEDS = st.integers(0, 10**6)
PHASES: dict[str, Any] = {"free": TIGHT, "nudged": TIGHT}
NUDGING = [OneSided, RandomSign, Centered, FrozenMean, Holomorphic]
KINDS = ["centered", "frozen-mean", "holomorphic", "one-sided", "random-sign", "implicit", "bptt"]


def error(estimator: Any, seed: int = 1) -> float:
    """Deviation from the implicit gradient on a smooth, curved network."""
    network, x, y = problem(seed, smooth_chain())
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    return difference(estimator(network, x, y).gradient, exact)


# --- all of them estimate one gradient ---------------------------------------------------------


@pytest.mark.parametrize("kind", NUDGING)
@given(SEEDS)
@settings(max_examples=5)
def test_with_a_small_nudge_every_estimator_is_the_implicit_gradient(kind: Any, seed: int) -> None:
    network, x, y = problem(seed, smooth(random_residual_spec(seed)))
    exact = implicit_gradient(network, x, y, TIGHT)
    estimate = kind(beta=1e-4, **PHASES)(network, x, y)
    assert estimate.free.settled
    assert estimate.nudged.settled
    assert cosine(estimate.gradient, exact.gradient) > 0.99999


@given(SEEDS)
@settings(max_examples=5)
def test_backprop_through_all_sweeps_is_the_implicit_gradient(seed: int) -> None:
    network, x, y = problem(seed)
    exact = implicit_gradient(network, x, y, TIGHT)
    estimate = Unrolled(free=TIGHT)(network, x, y)
    assert difference(estimate.gradient, exact.gradient) < 1e-6


def test_backprop_through_more_last_sweeps_comes_nearer_to_the_implicit_gradient() -> None:
    errors = [error(Unrolled(free=TIGHT, last=n)) for n in (2, 4, 8, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8


def test_the_implicit_estimator_is_exact_in_float32_networks() -> None:
    network, x, y = problem(1, smooth_chain())
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    estimate = Implicit()(network.float(), x.float(), y.float())
    assert all(g.dtype == torch.float32 for g in estimate.gradient.values())
    assert difference({k: g.double() for k, g in estimate.gradient.items()}, exact) < 1e-5


def test_the_implicit_estimator_refuses_an_equilibrium_that_is_no_minimum() -> None:
    network, x, y = problem(1, chain(box=(-1e6, 1e6)))
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= 20
        for bias in network.biases.values():
            bias.zero_()
    with pytest.raises(CheckFailed, match=r"curvature -.* is not above 0"):
        Implicit()(network, 0 * x, y)


# --- each with its own error -------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "order"), [(OneSided, 1), (Centered, 2)])
def test_the_error_falls_with_the_order_of_beta(kind: Any, order: int) -> None:
    errors = [error(kind(beta=b, **PHASES)) for b in (0.1, 0.05, 0.025)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("points", [2, 4, 6])
def test_the_error_of_holomorphic_ep_falls_with_the_power_of_its_points(points: int) -> None:
    errors = [error(Holomorphic(beta=b, points=points, **PHASES)) for b in (0.4, 0.2)]
    assert errors[0] / errors[1] == pytest.approx(2**points, rel=0.35)


def test_more_points_make_holomorphic_ep_better_at_a_finite_nudge() -> None:
    errors = [error(Holomorphic(beta=0.2, points=n, **PHASES)) for n in (2, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * errors[0]


def test_two_points_of_holomorphic_ep_are_centered_ep() -> None:
    network, x, y = problem(2, smooth_chain())
    two = Holomorphic(beta=0.3, points=2, **PHASES)(network, x, y).gradient
    assert difference(two, Centered(beta=0.3, **PHASES)(network, x, y).gradient) < 1e-8


def test_random_signs_turn_the_bias_of_one_sided_ep_into_noise() -> None:
    network, x, y = problem(1, smooth_chain())
    x, y = x[:1].expand(400, -1), y[:1].expand(400, -1)
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    one, random = (k(beta=0.05, **PHASES)(network, x, y).gradient for k in (OneSided, RandomSign))
    assert difference(random, exact) < 0.3 * difference(one, exact)


@pytest.mark.parametrize("beta", [0.01, 0.2, 0.9])
def test_frozen_mean_is_exact_for_any_nudge_where_no_neuron_meets_its_box(beta: float) -> None:
    network, x, y = problem(3, chain())
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    assert difference(FrozenMean(beta=beta, **PHASES)(network, x, y).gradient, exact) < 1e-8


def test_frozen_mean_is_exact_for_any_nudge_with_smooth_activations() -> None:
    assert error(FrozenMean(beta=0.9, **PHASES)) < 1e-8


@given(SEEDS)
@settings(max_examples=6)
def test_frozen_mean_agrees_with_the_implicit_gradient_beside_clipped_neurons(seed: int) -> None:
    network, x, y = problem(seed)
    exact = implicit_gradient(network, x, y, TIGHT)
    estimate = FrozenMean(beta=1e-4, **PHASES)(network, x, y)
    assert aligned(estimate.gradient, exact.gradient) > 0.9999


def test_frozen_mean_holds_both_nudged_states_in_their_boxes() -> None:
    network, x, y = problem(4, digits_like_residual())
    estimate = FrozenMean(beta=0.9, free=Schedule(sweeps=300))(network, 20 * x, y)
    assert estimate.nudged is not None
    for p in network.spec.populations:
        assert p.box is not None
        state = estimate.nudged.state[p.name]
        assert len(state) == 2 * len(x)
        assert float(state.min()) >= p.box[0] - 1e-12
        assert float(state.max()) <= p.box[1] + 1e-12


def test_frozen_mean_keeps_its_direction_with_bfloat16_weights() -> None:
    network, x, y = problem(5, digits_like_residual())
    network, x, y = network.float(), x.float(), y.float()
    full, half = (
        FrozenMean.model_validate({"precision": p})(network, x, y).gradient
        for p in ("float32", "bfloat16")
    )
    assert cosine(half, full) > 0.99


def test_late_samples_settle_again_in_full_precision_beside_bfloat16() -> None:
    network, x, y = problem(5, digits_like_residual())
    network, x, y = network.float(), x.float(), y.float()
    short = FrozenMean(precision="bfloat16", nudged=Schedule(sweeps=2, tolerance=1e-3))
    full = FrozenMean(nudged=Schedule(sweeps=200, tolerance=1e-4))
    assert cosine(short(network, x, y).gradient, full(network, x, y).gradient) > 0.9


def test_a_response_keeps_its_tolerance_where_only_its_sweeps_are_given() -> None:
    assert FrozenMean.model_validate({"nudged": {"sweeps": 7}}).nudged == Schedule(
        sweeps=7, tolerance=FrozenMean().nudged.tolerance
    )


# --- the interface -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_estimator_is_chosen_by_its_kind_and_gives_every_parameter(kind: str) -> None:
    spec = smooth_chain()
    config = build_config({"network": spec.to_dict(), "estimator": {"kind": kind}})
    assert config.estimator.kind == kind
    network, x, y = problem(0, spec)
    before = {k: p.detach().clone() for k, p in parameter_names(network).items()}
    estimate = config.estimator(network, x, y)
    for name, parameter in parameter_names(network).items():
        assert estimate.gradient[name].shape == parameter.shape
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


@pytest.mark.parametrize("kind", NUDGING)
def test_a_free_phase_that_starts_at_its_end_takes_no_time(kind: Any) -> None:
    network, x, y = problem(0, smooth_chain())
    estimator = kind(free=TIGHT)
    first = estimator(network, x, y)
    again = estimator(network, x, y, first.free.state)
    assert again.free.sweeps < first.free.sweeps
    assert difference(again.gradient, first.gradient) < 1e-6


def test_signs_are_drawn_again_by_a_resumed_run_and_anew_after_a_step() -> None:
    network, x, _ = problem(0, chain(), samples=64)
    signs = RandomSign().signs(network, x)
    assert set(signs.tolist()) == {-1, 1}
    assert torch.equal(signs, RandomSign().signs(network, x.clone()))
    assert not torch.equal(signs, RandomSign(seed=1).signs(network, x))
    with torch.no_grad():
        network.biases["out"] += 1e-6
    assert not torch.equal(signs, RandomSign().signs(network, x))


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (chain(), ["population 'h'", "clipping to [-9.0, 9.0]", "activation: sigmoid"]),
        (chain(readout=True, box=None), ["softmax of a readout", "estimator centered"]),
        (chain(cost="cross-entropy", box=None), ["softmax of the output", "leave cost out"]),
    ],
)
def test_holomorphic_ep_refuses_what_is_not_holomorphic(spec: Any, parts: list[str]) -> None:
    network, x, y = problem(0, spec)
    with pytest.raises(ConfigError) as caught:
        Holomorphic()(network, x, y)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts)


# --- what frozen-mean does by itself where the response does not settle ------------------------


def test_frozen_mean_settles_late_samples_again_as_two_phases_of_twice_the_sweeps() -> None:
    network, x, y = problem(3)
    estimate = FrozenMean(free=TIGHT, nudged=Schedule(sweeps=2, tolerance=1e-12))(network, x, y)
    two = Centered(free=TIGHT, nudged=Schedule(sweeps=4, tolerance=1e-12))(network, x, y)
    assert difference(estimate.gradient, two.gradient) < 1e-12
    assert estimate.nudged.sweeps == 2 + 4


def test_frozen_mean_keeps_its_response_for_the_samples_that_have_settled() -> None:
    network, x, y = problem(3)
    cut = FrozenMean(free=TIGHT, nudged=Schedule(sweeps=2, tolerance=1e-12), fallback=False)
    residual = cut(network, x, y).nudged.residual
    tolerance = float(residual.median())
    schedule = Schedule(sweeps=2, tolerance=tolerance)
    late = residual > tolerance
    assert 0 < int(late.sum()) < len(x)
    whole = FrozenMean(free=TIGHT, nudged=schedule)(network, x, y)
    kept = cut(network, x[~late], y[~late]).gradient
    again = Centered(free=TIGHT, nudged=Schedule(sweeps=4, tolerance=0.0))
    redone = again(network, x[late], y[late]).gradient
    share = float(late.double().mean())
    wanted = {k: (1 - share) * kept[k] + share * redone[k] for k in kept}
    assert difference(whole.gradient, wanted) < 1e-12
    assert (whole.nudged.residual[late] < residual[late]).all()


@pytest.mark.parametrize(
    ("spec", "tolerance"), [(None, 1e-6), (pooled("max"), 5e-7)], ids=["residual", "max-pool"]
)
def test_samples_that_leave_the_frozen_mean_early_do_not_disturb_the_others(
    spec: Any, tolerance: float
) -> None:
    network, x, y = problem(3, spec, samples=6)
    x = x * torch.linspace(0.2, 1.5, len(x), dtype=x.dtype).view(-1, *[1] * (x.dim() - 1))
    estimator = FrozenMean(free=TIGHT, nudged=Schedule(tolerance=tolerance), fallback=False)
    together = estimator(network, x, y)
    alone = [estimator(network, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    assert len({estimate.nudged.sweeps for estimate in alone}) > 1
    mean = {k: sum(e.gradient[k] for e in alone) / len(alone) for k in together.gradient}
    assert difference(together.gradient, mean) < 1e-3
    assert together.nudged.work < together.nudged.sweeps


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_falling_back_brings_the_gradient_nearer_to_the_implicit_one(seed: int) -> None:
    network, x, y = problem(seed)
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    # So small a beta that what is missing is the settling alone.
    cut = FrozenMean(beta=0.005, free=TIGHT, nudged=Schedule(sweeps=2, tolerance=1e-5))
    with_, without = (
        cosine(cut.model_copy(update={"fallback": f})(network, x, y).gradient, exact)
        for f in (True, False)
    )
    assert with_ > without


@pytest.mark.parametrize("kind", NUDGING)
def test_a_phase_cut_short_is_reported(kind: Any) -> None:
    network, x, y = problem(0, smooth_chain())
    estimate = kind(free=TIGHT, nudged=Schedule(sweeps=1, tolerance=1e-12))(network, x, y)
    assert estimate.nudged.status is Status.NOT_SETTLED
    assert float(estimate.nudged.residual.max()) > 1e-12


@pytest.mark.parametrize("kind", NUDGING)
@pytest.mark.parametrize("beta", [0, 1, -0.1])
def test_a_nudge_out_of_range_is_refused(kind: Any, beta: float) -> None:
    with pytest.raises(ValidationError):
        kind(beta=beta)


def test_an_odd_circle_is_refused() -> None:
    with pytest.raises(ValidationError):
        Holomorphic(points=3)


# --- the softmax readout -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OneSided, Centered, FrozenMean])
def test_cross_entropy_through_a_readout_has_the_slope_of_its_settled_loss(kind: Any) -> None:
    network, x, y = problem(6, chain(readout=True))
    gradient = kind(beta=1e-4, **PHASES)(network, x, y).gradient

    def loss() -> float:
        logits = network.scores(settle(Landscape(network, x), TIGHT).state["out"])
        return float(torch.nn.functional.cross_entropy(logits, y.argmax(1)))

    found, predicted = slopes(network, gradient, loss, 1e-5)
    assert found == pytest.approx(predicted, rel=2e-3)
    assert "readout/weight" in gradient
