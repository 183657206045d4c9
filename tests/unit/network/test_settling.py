"""Claims about settling: the energy falls, the end is a fixed point, and trouble is reported."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ep_neuro.energy.costs import Nudge, SquaredError, one_hot
from ep_neuro.energy.spec import INPUT
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import Schedule, Status, colouring, nudged_energy, settle
from tests.helpers.graphs import digits_like_residual, random_residual_spec

SEEDS = st.integers(0, 10**6)
TIGHT = Schedule(sweeps=3000, relaxation=1.3, tolerance=1e-11)
METHODS = get_args(Schedule.model_fields["method"].annotation)


def landscape_of(seed: int, scale: float = 1.0, count: int = 3) -> Landscape:
    """Float64 energy of a random residual network whose weights are multiplied by `scale`."""
    spec = random_residual_spec(seed)
    network = Network(spec, seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= scale
        for bias in network.biases.values():
            bias.uniform_(0, 0.4, generator=generator)
    x = torch.rand(count, *spec.input.shape, generator=generator, dtype=torch.float64)
    return Landscape(network, x)


def nudge_of(landscape: Landscape, beta: float) -> Nudge:
    """Towards class 0, or away from it."""
    labels = torch.zeros(landscape.size, dtype=torch.int64)
    shape = landscape.shapes[landscape.spec.output]
    return Nudge(beta, one_hot(labels, shape, torch.float64))


@given(SEEDS, st.sampled_from(METHODS), st.sampled_from([(0.0, 1.0), (0.5, 1.0)]))
@example(12151, "synchronous", (0.0, 1.0))  # sums that lie in another layout
@settings(max_examples=10)
def test_not_asking_silent_populations_changes_nothing(
    seed: int, method: Any, box: tuple[float, float]
) -> None:
    landscape, schedule = landscape_of(seed), Schedule(method=method, sweeps=5)
    # A population that cannot be zero is never silent.
    landscape.boxes = dict.fromkeys(landscape.boxes, box)
    found, given = (settle(landscape, schedule, start) for start in (None, landscape.rest()))
    for name, value in found.state.items():
        assert torch.equal(value, given.state[name])


@pytest.mark.parametrize("method", ["sequential", "coloured"])
@given(
    SEEDS,
    st.floats(0.05, 1.95) | st.just("auto"),
    st.floats(0.2, 4.0),
    st.sampled_from([None, -0.4, 0.4]),
)
@settings(max_examples=25)
def test_energy_never_rises_under_sequential_and_coloured_sweeps(
    method: Any, seed: int, relaxation: Any, scale: float, beta: float | None
) -> None:
    landscape = landscape_of(seed, scale)
    nudge = None if beta is None else nudge_of(landscape, beta)
    energies = [nudged_energy(landscape, landscape.rest(), nudge).detach()]

    def watch(_: int, z: State) -> None:
        energies.append(nudged_energy(landscape, z, nudge))

    schedule = Schedule(method=method, sweeps=25, relaxation=relaxation, tolerance=0)
    result = settle(landscape, schedule, nudge=nudge, on_sweep=watch)
    steps = torch.stack(energies)
    assert len(energies) == result.sweeps + 1
    assert float(steps.diff(dim=0).max()) <= 1e-11 * float(steps.abs().max().clamp_min(1))


@given(SEEDS, st.sampled_from(METHODS), st.sampled_from([None, -0.4, 0.4]))
@settings(max_examples=25)
def test_every_method_settles_in_the_same_fixed_point(
    seed: int, method: str, beta: float | None
) -> None:
    landscape = landscape_of(seed, 0.5)
    nudge = None if beta is None else nudge_of(landscape, beta)
    schedule = Schedule.model_validate(
        {"method": method, "sweeps": 2000, "relaxation": 0.6, "tolerance": 1e-11}
    )
    result = settle(landscape, schedule, nudge=nudge)
    other = settle(landscape, TIGHT, nudge=nudge)
    assert result.settled
    for name, value in result.state.items():
        drive = landscape.drive(result.state, name)
        if nudge is not None and name == landscape.spec.output:
            drive = nudge.step(drive, value)
        target = landscape.clip(name, drive)
        torch.testing.assert_close(value, target, atol=1e-9, rtol=0)
        torch.testing.assert_close(value, other.state[name], atol=1e-8, rtol=0)


@given(SEEDS)
@settings(max_examples=15)
def test_nudging_lowers_the_loss_and_nudging_back_raises_it(seed: int) -> None:
    landscape = landscape_of(seed, 0.5)
    free = settle(landscape, TIGHT)
    output, y = landscape.spec.output, nudge_of(landscape, 1).y
    losses = {}
    for beta in (-0.2, 0.2):
        nudged = settle(landscape, TIGHT, free.state, nudge_of(landscape, beta))
        losses[beta] = SquaredError().value(nudged.state[output], y)
    loss = SquaredError().value(free.state[output], y)
    assert bool((losses[0.2] <= loss + 1e-9).all())
    assert bool((losses[-0.2] >= loss - 1e-9).all())
    assert float((losses[-0.2] - losses[0.2]).max()) > 1e-6


@given(SEEDS, st.floats(-0.9, 5.0))
@settings(max_examples=15)
def test_the_nudged_update_is_the_exact_minimum_over_the_output(seed: int, beta: float) -> None:
    landscape = landscape_of(seed)
    nudge, output = nudge_of(landscape, beta), landscape.spec.output
    z = landscape.rest()
    activation = landscape.activations[output]
    best = nudge.minimise(landscape.drive(z, output), z[output], activation)
    best = best.detach().requires_grad_()
    energy = nudged_energy(landscape, {**z, output: best}, nudge).sum()
    (slope,) = torch.autograd.grad(energy, [best])
    assert float(slope.abs().max()) < 1e-9


@given(SEEDS)
def test_no_coupling_joins_two_populations_of_one_colour(seed: int) -> None:
    spec = random_residual_spec(seed)
    groups = colouring(spec)
    colour = {name: i for i, group in enumerate(groups) for name in group}
    assert sorted(colour) == sorted(p.name for p in spec.populations)
    assert all(colour[c.pre] != colour[c.post] for c in spec.couplings if c.pre != INPUT)


def test_hopfield_resnet13_moves_in_three_sets() -> None:
    spec = zoo("hopfield_resnet13")
    order = [p.name for p in spec.populations]
    sets = [{order.index(n) + 1 for n in group} for group in colouring(spec)]
    assert sets == [{1, 3, 5, 7, 9}, {2, 6}, {4, 8}]


def test_a_chain_moves_in_two_sets() -> None:
    assert len(colouring(zoo("plain13"))) == 2


def test_the_published_sweep_moves_the_first_population_and_the_output_first() -> None:
    spec = zoo("hopfield_resnet13")
    first, then = Schedule(method="even-odd").groups(spec)
    assert first == ["h1", "h3", "h5", "h7", "output"]
    assert then == ["h2", "h4", "h6", "h8"]


@given(SEEDS, st.floats(-0.9, 0.9))
@settings(max_examples=10)
def test_a_published_move_of_the_nudged_output_starts_from_where_it_is(
    seed: int, beta: float
) -> None:
    landscape = landscape_of(seed)
    nudge, output = nudge_of(landscape, beta), landscape.spec.output
    drive = landscape.drive(landscape.rest(), output).detach()
    z = torch.rand(drive.shape, generator=torch.Generator().manual_seed(seed), dtype=drive.dtype)
    activation = landscape.activations[output]
    found = Schedule(method="even-odd").nudged(nudge, drive, z, activation)
    torch.testing.assert_close(found, drive + beta * (nudge.y - z))
    exact = Schedule().nudged(nudge, drive, z, activation)
    torch.testing.assert_close(exact, (drive + beta * nudge.y) / (1 + beta))


@pytest.mark.parametrize("method", METHODS)
def test_every_population_moves_once_a_sweep(method: str) -> None:
    spec = digits_like_residual()
    groups = Schedule.model_validate({"method": method}).groups(spec)
    assert sorted(n for g in groups for n in g) == sorted(p.name for p in spec.populations)


# --- trouble is never hidden -------------------------------------------------------------------


def test_a_network_that_oscillates_is_reported_not_settled() -> None:
    landscape = landscape_of(0, scale=10)
    result = settle(landscape, Schedule(method="synchronous", sweeps=60, relaxation=1.0))
    assert result.status is Status.NOT_SETTLED
    assert not result.settled
    assert float(result.residual.max()) > 0.1
    assert result.message.startswith("not settled after 60 sweeps, residual ")
    assert "method 'sequential'" in result.message
    assert "scale the weights down" in result.message
    assert "\n" not in result.message


def test_a_linear_network_that_runs_away_is_reported_not_settled() -> None:
    data = digits_like_residual().to_dict()
    for population in data["populations"]:
        population["box"] = None
    network = Network(type(digits_like_residual()).from_dict(data))
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= 10
    schedule = Schedule(method="synchronous", sweeps=200, relaxation=1.0)
    result = settle(Landscape(network, torch.rand(2, 1, 8, 8)), schedule)
    assert result.status is Status.DIVERGED
    assert result.message.startswith("not settled after")
    assert "bound the populations with a box" in result.message


@given(SEEDS, st.sampled_from(["synchronous", "even-odd"]), st.floats(0.5, 10))
@settings(max_examples=20)
def test_settled_is_only_said_of_a_fixed_point(seed: int, method: str, scale: float) -> None:
    landscape = landscape_of(seed, scale)
    schedule = Schedule.model_validate(
        {"method": method, "sweeps": 60, "relaxation": 0.5, "tolerance": 1e-3}
    )
    result = settle(landscape, schedule)
    with torch.no_grad():
        gaps = [
            (landscape.clip(n, landscape.drive(result.state, n)) - v).abs().max()
            for n, v in result.state.items()
        ]
    # The residual was measured before the last move, and a move of at most 1e-3 can change a
    # drive by that times the absolute row sum of the weights: below 20 in these networks.
    if result.settled:
        assert float(torch.stack(gaps).max()) < 1e-3 * (1 + 20 * scale)
    else:
        assert float(result.residual.max()) > 1e-3


def test_one_unsettled_sample_makes_the_batch_unsettled() -> None:
    network = Network(digits_like_residual())
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= 6
    x = torch.cat([torch.zeros(1, 1, 8, 8), torch.rand(3, 1, 8, 8)])
    result = settle(Landscape(network, x), Schedule(method="synchronous", relaxation=1.0))
    assert float(result.residual[0]) == 0
    assert not result.settled


# --- bookkeeping -------------------------------------------------------------------------------


def test_the_starting_state_is_left_alone() -> None:
    landscape = landscape_of(1)
    start = landscape.rest()
    copies = {p: v.clone() for p, v in start.items()}
    settle(landscape, TIGHT, start)
    assert all(torch.equal(start[p], copies[p]) for p in start)


def test_recording_keeps_residual_and_energy_of_every_sweep_and_changes_nothing() -> None:
    landscape = landscape_of(2)
    schedule = Schedule(sweeps=20, tolerance=0)
    plain, recorded = settle(landscape, schedule), settle(landscape, schedule, record=True)
    assert len(recorded.residuals) == len(recorded.energies) == recorded.sweeps == 20
    assert plain.residuals == plain.energies == []
    assert all(torch.equal(plain.state[p], recorded.state[p]) for p in plain.state)
    final = float(landscape.energy(recorded.state).detach().mean())
    assert recorded.energies[-1] == pytest.approx(final, rel=1e-12)


def test_settling_stops_once_the_tolerance_is_met() -> None:
    landscape = landscape_of(3)
    loose, tight = (settle(landscape, Schedule(sweeps=500, tolerance=t)) for t in (1e-2, 1e-8))
    assert loose.settled
    assert tight.settled
    assert loose.sweeps < tight.sweeps < 500
    assert float(loose.residual.max()) <= 1e-2
    assert loose.message.startswith(f"settled in {loose.sweeps} sweeps")


def test_what_the_ends_are_told_passes_all_populations_in_one_sequential_sweep() -> None:
    spec = zoo("plain13")
    order = [p.name for p in spec.populations]
    assert Schedule().groups(spec) == [[name] for name in order]
    assert Schedule().groups(spec, nudged=True) == [[name] for name in order[::-1]]


def test_by_itself_the_step_grows_with_time_where_moves_descend_and_is_one_elsewhere() -> None:
    assert [Schedule().step(sweep) for sweep in (1, 9, 10, 99)] == [1.35, 1.35, 1.6, 1.6]
    coloured = Schedule(method="coloured")
    assert [coloured.step(sweep) for sweep in (1, 12, 13, 99)] == [1.3, 1.3, 1.7, 1.7]
    assert [Schedule(method="synchronous").step(sweep) for sweep in (1, 99)] == [1.0, 1.0]
    assert [Schedule(relaxation=1.5).step(sweep) for sweep in (1, 99)] == [1.5, 1.5]


@pytest.mark.parametrize("field", [{"relaxation": 2}, {"sweeps": 0}, {"tolerance": -1}, {"x": 1}])
def test_a_schedule_that_cannot_descend_is_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate(field)
