"""Claims about recovery: what was lost, what learning regained, and from which data."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compilers
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.network.architectures import digits_dense
from ep_neuro.network.network import Network
from ep_neuro.report.plots.formatting import percent
from ep_neuro.training.config import read_config
from ep_neuro.training.loop import train
from targets.experiments import demo
from targets.experiments.onchip.faults import damage
from targets.experiments.onchip.learning import Learnt
from targets.experiments.onchip.plastic import plastic
from targets.experiments.onchip.recovery import (
    Recovery,
    accuracy,
    few,
    inverted,
    mixed,
    only,
    recover,
    rotated,
    told,
    without,
)
from targets.experiments.onchip.schedule import Plan


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load("digits")


def test_a_damaged_array_regains_most_of_what_it_lost(digits: Dataset, tmp_path: Path) -> None:
    network = train(read_config("zoo:digits_dense", ["epochs=4"]), dataset=digits).model.network
    whole = plastic(compilers.compile(network, bits=8, steps=32), rate=0.1)
    broken = damage(whole, stuck=0.1, dead=0.05).program
    found = recover(
        "a story",
        accuracy(whole, digits.test),
        broken,
        digits,
        Plan(samples=400, batch=10, points=2),
        also={"zeros": only(digits.test, 0)},
    )
    fields = found.fields()
    assert fields["accuracy_before"] < fields["accuracy_original"] - 0.15
    assert fields["regained"] > 0.8
    assert fields["zeros"] > 0.9
    assert list(found.curve.accuracy) == [
        *("held out", "while learning", "original", "before learning")
    ]
    title, accuracies, costs, zeros = found.in_words()
    assert title == "a story"
    assert percent(fields["accuracy_after"]) in accuracies
    assert "an estimate" in costs
    assert zeros == f"  zeros: {percent(fields['zeros'])}"
    assert found.draw(tmp_path / "a.svg").stat().st_size > 1000


@given(*[st.floats(0, 1)] * 3)
def test_the_share_regained_is_of_what_was_lost(
    original: float, before: float, after: float
) -> None:
    program = compilers.Program("reference", None)  # type: ignore[arg-type]
    found = Recovery("", original, Learnt(program, [], before, after, None, []))
    if original - before < 1e-6:
        assert found.regained == 1 or original > before
    else:
        assert before + found.regained * (original - before) == pytest.approx(after)


def test_several_seeds_are_told_as_means(tmp_path: Path) -> None:
    point = {"samples": 10.0, "val_accuracy": 0.5, "clipped": 0.0, "seconds": 1.0}
    point |= dict.fromkeys(
        ("running_accuracy", "sign_agreement", "cosine", "events", "synops"), 1.0
    )
    graph = compilers.compile(Network(digits_dense(), 0), steps=2).graph
    program = compilers.Program("reference", graph)
    one, two = (
        Recovery(
            "a story", 0.9, Learnt(program, [point], before, after, None, []), {"nines": after}
        )
        for before, after in ((0.5, 0.9), (0.7, 0.8))
    )
    assert len(told([one], tmp_path / "new" / "one.svg")) == 5
    *first, means, nines = told([one, two], tmp_path / "two.svg")
    assert first[0] == "a story"
    assert (tmp_path / "two.svg").is_file()
    expected = (percent(0.9), percent(0.6), percent(0.85), f"({percent(0.75, 0)}")
    assert [part in means for part in expected] == [True] * 4
    assert nines == f"  mean of nines: {percent(0.85)}"


def test_the_demo_learns_around_the_damage(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SAMPLES", 40)
    monkeypatch.setattr(demo, "LEARNT", {"bits": 8, "steps": 8})
    network = train(read_config("zoo:digits_dense", ["epochs=2"]), dataset=digits).model.network
    told: list[int] = []
    found = demo.learn_on_chip(
        network, digits, "reference", lambda _: nullcontext(lambda done, *_: told.append(done))
    )
    assert told == [20, 40]
    assert found.fields()["samples"] == 40
    assert found.fields()["weight_bits"] == 8
    assert found.before > found.learnt.accuracy_before


# --- changes of the data -----------------------------------------------------------------------


def test_four_turns_and_two_inversions_change_nothing(digits: Dataset) -> None:
    turned = digits
    for _ in range(4):
        before, turned = turned, rotated(turned)
        assert not np.array_equal(before.test.x, turned.test.x)
    twice = inverted(inverted(digits))
    for name in datasets.SPLITS:
        np.testing.assert_array_equal(turned.split(name).x, digits.split(name).x)
        np.testing.assert_allclose(twice.split(name).x, digits.split(name).x, atol=1e-7)
        np.testing.assert_array_equal(turned.split(name).y, digits.split(name).y)


def test_bytes_are_inverted_as_pixels_are() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (6, 1, 2, 2)).astype(np.uint8)
    split = Split(raw, np.zeros(6, np.int64))
    changed = inverted(Dataset("d", split, split, split, ("a",))).test
    assert changed.pixels.dtype == np.uint8
    np.testing.assert_allclose(changed.x, 1 - split.x, atol=1e-6)


def test_classes_can_be_left_out_and_put_back(digits: Dataset) -> None:
    nines, others = only(digits.train, 9), without(digits.train, 9)
    assert set(nines.y) == {9}
    assert set(others.y) == set(range(9))
    together = mixed(others, nines)
    assert len(together) == len(digits.train)
    assert together.x.sum() == pytest.approx(digits.train.x.sum(), rel=1e-5)
    assert len(few(digits, 30).train) == 30
    assert few(digits, 30).test is digits.test
