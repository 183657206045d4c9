"""Claims about the products of a synapse: what rounding would swallow is not computed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ep_neuro.estimators.contrast import Ways


def states(seed: int, sizes: tuple[float, float], dtype: torch.dtype) -> dict[str, Tensor]:
    """Random states of two populations, of so large a scale."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (size * torch.randn(8, 5, generator=generator)).to(dtype)
        for name, size in zip(("post", "pre"), sizes, strict=True)
    }


@given(
    weaker=st.integers(0, 40),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_what_is_left_out_is_below_the_rounding_of_what_stays(
    weaker: int, dtype: torch.dtype, seed: int
) -> None:
    mean, change = states(seed, (1, 1), dtype), states(seed + 1, (1e-3, 1e-3 * 0.5**weaker), dtype)
    kept = Ways(change, mean)("post", "pre")
    assert 1 <= len(kept) <= 2
    assert kept[0][0] is change["post"]
    assert kept[0][1] is mean["pre"]
    whole = [change["post"], mean["pre"]], [mean["post"], change["pre"]]
    sizes = [float(a.double().abs().sum() * b.double().abs().sum()) for a, b in whole]
    roundoff = torch.finfo(dtype).eps / 2
    assert len(kept) == 2 or sizes[1] <= roundoff * sizes[0] * (1 + 1e-3)
    assert len(kept) == 1 or sizes[1] >= roundoff * sizes[0] * (1 - 1e-3)


@pytest.mark.parametrize("dead", [0.0, float("nan")])
def test_where_nothing_moved_or_nothing_is_a_number_both_products_stay(dead: float) -> None:
    mean = states(0, (1, 1), torch.float32)
    change = {name: torch.full_like(z, dead) for name, z in mean.items()}
    assert len(Ways(change, mean)("post", "pre")) == 2
