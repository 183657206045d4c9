"""Claims about the energy: its drive, its adjoints, its box, and the parameters it is made of."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.energy.operators import adjoint, forward
from ep_neuro.energy.spec import INPUT, CouplingSpec, NetworkSpec
from ep_neuro.errors import DataError, SpecError
from ep_neuro.network.network import Landscape, Network, State, parameter_names
from ep_neuro.network.settling import Schedule, settle
from tests.helpers.graphs import digits_like_residual, random_residual_spec

SEEDS = st.integers(0, 10**6)


def random_landscape(seed: int, count: int = 3) -> Landscape:
    """Float64 energy of a random residual network with random biases, and `count` inputs."""
    spec = random_residual_spec(seed)
    network = Network(spec, seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bias in network.biases.values():
            bias.normal_(0, 0.3, generator=generator)
    x = torch.rand(count, *spec.input.shape, generator=generator, dtype=torch.float64)
    return Landscape(network, x)


def random_state(landscape: Landscape, seed: int) -> State:
    generator = torch.Generator().manual_seed(seed + 1)
    shapes = {p: (landscape.size, *landscape.shapes[p]) for p in landscape.boxes}
    return {p: torch.randn(s, generator=generator, dtype=torch.float64) for p, s in shapes.items()}


@given(SEEDS)
@settings(max_examples=25)
def test_the_drive_is_the_state_less_the_slope_of_the_energy(seed: int) -> None:
    landscape = random_landscape(seed)
    z = {p: v.requires_grad_() for p, v in random_state(landscape, seed).items()}
    slopes = torch.autograd.grad(landscape.energy(z).sum(), list(z.values()))
    for (name, value), slope in zip(z.items(), slopes, strict=True):
        torch.testing.assert_close(landscape.drive(z, name), value - slope)


@given(SEEDS)
@settings(max_examples=10)
def test_the_energy_is_the_formula_of_its_docstring(seed: int) -> None:
    landscape = random_landscape(seed, count=1)
    network, spec, z = landscape.network, landscape.spec, random_state(landscape, seed)
    x = torch.rand(1, *spec.input.shape, dtype=torch.float64)
    landscape = Landscape(network, x)
    total = torch.zeros(1, dtype=torch.float64)
    for p, value in z.items():
        bias = network.biases[p].view(-1, *[1] * (value.dim() - 2))
        total = total + (value**2 / 2 - bias * value).sum()
    states = {INPUT: network.normalise(x), **z}
    for c in spec.couplings:
        image = forward(c, network.weights[c.name], states[c.pre], spec.shapes[c.post])
        total = total - (states[c.post] * image).sum()
    torch.testing.assert_close(landscape.energy(z), total)


@st.composite
def couplings(draw: st.DrawFn) -> tuple[CouplingSpec, tuple[int, ...], tuple[int, ...]]:
    """A coupling of any kernel, stride and padding, with the shapes it joins."""
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, kernel))
    sides = [draw(st.integers(max(1, kernel - 2 * padding), 9)) for _ in range(2)]
    pre = (draw(st.integers(1, 3)), *sides)
    after = ((n + 2 * padding - kernel) // stride + 1 for n in sides)
    post = (draw(st.integers(1, 3)), *after)
    if draw(st.booleans()):
        return CouplingSpec(pre="a", post="b"), pre, post
    c = CouplingSpec(pre="a", post="b", kind="conv", kernel=kernel, stride=stride, padding=padding)
    return c, pre, post


@given(couplings(), SEEDS)
def test_both_directions_of_a_coupling_are_one_bilinear_form(
    drawn: tuple[CouplingSpec, tuple[int, ...], tuple[int, ...]], seed: int
) -> None:
    c, pre, post = drawn
    c.check_shapes(pre, post)
    generator = torch.Generator().manual_seed(seed)
    weight, a, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in (c.weight_shape(pre, post), (2, *pre), (2, *post))
    )
    up, down = forward(c, weight, a, post), adjoint(c, weight, b, pre)
    torch.testing.assert_close((up * b).sum(), (a * down).sum())


@given(SEEDS)
@settings(max_examples=10)
def test_samples_of_a_batch_do_not_feel_each_other(seed: int) -> None:
    landscape = random_landscape(seed)
    z = random_state(landscape, seed)
    before = landscape.energy(z)
    for value in z.values():
        value[0] += 1
    torch.testing.assert_close(landscape.energy(z)[1:], before[1:])


@given(SEEDS)
@settings(max_examples=10)
def test_rest_lies_in_every_box_and_at_zero_where_that_is_inside(seed: int) -> None:
    landscape = random_landscape(seed)
    for name, value in landscape.rest().items():
        assert torch.equal(value, landscape.clip(name, value))
        box = landscape.boxes[name]
        if box is None or box[0] <= 0 <= box[1]:
            assert not value.any()


def test_rest_is_the_end_of_the_box_nearest_to_zero() -> None:
    data = digits_like_residual().to_dict()
    data["populations"][0]["box"] = [0.5, 2]
    spec = NetworkSpec.from_dict(data)
    assert torch.all(Landscape(Network(spec), torch.zeros(1, 1, 8, 8)).rest()["h1"] == 0.5)


def test_the_input_is_normalised_per_channel() -> None:
    data = digits_like_residual().to_dict()
    data["input"] = {"shape": [2, 3, 3], "mean": [0.5, 0.25], "std": [0.5, 2.0]}
    data["couplings"] = [{"pre": "input", "post": "out"}]
    data["populations"] = data["populations"][-1:]
    network = Network(NetworkSpec.from_dict(data))
    z = network.normalise(torch.ones(1, 2, 3, 3))
    assert torch.all(z[:, 0] == 1)
    assert torch.all(z[:, 1] == 0.375)


def test_samples_of_another_shape_are_refused_with_both_shapes() -> None:
    network = Network(digits_like_residual())
    with pytest.raises(DataError) as caught:
        Landscape(network, torch.zeros(2, 3, 8, 8))
    assert "samples are [3, 8, 8], the network takes [1, 8, 8]" in str(caught.value)


def test_one_seed_gives_one_network() -> None:
    spec = digits_like_residual()
    same, other = Network(spec, 3), Network(spec, 4)
    for name, value in parameter_names(Network(spec, 3)).items():
        assert torch.equal(value, parameter_names(same)[name])
        if name.startswith("weight/"):
            assert not torch.equal(value, parameter_names(other)[name])


def test_initial_weights_scale_with_gain_and_fan_in() -> None:
    spec = digits_like_residual()
    network = Network(spec)
    for c in spec.couplings:
        weight = network.weights[c.name].detach()
        expected = c.gain / math.sqrt(weight[0].numel())
        sampling = 4 / math.sqrt(2 * weight.numel())
        assert abs(float(weight.std()) / expected - 1) < sampling


def test_parameter_ids_cover_every_parameter_once() -> None:
    network = Network(digits_like_residual())
    named = parameter_names(network)
    assert {id(p) for p in named.values()} == {id(p) for p in network.parameters()}
    assert sum(p.numel() for p in named.values()) == network.spec.parameters


@pytest.mark.parametrize("name", ["half", "copy", "keys", "train", "forward"])
def test_a_population_may_bear_the_name_of_a_method_of_torch(name: str) -> None:
    spec = NetworkSpec.from_dict(
        {
            "name": "net",
            "input": {"shape": [3]},
            "populations": [{"name": name, "shape": [2]}],
            "couplings": [{"pre": "input", "post": name}],
        }
    )
    assert Network(spec).biases[name].shape == (2,)


def test_a_network_of_few_weights_and_states_beyond_the_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plane = [1, 600, 600]
    spec = NetworkSpec.from_dict(
        {
            "name": "wide",
            "input": {"shape": plane},
            "populations": [{"name": "a", "shape": plane}, {"name": "o", "shape": [2, 1, 1]}],
            "couplings": [
                {"pre": "input", "post": "a", "kind": "conv", "kernel": 1},
                {"pre": "a", "post": "o", "kind": "conv", "kernel": 1, "stride": 600},
            ],
            "output": "o",
        }
    )
    monkeypatch.setattr("ep_neuro.network.network.memory", lambda: 2_000_000)
    with pytest.raises(SpecError, match=r"one state take .*'input' \(360,000 numbers\)"):
        Network(spec)


def test_a_network_in_front_of_inputs_answers_with_its_settled_output() -> None:
    network, x = Network(digits_like_residual(), 1), torch.rand(3, 1, 8, 8)
    found = network.settle(x)
    assert found.settled
    assert torch.equal(network(x), found.state["out"])
    assert torch.equal(found.state["out"], settle(Landscape(network, x), Schedule()).state["out"])
    assert network.settle(x, Schedule(sweeps=2)).sweeps == 2


def test_autograd_does_not_pass_through_settling() -> None:
    network = Network(digits_like_residual(), 1)
    assert not network(torch.rand(3, 1, 8, 8, requires_grad=True)).requires_grad
