"""Claims about convolutions of spikes in the arithmetic of bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from compilers.execution.byte_kernels import BYTE, ByteConv, ByteDense, fits_bytes, trusted
from compilers.ir.operators import Conv, ConvTranspose, apply

needs_bytes = pytest.mark.skipif(not trusted(), reason="this processor multiplies no bytes")


@needs_bytes
@given(
    seed=st.integers(0, 1000),
    stride=st.integers(1, 3),
    size=st.integers(1, 5),
    padding=st.integers(0, 2),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    backward=st.booleans(),
    channels=st.sampled_from([4, 33]),
)
def test_sums_are_those_of_the_operator(
    seed: int,
    stride: int,
    size: int,
    padding: int,
    rows: int,
    columns: int,
    backward: bool,
    channels: int,
) -> None:
    assume(min(rows, columns) + 2 * padding >= size > padding)
    far = tuple((n + 2 * padding - size) // stride + 1 for n in (rows, columns))
    near, rng = (3, rows, columns), np.random.default_rng(seed)
    factors = 2.0 ** rng.integers(0, 4, (1, 3, 1, 1) if backward else (channels, 1, 1, 1))
    weight = rng.integers(-BYTE, BYTE + 1, (channels, 3, size, size)) * factors
    ends = ((channels, *far), near) if backward else (near, (channels, *far))
    operator = (ConvTranspose if backward else Conv)(stride, padding)
    spikes = rng.integers(0, 2, (2, *ends[0])).astype(np.float64)
    told = torch.from_numpy(spikes).float().permute(0, 2, 3, 1).contiguous()
    found = ByteConv(operator, weight, *ends, gain=4.0)(told).permute(0, 3, 1, 2).numpy()
    np.testing.assert_array_equal(found, 4 * apply(operator, weight, spikes, ends[1]))


@needs_bytes
@given(seed=st.integers(0, 1000), pre=st.integers(1, 300), post=st.integers(1, 70))
def test_sums_of_a_dense_projection_are_those_of_its_matrix(seed: int, pre: int, post: int) -> None:
    rng = np.random.default_rng(seed)
    factors = 2.0 ** rng.integers(0, 4, post)
    matrix = rng.integers(-BYTE, BYTE + 1, (pre, post)) * factors
    spikes = rng.integers(0, 2, (3, pre))
    assert fits_bytes(matrix, 1)
    found = ByteDense(matrix)(torch.from_numpy(spikes).float()).numpy()
    np.testing.assert_array_equal(found, spikes @ matrix)


@pytest.mark.parametrize("wide", [BYTE + 1.0, 3.0 * BYTE])
def test_a_kernel_of_more_than_a_byte_is_left_to_other_numbers(wide: float) -> None:
    kernel = np.ones((2, 2, 3, 3))
    assert fits_bytes(kernel, 0) == trusted()
    kernel[0, 0, 0, 0] = wide
    assert not fits_bytes(kernel, 0)


@needs_bytes
@pytest.mark.parametrize(
    ("sides", "size", "stride", "padding"),
    [((8, 1), 2, 2, 1), ((8, 1), 4, 2, 2), ((8, 5), 5, 2, 0), ((15, 16), 4, 4, 0)],
)
@pytest.mark.parametrize("samples", [1, 20])
def test_shapes_that_bytes_come_to_wrong_sums_in_are_summed_in_floats(
    sides: tuple[int, int], size: int, stride: int, padding: int, samples: int
) -> None:
    """oneDNN 3.13 errs in each of these on processors that have AMX."""
    rng, near = np.random.default_rng(1), (48, *sides)
    far = (48, *((n + 2 * padding - size) // stride + 1 for n in sides))
    weight = rng.integers(-BYTE, BYTE + 1, (48, 48, size, size)).astype(np.float64)
    spikes = rng.integers(0, 2, (samples, *near)).astype(np.float64)
    operator = Conv(stride, padding)
    told = torch.from_numpy(spikes).float().permute(0, 2, 3, 1).contiguous()
    found = ByteConv(operator, weight, near, far)(told).permute(0, 3, 1, 2).numpy()
    np.testing.assert_array_equal(found, apply(operator, weight, spikes, far))
