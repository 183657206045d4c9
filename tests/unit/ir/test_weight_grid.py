"""Claims about the weight grid: what lies on it stays there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir.weight_grid import MAX_SHIFT, to_grid

seeds = st.integers(0, 10**6)
bits = st.integers(2, 12)


def weights(seed: int, spread: float) -> np.ndarray:
    """Float32 kernels whose channels differ by powers of `spread`; the last channel is zero."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(3, size=(4, 3, 2, 2)) * spread ** np.arange(4).reshape(4, 1, 1, 1)
    weight[-1] = 0
    return weight.astype(np.float32)


@given(seeds, bits, st.booleans())
def test_what_is_on_the_grid_stays(seed: int, width: int, per_channel: bool) -> None:
    q, exponents = to_grid(weights(seed, 0.3).astype(np.float64), width, per_channel)
    assert np.abs(q).max() <= 2 ** (width - 1) - 1
    assert exponents.max() - exponents.min() <= MAX_SHIFT
    on_grid = q * (2.0**exponents).reshape(-1, 1, 1, 1)
    again, theirs = to_grid(on_grid, width, per_channel)
    np.testing.assert_array_equal(again * (2.0**theirs).reshape(-1, 1, 1, 1), on_grid)


@pytest.mark.parametrize("exponent", [-70, -13, -1, 0, 9, 40])
def test_a_power_of_two_is_its_own_grid(exponent: int) -> None:
    q, exponents = to_grid(np.full((1, 1), 2.0**exponent), 2, False)
    assert (float(q[0, 0]), float(exponents[0])) == (1.0, exponent)
