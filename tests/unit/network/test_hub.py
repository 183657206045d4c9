"""Claims about models that come with the package: what they hold, and what damage is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ep_neuro as ep
from ep_neuro.data import datasets
from ep_neuro.errors import EPNeuroError, ModelError
from ep_neuro.network.checkpoint import WEIGHTS, load_model
from ep_neuro.network.hub import cards
from ep_neuro.network.hub.cards import CARD, HUB, hub_names, place_of, read_card
from ep_neuro.network.hub.packing import SCALE, TOP, packed, unpacked

MOST_BYTES = 3_000_000


@pytest.mark.parametrize("name", hub_names())
def test_a_model_opens_with_the_digest_and_without_a_path_of_where_it_was_trained(
    name: str,
) -> None:
    model = ep.load_model(f"hub:{name}")
    assert model.digest == model.metadata["sha256"]
    assert "/" not in model.metadata["data"]


@pytest.mark.parametrize("name", hub_names())
def test_packing_cost_no_half_point_of_what_was_measured(name: str) -> None:
    card = read_card(name)
    assert {f.split for f in card.figures} == {"val", "test"}
    assert all(abs(f.accuracy - card.before[f.split]) < 0.005 for f in card.figures)


def test_the_hub_is_small() -> None:
    assert sum(f.stat().st_size for f in HUB.rglob("*") if f.is_file()) < MOST_BYTES


def test_the_digits_are_as_right_as_their_card_says() -> None:
    model, test = ep.load_model("hub:digits_resnet"), datasets.load("digits").test
    found = ep.evaluate(model.network, test, ep.Schedule(sweeps=50))
    assert found.accuracy == pytest.approx(read_card("digits_resnet").accuracy("test"), abs=0.004)


def test_training_starts_from_a_model_of_the_hub() -> None:
    config = ep.TrainConfig(start="hub:digits_resnet", data="digits")
    assert config.spec().name == "digits_resnet"
    assert config.begin().metadata == {"start.sha256": ep.load_model("hub:digits_resnet").digest}


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mnist_residul", ["did you mean 'mnist_residual'?", "hub:cifar10_resnet"]),
        ("x", ["there are hub:", "hub:digits_resnet"]),
        ("", ["there are hub:"]),
        ("../hub/digits_resnet", ["none of this name"]),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_and_all(name: str, parts: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        ep.open_model(f"hub:{name}")
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub of one model that may be spoilt."""
    shutil.copytree(HUB / "digits_resnet", tmp_path / "digits_resnet")
    monkeypatch.setattr(cards, "HUB", tmp_path)
    return tmp_path / "digits_resnet"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: flip(p / WEIGHTS), "damaged: not the sha256 of card.yaml; install"),
    (lambda p: (p / WEIGHTS).unlink(), "the file is missing; install"),
    (lambda p: flip(p / "spec.yaml"), "damaged"),
    (lambda p: (p / CARD).write_text("summary: [\n"), "not YAML"),
    (lambda p: (p / CARD).write_text("summry: a\n"), "unknown key 'summry'"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES)
def test_a_damaged_model_is_refused_in_one_line(
    hub: Path, damage: Callable[[Path], object], says: str
) -> None:
    place_of("hub:digits_resnet")
    damage(hub)
    with pytest.raises(EPNeuroError) as caught:
        ep.load_model("hub:digits_resnet")
    assert str(hub) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# --- packing -----------------------------------------------------------------------------------


@given(
    st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 7), st.sampled_from([1e-30, 1, 1e30])
)
def test_packed_weights_come_back_to_half_a_scale_and_no_number_is_new_twice(
    seed: int, rows: int, columns: int, size: float
) -> None:
    value = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    value[0] = 0
    tensors = {"weight/a": value, "bias/a": value[0]}
    again = unpacked(packed(tensors))
    assert again.keys() == tensors.keys()
    assert torch.equal(again["bias/a"], value[0])
    scale = packed(tensors)["weight/a" + SCALE]
    assert ((again["weight/a"] - value).abs() <= 0.5001 * scale[:, None]).all()
    assert packed(tensors)["weight/a"].abs().max() <= TOP
    torch.testing.assert_close(unpacked(packed(again))["weight/a"], again["weight/a"])


def test_whole_numbers_without_a_fitting_scale_stay_what_they_are() -> None:
    whole = {"w": torch.ones(3, 2, dtype=torch.int8)}
    for scale in ({}, {"w" + SCALE: torch.ones(2)}):
        assert unpacked({**whole, **scale})["w"].dtype == torch.int8


def test_a_folder_is_read_as_before() -> None:
    assert load_model(HUB / "digits_resnet").digest == ep.load_model("hub:digits_resnet").digest
