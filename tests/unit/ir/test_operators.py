"""Claims about the IR's linear operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir import graph as ir
from compilers.ir.operators import adjoint, apply, fanout, misfit, shift_channels

Case = tuple[ir.Operator, tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    """Conv, weight shape, pre shape and post shape; odd sizes and unused rows included."""
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, 3))
    shortest = max(1, kernel - 2 * padding)
    h, w = (draw(st.integers(shortest, shortest + 6)) for _ in range(2))
    c, o = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sides = [(n + 2 * padding - kernel) // stride + 1 for n in (h, w)]
    return ir.Conv(stride, padding), (o, c, kernel, kernel), (c, h, w), (o, *sides)


DENSE: Case = (ir.Dense(), (4, 12), (3, 2, 2), (4,))
cases = st.one_of(convolutions(), st.just(DENSE))


def dense_matrix(case: Case, weight: np.ndarray) -> np.ndarray:
    """The operator as a (post, pre) matrix, one unit vector at a time."""
    operator, _, pre, post = case
    units = np.eye(int(np.prod(pre))).reshape(-1, *pre)
    return apply(operator, weight, units, post).reshape(len(units), -1).T


@given(cases, st.integers(0, 2**32 - 1))
def test_every_operator_is_the_exact_adjoint_of_its_partner(case: Case, seed: int) -> None:
    operator, weight_shape, pre, post = case
    rng = np.random.default_rng(seed)
    w, x, y = (rng.integers(-9, 10, s).astype(float) for s in (weight_shape, (2, *pre), (2, *post)))
    forward = apply(operator, w, x, post)
    backward = apply(adjoint(operator), w, y, pre)
    assert forward.shape == (2, *post)
    assert backward.shape == (2, *pre)
    # Small integers in float64: equality is exact, not approximate.
    assert (forward * y).sum() == (backward * x).sum()


@given(convolutions())
def test_convolution_agrees_with_torch(case: Case) -> None:
    operator, weight_shape, pre, post = case
    assert isinstance(operator, ir.Conv)
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=weight_shape), rng.normal(size=(3, *pre))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(w), stride=operator.stride, padding=operator.padding
    )
    np.testing.assert_allclose(apply(operator, w, x, post), expected.numpy(), atol=1e-12)


@given(cases)
def test_fanout_counts_the_synapses_that_an_event_meets(case: Case) -> None:
    operator, weight_shape, pre, post = case
    ones = np.ones(weight_shape)
    synapses = dense_matrix(case, ones)
    expected = synapses.sum(0).reshape(pre)
    np.testing.assert_array_equal(fanout(operator, weight_shape, pre, post), expected)
    backwards = fanout(adjoint(operator), weight_shape, post, pre)
    np.testing.assert_array_equal(backwards, synapses.sum(1).reshape(post))


@given(cases)
def test_misfit_passes_what_fits_and_names_what_does_not(case: Case) -> None:
    operator, weight_shape, pre, post = case
    for op, a, b in ((operator, pre, post), (adjoint(operator), post, pre)):
        assert misfit(op, weight_shape, a, b) is None
        assert misfit(op, (*weight_shape, 1), a, b)
        assert misfit(op, weight_shape, a, (b[0] + 1, *b[1:]))
        assert misfit(op, weight_shape, (a[0] + 1, *a[1:]), b)


def test_misfit_tells_partial_sums_and_totals_that_do_not_fit() -> None:
    for of, weight in ((ir.Dense(), (4, 12)), (ir.DenseTranspose(), (12, 4))):
        assert misfit(ir.Partial(of, 5), weight, (3, 2, 2), (4, 3, 1)) is None
        assert misfit(ir.Partial(of, 5), weight[::-1], (3, 2, 2), (4, 3, 1))
        assert misfit(ir.Partial(of, 6), weight, (3, 2, 2), (4, 3, 1))
        assert misfit(ir.Partial(of, 0), weight, (3, 2, 2), (4, 3, 1))
    assert misfit(ir.Total(), (1, 3), (4, 3, 1), (2, 2)) is None
    for weight, post in (((1, 2), (4,)), ((1, 3), (3,)), ((3,), (4,))):
        assert misfit(ir.Total(), weight, (4, 3, 1), post)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 4), st.integers(0, 99))
def test_totals_of_partial_sums_are_the_whole_sums(
    share: int, pres: int, posts: int, seed: int
) -> None:
    w, x = (np.random.default_rng(seed).integers(-9, 10, s) for s in ((posts, pres), (2, pres)))
    shares = -(-pres // share)
    parts = apply(ir.Partial(ir.Dense(), share), w, x, (posts, shares, 1))
    total = apply(ir.Total(), np.ones((1, shares), int), parts, (posts,))
    np.testing.assert_array_equal(total, apply(ir.Dense(), w, x, (posts,)))


@given(cases)
def test_adjoint_is_its_own_inverse(case: Case) -> None:
    assert adjoint(adjoint(case[0])) == case[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "operator", [ir.Conv(2, 1), ir.ConvTranspose(2, 1), ir.Dense(), ir.DenseTranspose()]
)
def test_results_keep_the_dtype_of_the_messages(operator: ir.Operator, dtype: type) -> None:
    dense = isinstance(operator, ir.Dense | ir.DenseTranspose)
    weight = np.ones((4, 4) if dense else (1, 1, 3, 3), np.float32)
    pre, post = ((4,), (4,)) if dense else ((1, 4, 4), (1, 2, 2))
    if isinstance(operator, ir.ConvTranspose):
        pre, post = post, pre
    assert apply(operator, weight, np.ones((2, *pre), dtype), post).dtype == dtype


def test_channel_shifts_move_the_output_channels_of_the_forward_weight() -> None:
    weight = np.arange(-4, 4, dtype=np.int32).reshape(2, 1, 2, 2)
    shifted = shift_channels(weight, np.array([0, 3], np.int32))
    np.testing.assert_array_equal(shifted, weight * np.array([1, 8]).reshape(2, 1, 1, 1))
    np.testing.assert_array_equal(shift_channels(weight, None), weight)
