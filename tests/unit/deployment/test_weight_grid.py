"""Claims about the weight grid: NumPy and torch follow one rule to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir.operators import shift_channels
from compilers.passes.quantize import quantize_weight
from ep_neuro.deployment.lowering import quantised
from ep_neuro.deployment.weight_grid import MAX_SHIFT, to_grid

seeds = st.integers(0, 10**6)
bits = st.integers(2, 12)


def weights(seed: int, spread: float) -> np.ndarray:
    """Float32 kernels whose channels differ by powers of `spread`; the last channel is zero."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(3, size=(4, 3, 2, 2)) * spread ** np.arange(4).reshape(4, 1, 1, 1)
    weight[-1] = 0
    return weight.astype(np.float32)


@given(seeds, bits, st.booleans(), st.sampled_from([1.0, 0.3, 1e-3, 1e6]))
def test_torch_finds_the_integers_and_exponents_that_numpy_finds(
    seed: int, width: int, per_channel: bool, spread: float
) -> None:
    weight = weights(seed, spread).astype(np.float64)
    q, exponents = to_grid(weight, width, per_channel, np)
    other, theirs = to_grid(torch.from_numpy(weight), width, per_channel, torch)
    np.testing.assert_array_equal(other.numpy(), q)
    np.testing.assert_array_equal(theirs.numpy(), exponents)


@given(seeds, bits)
def test_training_sees_the_numbers_that_the_compilers_integers_stand_for(
    seed: int, width: int
) -> None:
    weight = weights(seed, 0.3)
    q, exponent, shifts = quantize_weight(weight, width, per_channel=width < 5)
    meant = shift_channels(q, shifts) * 2.0**exponent
    np.testing.assert_array_equal(quantised(torch.from_numpy(weight), width).numpy(), meant)


@given(seeds, bits, st.booleans())
def test_what_is_on_the_grid_stays(seed: int, width: int, per_channel: bool) -> None:
    q, exponents = to_grid(torch.from_numpy(weights(seed, 0.3)).double(), width, per_channel, torch)
    assert float(q.abs().max()) <= 2 ** (width - 1) - 1
    assert float(exponents.max() - exponents.min()) <= MAX_SHIFT
    on_grid = q * (2.0**exponents).view(-1, 1, 1, 1)
    again, theirs = to_grid(on_grid, width, per_channel, torch)
    assert torch.equal(again * (2.0**theirs).view(-1, 1, 1, 1), on_grid)


@pytest.mark.parametrize("exponent", [-70, -13, -1, 0, 9, 40])
@pytest.mark.parametrize("xp", [np, torch])
def test_a_power_of_two_is_its_own_grid(exponent: int, xp: object) -> None:
    weight = np.full((1, 1), 2.0**exponent)
    array = weight if xp is np else torch.from_numpy(weight)
    q, exponents = to_grid(array, 2, False, xp)  # type: ignore[arg-type]
    assert (float(q[0, 0]), float(exponents[0])) == (1.0, exponent)
