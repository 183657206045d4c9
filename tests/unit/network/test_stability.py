"""Claims about settling health: the spectral radius is that of the recurrent Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.func import jacrev

from ep_neuro.cli.targets import at_rest
from ep_neuro.data.datasets import Split
from ep_neuro.energy.operators import forward
from ep_neuro.energy.spec import INPUT, NetworkSpec
from ep_neuro.estimators import Centered
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle
from ep_neuro.network.stability import (
    FAINT,
    WEAK,
    Loop,
    calm_schedule,
    eigenvalues_at_rest,
    loops,
    near_bifurcation,
    spectral_radius,
    with_more_sweeps,
)
from tests.helpers.graphs import random_residual_spec, standardised_in_units
from tests.helpers.problems import chain, pooled, smooth

TIGHT = Schedule(sweeps=2000, tolerance=1e-9)


def exact_eigenvalues(network: Network, x: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of the dense Jacobian of the synchronous update, one sample."""
    landscape = Landscape(network, x)
    z = settle(landscape, TIGHT).state
    sizes = [v.numel() for v in z.values()]

    def update(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split(sizes)
        state = {p: part.view_as(v) for (p, v), part in zip(z.items(), parts, strict=True)}
        rest = {p: landscape.activations[p](landscape.drive(state, p)) for p in state}
        return torch.cat([v.flatten() for v in rest.values()])

    jacobian = jacrev(update)(torch.cat([v.flatten() for v in z.values()]))
    return torch.linalg.eigvals(jacobian.detach()).real


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_power_iteration_finds_the_radius_of_the_jacobian(seed: int) -> None:
    network = Network(random_residual_spec(seed), seed).double()
    x = torch.rand(1, *network.spec.input.shape, dtype=torch.float64)
    expected = float(exact_eigenvalues(network, x).abs().max())
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


@pytest.mark.parametrize("specify", [lambda spec: spec, smooth], ids=["boxes", "sigmoids"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lanczos_finds_both_ends_of_the_spectrum_of_each_sample(
    seed: int, specify: Callable[[NetworkSpec], NetworkSpec]
) -> None:
    network = Network(specify(random_residual_spec(seed)), seed).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, *network.spec.input.shape, dtype=torch.float64, generator=generator)
    lowest, highest = eigenvalues_at_rest(network, x, TIGHT)
    for i in range(3):
        values = exact_eigenvalues(network, x[i : i + 1])
        assert float(lowest[i]) == pytest.approx(float(values.min()), abs=0.01)
        assert float(highest[i]) == pytest.approx(float(values.max()), abs=0.01)


@pytest.mark.parametrize("weight", [0.3, 0.9])
def test_a_pair_in_reach_of_its_boxes_has_the_eigenvalue_of_its_coupling(weight: float) -> None:
    network, x = pair(weight)
    lowest, highest = eigenvalues_at_rest(network, x, TIGHT)
    torch.testing.assert_close(highest, torch.full_like(highest, weight))
    torch.testing.assert_close(lowest, torch.full_like(lowest, -weight))


def test_clipped_neurons_leave_no_eigenvalue_however_strong_the_coupling() -> None:
    network, x = pair(5.0)
    lowest, highest = eigenvalues_at_rest(network, x, TIGHT)
    assert (float(lowest.abs().max()), float(highest.abs().max())) == (0, 0)


def test_the_share_near_a_bifurcation_counts_samples_above_the_limit() -> None:
    network, x = pair(0.97)
    x[1] = 0.5
    # Driven by 0.05, both neurons reach 1 and are clipped; by half of it, both stay inside.
    share, largest = near_bifurcation(network, x, TIGHT)
    assert share == 0.5
    assert largest == pytest.approx(0.97)
    assert near_bifurcation(network, x, TIGHT, limit=0.98)[0] == 0


def test_compare_warns_of_bifurcations_in_one_line_and_is_silent_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for weight, share in ((0.97, 1.0), (0.3, 0.0)):
        network, x = pair(weight)
        split = Split((x / 2).numpy(), np.zeros(2, np.int64))
        found = at_rest(network, split)
        assert found["near_bifurcation"] == share
        assert found["largest_eigenvalue"] == pytest.approx(weight)
        text = capsys.readouterr().err
        assert text.count("\n") == share
        assert ("100% of 2 samples settle near a bifurcation" in text) == bool(share)


def pair(weight: float) -> tuple[Network, torch.Tensor]:
    """Two neurons in [0, 1], both driven by 0.05 from outside and joined by `weight`."""
    couplings = [("input", "a", 0.05), ("input", "b", 0.05), ("a", "b", weight)]
    spec = NetworkSpec.from_dict(
        {
            "name": "pair",
            "input": {"shape": [1]},
            "populations": [{"name": "a", "shape": [1]}, {"name": "b", "shape": [1]}],
            "couplings": [{"pre": pre, "post": post} for pre, post, _ in couplings],
        }
    )
    network = Network(spec).double()
    with torch.no_grad():
        for pre, post, value in couplings:
            network.weights[f"{pre}->{post}"].fill_(value)
    return network, torch.ones(2, 1, dtype=torch.float64)


# --- loop gains --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [random_residual_spec(1), random_residual_spec(4), pooled("max"), standardised_in_units()],
    ids=lambda s: s.name,
)
def test_a_loop_gain_is_the_largest_singular_value_squared(spec: NetworkSpec) -> None:
    network = Network(spec, 1).double()
    found = {loop.name: loop for loop in loops(network, iterations=500)}
    inner = [c for c in spec.couplings if c.pre != INPUT]
    assert list(found) == [c.name for c in inner]
    for c in inner:
        shape, weight = spec.shapes[c.pre], network.effective()[c.name]
        basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).unflatten(1, shape)
        matrix = forward(c, weight, basis, spec.shapes[c.post]).flatten(1)
        exact = float(torch.linalg.matrix_norm(matrix.detach(), 2)) ** 2
        assert found[c.name].loop_gain == pytest.approx(exact, rel=1e-3)
        few = next(loop for loop in loops(network) if loop.name == c.name).loop_gain
        assert 0.8 * exact < few < 1.001 * exact


