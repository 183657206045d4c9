"""Claims about quantize: integers that mean what the floats meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir.graph import ENCODINGS, FixedPoint, Graph, Projection
from compilers.ir.operators import apply, shift_channels
from compilers.passes.quantize import quantize, quantize_weight, rescale_of
from compilers.passes.validate import validate
from ep_neuro.errors import GraphError
from tests.helpers.graphs import graph_of, random_residual_spec

seeds = st.integers(0, 9)
bits = st.integers(2, 12)


def small_graph(seed: int = 0, encoding: str = "graded") -> Graph:
    return graph_of(random_residual_spec(seed), encoding, seed=seed)  # type: ignore[arg-type]


def rescaled(p: Projection, acc: np.ndarray) -> np.ndarray:
    """``(acc * multiplier) << shift`` in exact integers, right shifts rounded to nearest."""
    assert p.rescale is not None
    product, shift = acc.astype(np.int64) * p.rescale.multiplier, p.rescale.shift
    return product << shift if shift >= 0 else (product + (1 << (-shift - 1))) >> -shift


def meant(graph: Graph, weight: str, exponent: int) -> np.ndarray:
    """The real weights that the integers of `weight` stand for."""
    shifts = graph.arrays.get(f"exponent/{weight}")
    return shift_channels(graph.arrays[weight], shifts) * 2.0**exponent


@given(seeds, bits, st.booleans(), st.sampled_from(ENCODINGS))
def test_integer_drives_are_the_float_drives_of_the_rounded_weights(
    seed: int, width: int, per_channel: bool, encoding: str
) -> None:
    graph = small_graph(seed, encoding)
    integer = validate(quantize(graph, width, per_channel=per_channel))
    rng = np.random.default_rng(seed)
    for p, q in zip(graph.projections, integer.projections, strict=True):
        pre, post = integer.population(p.pre), integer.population(p.post)
        assert pre.message is not None
        assert post.state is not None
        message = rng.integers(0, pre.message.one + 1, size=(1, *pre.shape)).astype(float)
        shifts = None if q.exponent is None else integer.arrays[q.exponent]
        weight = shift_channels(integer.arrays[q.weight], shifts)
        found = rescaled(q, apply(q.operator, weight, message, post.shape)) / post.state.one
        exponent = quantize_weight(graph.arrays[p.weight], width, per_channel)[1]
        real = meant(integer, q.weight, exponent)
        expected = p.scale * apply(p.operator, real, message / pre.message.one, post.shape)
        # One rounding of 2**-16, and a gain that is known to 15 bits.
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


@given(seeds, bits)
def test_quantising_twice_changes_nothing(seed: int, width: int) -> None:
    once = quantize(small_graph(seed), width)
    assert quantize(once, width).digest() == once.digest()


@given(seeds, bits, st.booleans())
def test_weights_that_are_on_the_grid_stay_where_they_are(
    seed: int, width: int, per_channel: bool
) -> None:
    weight = np.random.default_rng(seed).normal(size=(3, 2, 2, 2))
    q, exponent, shifts = quantize_weight(weight, width, per_channel)
    real = shift_channels(q, shifts) * 2.0**exponent
    q2, exponent2, shifts2 = quantize_weight(real, width, per_channel)
    np.testing.assert_array_equal(shift_channels(q2, shifts2) * 2.0**exponent2, real)


@given(seeds, bits)
def test_no_other_power_of_two_has_a_smaller_error(seed: int, width: int) -> None:
    weight = np.random.default_rng(seed).standard_t(2, size=(4, 30))
    q, exponent, _ = quantize_weight(weight, width, per_channel=False)
    top = 2 ** (width - 1) - 1

    def error(e: int) -> float:
        return float(((np.clip(np.rint(weight / 2.0**e), -top, top) * 2.0**e - weight) ** 2).sum())

    assert np.abs(q).max() <= top
    assert error(exponent) <= min(error(exponent + d) for d in (-2, -1, 1, 2)) + 1e-12


def test_uneven_channels_get_exponents_of_their_own_and_even_ones_share_one() -> None:
    even = np.random.default_rng(0).standard_normal((16, 8, 3, 3))
    assert quantize_weight(even, 8, None)[2] is None
    uneven = even * 0.5 ** np.arange(16).reshape(-1, 1, 1, 1)
    q, exponent, shifts = quantize_weight(uneven, 8, None)
    assert shifts is not None
    found = np.ldexp(q.astype(np.float64), exponent + shifts.reshape(-1, 1, 1, 1))
    one_for_all = quantize_weight(uneven, 8, per_channel=False)
    flat = np.ldexp(one_for_all[0].astype(np.float64), one_for_all[1])

    def worst(values: np.ndarray) -> float:
        error = np.linalg.norm((values - uneven).reshape(16, -1), axis=1)
        return float((error / np.linalg.norm(uneven.reshape(16, -1), axis=1))[:8].max())

    assert worst(found) < 0.03 < 0.3 < worst(flat)


def test_an_exponent_per_channel_helps_where_channels_differ() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 50)) * np.array([[1.0], [0.25], [0.06], [0.02]])
    errors = []
    for per_channel in (False, True):
        q, exponent, shifts = quantize_weight(weight, 4, per_channel)
        real = shift_channels(q, shifts) * 2.0**exponent
        errors.append(((real - weight) ** 2).sum(1) / (weight**2).sum(1))
    assert (errors[1] <= errors[0] + 1e-12).all()
    assert errors[1][3] < 0.1 * errors[0][3]


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("least", [0.9, 0.01])
def test_channels_have_their_own_exponent_below_five_bits_and_where_they_are_uneven(
    width: int, least: float
) -> None:
    graph = small_graph(1)
    uneven = {
        k: a * np.geomspace(1, least, len(a)).reshape(-1, *[1] * (a.ndim - 1)).astype(np.float32)
        if k.startswith("weight/")
        else a
        for k, a in graph.arrays.items()
    }
    integer = quantize(replace(graph, arrays=uneven), width)
    assert any(p.exponent for p in integer.projections) == (width < 5 or least < 0.1)


def test_a_silent_weight_stays_silent() -> None:
    q, exponent, shifts = quantize_weight(np.zeros((3, 4), np.float32), 8, per_channel=True)
    assert not q.any()
    assert (exponent, shifts) == (0, None)


@given(st.floats(1e-6, 1e6), st.sampled_from([-1, 1]))
def test_a_gain_is_met_to_15_bits(size: float, sign: int) -> None:
    gain = sign * size
    rescale = rescale_of(gain)
    assert rescale.multiplier * 2.0**rescale.shift == pytest.approx(gain, rel=2**-15)
    assert abs(rescale.multiplier) <= 1 << 15


@given(st.integers(-20, 20))
def test_a_power_of_two_needs_no_multiplier(exponent: int) -> None:
    assert rescale_of(2.0**exponent).multiplier == 1
    assert rescale_of(2.0**exponent).shift == exponent


def test_tied_weights_stay_one_array_and_every_number_is_an_integer() -> None:
    graph = small_graph(2)
    integer = quantize(graph)
    assert integer.ties == graph.ties
    assert all(a.dtype == np.int32 for a in integer.arrays.values())
    assert integer.quantised
    for p in integer.neurons:
        assert p.dynamics.leak * 4096 == round(p.dynamics.leak * 4096)


def test_spikes_are_one_bit_and_a_sign_and_graded_messages_have_the_states_range() -> None:
    spiking = quantize(small_graph(3, "spike"))
    assert {p.message for p in spiking.neurons} == {FixedPoint(2, 0)}
    graded = quantize(small_graph(3), state=FixedPoint(20, 12), message_frac=6)
    assert {p.message for p in graded.populations} == {FixedPoint(14, 6)}


def test_quantising_leaves_its_input_as_it_is() -> None:
    graph = small_graph(4)
    before = graph.digest()
    quantize(graph, 4)
    assert graph.digest() == before


def test_another_format_of_a_quantised_graph_is_refused() -> None:
    with pytest.raises(GraphError, match="quantised already"):
        quantize(quantize(small_graph(), 8), 4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bits": 1}, "1 is not in 2 to 16"),
        ({"bits": 17}, "17 is not in 2 to 16"),
        ({"message_frac": 16}, "number formats"),
        ({"state": FixedPoint(40, 16)}, "at most 32"),
        ({"state": FixedPoint(17, 16)}, "number formats"),
    ],
)
def test_impossible_formats_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(GraphError, match=complaint):
        quantize(small_graph(), **options)  # type: ignore[arg-type]


def test_a_bias_beyond_the_states_range_is_refused() -> None:
    graph = small_graph()
    arrays = {**graph.arrays, "bias/out": graph.arrays["bias/out"] + 200}
    with pytest.raises(GraphError, match=r"'out'.*exceeds the state's range of 128"):
        quantize(replace(graph, arrays=arrays))
