"""Claims about units: they scale boxes, gains and rates, and a spec reads the same at any ratio."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import SpecError
from ep_neuro.estimators.gradient_check import check_network
from ep_neuro.network.initialization import keep_alive
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import settle
from ep_neuro.training.config import Optimiser
from ep_neuro.training.optimizer import BIAS_SHARE, make_optimiser
from tests.helpers.graphs import digits_like_residual, random_residual_spec, standardised_in_units
from tests.helpers.problems import TIGHT, chain, problem

POWERS = st.integers(-4, 4).map(lambda k: 2.0**k)


def in_units(spec: NetworkSpec, *units: float) -> NetworkSpec:
    """`spec` with the units of its populations, in their order."""
    data = spec.to_dict()
    for p, unit in zip(data["populations"], units, strict=True):
        p["unit"] = unit
    return NetworkSpec.from_dict(data)


def test_a_box_in_units_is_that_many_units_high() -> None:
    spec = in_units(chain(box=(-1.0, 3.0)), 4.0, 2.0, 0.5)
    assert spec.boxes == {"h": (-4.0, 12.0), "g": (-2.0, 6.0), "out": None}
    assert [p.height for p in spec.populations] == [16.0, 8.0, 0.5]
    landscape = Landscape(Network(spec), torch.rand(2, 5))
    assert [a.height for a in landscape.activations.values()] == [16.0, 8.0, 0.5]
    assert in_units(chain(box=(0.0, 1.0), activation="sigmoid"), 2.0, 1.0, 1.0).boxes["h"] == (0, 2)


def test_units_are_written_down_and_read_back() -> None:
    spec = in_units(chain(), 4.0, 2.0, 1.0)
    assert NetworkSpec.from_dict(spec.to_dict()) == spec
    assert "unit" not in chain().to_yaml()


@pytest.mark.parametrize("unit", [8.0**32, 1e-19])
def test_a_unit_whose_square_leaves_float32_is_refused(unit: float) -> None:
    with pytest.raises(SpecError, match=r"population 'h': unit .* take a smaller ratio"):
        in_units(chain(), unit, 1.0, 1.0)


def test_without_units_weights_have_the_bits_they_had() -> None:
    spec, generator = digits_like_residual(), torch.Generator().manual_seed(3)
    network = Network(spec, 3)
    for c in spec.couplings:
        shape = spec.weight_shapes[c.name]
        std = c.gain / math.sqrt(math.prod(shape[1:]))
        assert torch.equal(network.weights[c.name], torch.randn(shape, generator=generator) * std)


@settings(max_examples=20, deadline=None)
@given(a=POWERS, b=POWERS, seed=st.integers(0, 5))
def test_initial_weights_scale_with_the_units_of_their_ends(a: float, b: float, seed: int) -> None:
    plain, scaled = (Network(s, seed) for s in (chain(), in_units(chain(), a, b, 1.0)))
    for name, ratio in {"input->h": a, "h->g": b / a, "g->out": 1 / b}.items():
        assert torch.equal(scaled.weights[name], plain.weights[name] * ratio)


@settings(max_examples=20, deadline=None)
@given(unit=POWERS)
def test_the_same_unit_everywhere_scales_states_with_the_input(unit: float) -> None:
    spec = chain(box=(-0.3, 0.3))
    network = Network(spec, 1).double()
    scaled = Network(in_units(spec, unit, unit, unit), 1).double()
    x = torch.rand(3, 5).double()
    with torch.no_grad():
        states = [settle(Landscape(n, x), TIGHT).state for n in (network, scaled)]
    for p, z in states[0].items():
        torch.testing.assert_close(states[1][p], unit * z, rtol=1e-9, atol=1e-12)


def test_relative_rates_are_in_units() -> None:
    spec = in_units(chain(box=(0.0, 3.0), untied=True), 8.0, 2.0, 0.5)
    optimiser = make_optimiser(Optimiser(relative=True, lr=1.0), Network(spec))
    rates = [group["lr"] for group in optimiser.param_groups]
    weights = [0.5 * 8 / 5**0.5, *[0.5 * 2 / 8 / 6**0.5] * 2, *[0.5 * 0.5 / 2 / 4**0.5] * 2]
    assert rates == pytest.approx([*weights, *(BIAS_SHARE * h for h in (24.0, 6.0, 0.5))])


def test_a_readout_reads_an_output_in_units_as_loudly() -> None:
    spec = in_units(chain(readout=True), 1.0, 1.0, 4.0)
    plain, scaled = Network(chain(readout=True), 2).readout, Network(spec, 2).readout
    assert plain is not None
    assert scaled is not None
    assert torch.equal(scaled.weight, plain.weight / 4)


def test_boxes_that_are_measured_are_written_in_units() -> None:
    spec = random_residual_spec(3)
    hidden = {"box": [0.0, 1.0]}
    data = spec.to_dict()
    for p in data["populations"][:-1]:
        p.update(hidden)
    spec = NetworkSpec.from_dict(data)
    units = [4.0] * (len(spec.populations) - 1) + [1.0]
    x = torch.rand(16, *spec.input.shape)
    # All hidden units alike: input gains 4 times as large make up for a signal 4 times as large.
    found = keep_alive(in_units(spec, *units), x)
    for p, bounds in zip(found.populations, found.boxes.values(), strict=True):
        assert bounds == pytest.approx((p.unit * p.box[0], p.unit * p.box[1]) if p.box else None)
    again = keep_alive(spec, x)
    signal = found.boxes[spec.populations[0].name], again.boxes[spec.populations[0].name]
    assert all(box is not None and math.isfinite(box[1]) for box in signal)


@pytest.mark.parametrize("ratio", [0.5, 2.0, 4.0])
def test_ep_gives_the_exact_gradient_in_units(ratio: float) -> None:
    network, x, y = problem(2, standardised_in_units(ratio, box=None))
    # A nudge that is small for all units: the smallest box is a quarter high.
    found = check_network(network, x, y, beta=1e-5, schedule=TIGHT)
    assert found.settled
    assert found.energy_rises == 0
    assert found.gradient_cosine > 0.9999
    assert found.finite_difference is not None
    assert found.finite_difference < 1e-3