def test_the_loop_of_an_untied_coupling_goes_back_by_its_own_weight() -> None:
    network = Network(chain(untied=True))
    before = [loop.loop_gain for loop in loops(network)]
    with torch.no_grad():
        network.feedback["h->g"].mul_(0.5)
    after = [loop.loop_gain for loop in loops(network)]
    assert after == [pytest.approx(before[0] / 2), before[1]]


@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_units_that_shrink_weaken_loops_by_the_square_of_their_ratio(ratio: float) -> None:
    plain, weak = (Network(standardised_in_units(r)) for r in (1.0, ratio))
    for a, b in zip(loops(plain), loops(weak), strict=True):
        assert b.loop_gain == pytest.approx(a.loop_gain / ratio**2, rel=1e-5)


@given(gain=st.floats(0, 0.9999))
@example(gain=0.1)
@example(gain=0.01)
@example(gain=0.0)
def test_a_loop_implies_the_fewest_sweeps_that_leave_a_hundredth(gain: float) -> None:
    sweeps = Loop("a->b", gain).sweeps
    assert sweeps is not None
    assert sweeps >= 1
    assert gain**sweeps <= FAINT * (1 + 1e-9)
    assert sweeps == 1 or gain ** (sweeps - 1) > FAINT * (1 - 1e-9)


@pytest.mark.parametrize("gain", [1.0, 3.0, float("nan")])
def test_a_loop_that_gains_may_not_settle(gain: float) -> None:
    assert Loop("a->b", gain).sweeps is None
    assert "may not settle" in str(Loop("a->b", gain))


@pytest.mark.parametrize(
    ("ratio", "factor", "weak", "relaxation"),
    [
        (4.0, 1.0, True, 1.0),
        (4.0, 6.0, False, 1.0),
        (1.0, 1.0, False, "auto"),
        (1.0, 0.1, True, 1.0),
    ],
)
def test_only_strong_loops_between_equal_units_are_over_relaxed(
    ratio: float, factor: float, weak: bool, relaxation: float | str
) -> None:
    network = Network(standardised_in_units(ratio))
    with torch.no_grad():
        for gain in (*network.weights.values(), *network.gains.values()):
            gain.mul_(factor)
    assert all(loop.loop_gain < WEAK for loop in loops(network)) == weak
    assert calm_schedule(network, 50) == Schedule(sweeps=50, relaxation=relaxation)
