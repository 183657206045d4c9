"""Claims about kernels in parts whose products float32 sums exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.execution.exact_parts import MOST, SINGLE, Split, exact_parts


def uneven(seed: int, receiving: int, *, by_sender: bool) -> np.ndarray:
    """A kernel of 8 bits, 24 channels to 16, shifted by channel of one end."""
    rng = np.random.default_rng(seed)
    kernel = rng.integers(-127, 128, (16, 24, 3, 3)).astype(np.float64)
    axis = 1 if by_sender else 0
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    kernel *= 2.0 ** rng.integers(0, 9, kernel.shape[axis]).reshape(shape)
    return np.moveaxis(kernel, 0, receiving)


def whole(split: Split, like: np.ndarray, receiving: int) -> np.ndarray:
    """The kernel that `split` is a sum of."""
    found = np.moveaxis(np.zeros_like(like), receiving, 0)
    for part in split.parts:
        kernel = np.moveaxis(part.kernel.double().numpy(), receiving, 0)
        found[:, part.channels.numpy()] += part.factor * kernel
    return np.moveaxis(found * split.factors.numpy()[:, None, None, None], 0, receiving)


@given(
    seed=st.integers(0, 1000),
    receiving=st.integers(0, 1),
    by_sender=st.booleans(),
    largest=st.sampled_from([1.0, 256.0, 1024.0]),
)
def test_parts_add_up_to_the_kernel_and_none_leaves_float32(
    seed: int, receiving: int, by_sender: bool, largest: float
) -> None:
    kernel = uneven(seed, receiving, by_sender=by_sender)
    split = exact_parts(kernel, receiving, largest)
    assert split is not None
    np.testing.assert_array_equal(whole(split, kernel, receiving), kernel)
    for part in split.parts:
        sums = part.kernel.double().abs().sum(dim=(1 - receiving, 2, 3))
        assert float(sums.max()) * largest < SINGLE


def test_exponents_of_receiving_channels_need_no_parts() -> None:
    kernel = uneven(0, 0, by_sender=False)
    assert np.abs(kernel).sum((1, 2, 3)).max() * 256 > SINGLE
    split = exact_parts(kernel, 0, 256.0)
    assert split is not None
    assert len(split.parts) == 1


@pytest.mark.parametrize("largest", [2.0**24, 2.0**19])
def test_integers_that_are_long_in_every_product_stay_whole(largest: float) -> None:
    """One product may be too long, or all of them need more than `MOST` parts."""
    kernel = np.full((1, 2 * MOST, 1, 1), 31.0)
    assert exact_parts(kernel, 0, largest) is None


def test_a_channel_that_sends_nothing_is_in_a_part_like_any_other() -> None:
    kernel = np.zeros((2, 3, 1, 1))
    split = exact_parts(kernel, 0, 1.0)
    assert split is not None
    np.testing.assert_array_equal(whole(split, kernel, 0), kernel)
