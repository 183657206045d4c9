"""Claims about data that a network or a program cannot take: the remedy is for what is wrong."""

from __future__ import annotations

import dataclasses

import pytest

from ep_neuro.data import datasets
from ep_neuro.data.datasets import check_fits, load
from ep_neuro.errors import DataError
from targets.experiments.comparison.compare import fit
from tests.helpers.graphs import digits_like_dense, graph_of


def off_by(first: int = 0, last: bool = False) -> datasets.Dataset:
    """The digits with their labels counted from `first`, or their channels last."""
    digits = load("digits")
    parts = {}
    for name in datasets.SPLITS:
        split = digits.split(name)
        pixels = split.pixels.transpose(0, 2, 3, 1) if last else split.pixels
        parts[name] = datasets.Split(pixels, split.y + first)
    return dataclasses.replace(digits, classes=tuple(map(str, range(10 + first))), **parts)


def test_labels_that_count_from_one_and_channels_that_come_last_are_told_as_such() -> None:
    with pytest.raises(DataError, match=r"labels 1 to 10: class 0 has no samples; count .* from 0"):
        check_fits(off_by(first=1), digits_like_dense())
    with pytest.raises(DataError, match=r"\[8, 8, 1\].*; channels come first: store x.transpose"):
        check_fits(off_by(last=True), digits_like_dense())


def test_a_program_refuses_the_data_that_its_network_refuses() -> None:
    graph = graph_of(digits_like_dense())
    assert len(fit(off_by().test, graph)) == 360
    with pytest.raises(DataError, match="labels up to 10, and the program has 10 outputs"):
        fit(off_by(first=1).test, graph)
    with pytest.raises(DataError, match="channels come first"):
        fit(off_by(last=True).test, graph)
