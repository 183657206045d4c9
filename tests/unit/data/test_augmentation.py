"""Claims about augmentation: seeded, a sample at a time, torchvision's own where that exists."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from ep_neuro.data.augmentation import (
    Affine,
    Crop,
    Cutout,
    Flip,
    RandAugment,
    _space,
    augment,
    draws,
)
from ep_neuro.errors import ConfigError
from ep_neuro.training.config import build_config

ALL: list[Any] = [Flip(), RandAugment(ops=3), Crop(padding=2), Cutout(side=3), Affine()]


def photos(samples: int, channels: int = 3, side: int = 12, seed: int = 0) -> Tensor:
    """Smooth random images as bytes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(samples, channels, 4, 4, generator=generator)
    return (functional.interpolate(coarse, (side, side), mode="bilinear") * 255).to(torch.uint8)


@pytest.mark.parametrize("step", ALL, ids=lambda step: step.kind)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_step_keeps_shape_type_and_range(step: Any, channels: int) -> None:
    images = photos(40, channels)
    u = draws([step], 40, seed=1)
    done = step(images, u)
    assert done.shape == images.shape
    assert done.dtype == torch.uint8
    unit = step(images.float() / 255, u)
    assert unit.dtype == torch.float32
    assert 0 <= float(unit.min()) <= float(unit.max()) <= 1
    # Bytes and numbers take the same way, but for rounding.
    assert float((unit * 255 - done).abs().max()) <= 1


@given(cut=st.integers(1, 19), seed=st.integers(0, 2**40))
@settings(max_examples=15)
def test_a_sample_is_augmented_alike_in_any_company(cut: int, seed: int) -> None:
    images, u = photos(20), draws(ALL, 20, seed)
    whole = augment(images, ALL, u)
    parts = [augment(images[part], ALL, u[part]) for part in (slice(None, cut), slice(cut, None))]
    assert torch.equal(whole, torch.cat(parts))


def test_one_seed_draws_the_same_numbers_and_another_others() -> None:
    assert torch.equal(draws(ALL, 5, 3), draws(ALL, 5, 3))
    assert not torch.equal(draws(ALL, 5, 3), draws(ALL, 5, 4))
    assert draws(ALL, 5, 3).shape == (5, 1 + 6 + 2 + 2 + 4)


def test_nothing_to_do_leaves_the_images_and_the_stored_ones_are_never_touched() -> None:
    images = photos(8)
    before = images.clone()
    assert augment(images, [], draws([], 8, 0)) is images
    augment(images, ALL, draws(ALL, 8, 0))
    assert torch.equal(images, before)


def test_half_of_the_images_are_mirrored() -> None:
    images = photos(400)
    done = Flip()(images, draws([Flip()], 400, 0))
    mirrored = (done == images.flip(-1)).flatten(1).all(1)
    assert 160 < int(mirrored.sum()) < 240
    assert torch.equal(done[~mirrored], images[~mirrored])


def test_a_crop_is_edge_padding_and_a_window_at_every_offset() -> None:
    image, pad = photos(1, side=5), 2
    padded = functional.pad(image.float(), [pad] * 4, mode="replicate").byte()
    offsets = [(a, b) for a in range(2 * pad + 1) for b in range(2 * pad + 1)]
    u = torch.tensor([[(a + 0.5) / 5, (b + 0.5) / 5] for a, b in offsets])
    done = Crop(padding=pad)(image.expand(len(offsets), -1, -1, -1), u)
    for found, (a, b) in zip(done, offsets, strict=True):
        assert torch.equal(found, padded[0, :, a : a + 5, b : b + 5])


def test_an_affine_step_rotates_like_torchvision() -> None:
    from torchvision.transforms import v2  # seconds of import, which only this file needs

    images = photos(1, side=20).float() / 255
    turn = Affine(degrees=30, scale=0, shift=0)
    done = turn(images, torch.tensor([[1.0, 0.5, 0.5, 0.5]]))
    theirs = v2.functional.rotate(images, 30, v2.InterpolationMode.BILINEAR)
    assert float((done - theirs).abs().max()) < 1e-4


def test_an_affine_step_without_extent_is_the_identity() -> None:
    images = photos(6)
    still = Affine(degrees=0, scale=0, shift=0)
    assert torch.equal(still(images, draws([still], 6, 0)), images)


@pytest.mark.parametrize("magnitude", [0, 9, 17, 30])
@pytest.mark.parametrize("place", range(14))
def test_each_operation_of_randaugment_is_torchvisions(place: int, magnitude: int) -> None:
    from torchvision.transforms import v2

    theirs = v2.RandAugment(magnitude=magnitude)
    name, (levels, signed) = list(theirs._AUGMENTATION_SPACE.items())[place]
    images = photos(5, side=32)
    for sign in (1, -1) if signed else (1,):
        level = levels(31, 32, 32)
        expected = theirs._apply_image_or_video_transform(
            images,
            name,
            0.0 if level is None else sign * float(level[magnitude]),
            interpolation=theirs.interpolation,
            fill=theirs._fill,
        )
        found = _space(magnitude, 32, 32)[place](images, sign)
        assert float((found.float() - expected.float()).abs().max()) <= 1, name


def test_every_operation_is_drawn_about_equally_often() -> None:
    step = RandAugment(ops=1)
    seen = (draws([step], 7000, 0)[:, 0] * 14).long().bincount(minlength=14)
    assert int(seen.min()) > 400
    assert int(seen.max()) < 600


def test_steps_are_chosen_by_name_in_the_configuration() -> None:
    config = build_config(
        {"network": "zoo:digits_residual", "augment": [{"kind": "crop", "padding": 1}]}
    )
    assert config.augment == (Crop(padding=1),)


@pytest.mark.parametrize(
    ("network", "steps", "part"),
    [
        ("digits_residual", [{"kind": "crop", "pading": 1}], "did you mean 'padding'?"),
        ("digits_residual", [{"kind": "blur"}], "'flip'"),
        ("digits_residual", [{"kind": "flip", "p": 2}], "less than or equal to 1"),
    ],
)
def test_a_wrong_step_is_refused_in_one_line(network: str, steps: Any, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({"network": f"zoo:{network}", "augment": steps})
    assert "augment" in str(caught.value)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flat_input_cannot_be_augmented() -> None:
    network = {
        "name": "flat",
        "input": {"shape": [64]},
        "populations": [{"name": "out", "shape": [10]}],
        "couplings": [{"pre": "input", "post": "out"}],
    }
    with pytest.raises(ConfigError, match=r"augment: network 'flat' takes \[64\], not images"):
        build_config({"network": network, "augment": [{"kind": "flip"}]})


@given(seed=st.integers(0, 2**40), side=st.integers(1, 30))
@settings(max_examples=15)
def test_cutout_hides_one_square_under_the_mean_of_its_channel(seed: int, side: int) -> None:
    images = photos(6).float() / 255
    done = Cutout(side=side)(images, draws([Cutout()], 6, seed))
    mean = images.mean((2, 3), keepdim=True)
    hidden = (done == mean).all(1)
    assert torch.equal(torch.where(hidden[:, None], mean, images), done)
    for mask in hidden:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert 1 <= int(rows.sum()) <= side
        assert 1 <= int(columns.sum()) <= side
