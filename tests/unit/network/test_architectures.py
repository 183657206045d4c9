"""Claims about the named networks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ep_neuro.energy.spec import INPUT, NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.architectures import ZOO, hopfield_resnet, without_skips, zoo


def sizes(spec: NetworkSpec) -> str:
    """Shapes of the input and of all populations."""
    return " ".join("x".join(map(str, shape)) for shape in spec.shapes.values())


def test_hopfield_resnet13_is_the_published_network() -> None:
    spec = zoo("hopfield_resnet13")
    published = "3x32x32 128x32x32 128x16x16 256x16x16 256x8x8 512x8x8 512x4x4 512x4x4 512x2x2 10"
    assert sizes(spec) == published
    order = list(spec.shapes)
    wiring = {(order.index(c.pre), order.index(c.post)): c for c in spec.couplings}
    blocks = [[(n, n + 1), (n + 1, n + 2), (n, n + 2)] for n in (0, 2, 4, 6)]
    assert set(wiring) == {edge for block in blocks for edge in block} | {(8, 9)}
    for first, second, skip in blocks:
        for edge, shape in ((first, (3, 1, 1)), (second, (3, 2, 1)), (skip, (1, 2, 0))):
            c = wiring[edge]
            assert (c.kernel, c.stride, c.padding) == shape
    assert wiring[8, 9].kind == "dense"
    assert spec.output == order[9]


def test_hopfield_vgg5_is_the_published_network() -> None:
    spec = zoo("hopfield_vgg5")
    assert sizes(spec) == "3x32x32 128x16x16 256x8x8 512x4x4 512x2x2 10"
    *convolutions, head = spec.couplings
    assert {(c.kernel, c.stride, c.padding, c.pool) for c in convolutions} == {(3, 1, 1, "max")}
    assert [p.box for p in spec.populations] == [(0.0, 6.0)] * 4 + [None]
    half_widths = [3**0.5 * c.gain for c in (*convolutions, head)]
    assert half_widths == pytest.approx([0.4, 0.7, 0.6, 0.3, 0.6])


def test_the_vgg5_of_2021_ends_in_a_single_pixel_and_hard_sigmoids() -> None:
    spec = zoo("vgg5")
    assert spec.shapes["h4"] == (512, 1, 1)
    assert {p.box for p in spec.populations} == {(0.0, 1.0)}


@pytest.mark.parametrize(
    ("name", "couplings", "parameters"),
    [
        ("hopfield_resnet13", 13, 9_742_858),
        ("plain13", 9, 9_316_490),
        ("vgg5", 5, 3_843_850),
        ("vgg5_avg", 5, 3_843_850),
        ("vgg5_softmax", 4, 3_843_850),
        ("hopfield_vgg5", 5, 3_859_210),
        ("digits_dense", 2, 64 * 128 + 128 + 128 * 10 + 10),
    ],
)
def test_networks_have_their_known_size(name: str, couplings: int, parameters: int) -> None:
    spec = zoo(name)
    assert len(spec.couplings) == couplings
    assert spec.parameters == parameters


@pytest.mark.parametrize("name", ZOO)
def test_each_network_bears_its_name_and_ten_classes(name: str) -> None:
    assert zoo(name).name == name
    assert zoo(name).classes == 10


@pytest.mark.parametrize("name", ["digits_residual", "digits_resnet"])
def test_residual_digits_are_wired_like_the_published_network(name: str) -> None:
    spec, big = zoo(name), zoo("hopfield_resnet13")
    half = len(spec.couplings) - 1
    assert [(c.name, c.kernel, c.stride, c.padding) for c in spec.couplings[:half]] == [
        (c.name, c.kernel, c.stride, c.padding) for c in big.couplings[:half]
    ]


def test_the_plain_twin_lacks_the_skips_only() -> None:
    plain, full = zoo("plain13"), zoo("hopfield_resnet13")
    gone = {c.name for c in full.couplings} - {c.name for c in plain.couplings}
    assert gone == {"input->h2", "h2->h4", "h4->h6", "h6->h8"}
    assert plain.populations == full.populations


@given(st.integers(1, 3), st.integers(1, 19), st.integers(1, 19), st.integers(1, 4))
def test_a_hopfield_resnet_takes_images_of_any_size(
    channels: int, height: int, width: int, blocks: int
) -> None:
    spec = hopfield_resnet(
        "net",
        image=(channels, height, width),
        channels=(2, 3) * blocks,
        classes=4,
        heights=(6.0, 2.0) * blocks,
        gain=0.5,
    )
    assert len(spec.couplings) == 3 * blocks + 1
    assert len(without_skips(spec, "plain").couplings) == 2 * blocks + 1
    assert spec.couplings[0].pre == INPUT


def test_units_shrink_towards_the_output_where_asked() -> None:
    fields: dict[str, Any] = dict(image=(1, 8, 8), channels=(2, 3, 4, 5), heights=2.0, gain=1.0)
    spec = hopfield_resnet("net", shrink=4.0, **fields)
    assert [p.unit for p in spec.populations] == [256.0, 64.0, 16.0, 4.0, 1.0]
    assert [p.box for p in spec.populations[:-1]] == [(0.0, 2.0)] * 4
    plain = hopfield_resnet("net", **fields)
    assert {p.unit for p in plain.populations} == {1.0}
    assert plain.couplings == spec.couplings


def test_half_a_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 channels and 3 heights make no blocks of two"):
        hopfield_resnet("net", image=(1, 8, 8), channels=(2, 3, 4), gain=0.5)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("digits_residul", "did you mean 'digits_residual'?"), ("xyz", "choose from digits_dense")],
)
def test_an_unknown_name_brings_the_nearest_one(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        zoo(name)
    assert f"network '{name}'" in str(caught.value)
    assert hint in str(caught.value)
