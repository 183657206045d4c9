"""Networks and data that several of these files take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.network.network import Network
from tests.helpers.problems import residual


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Few digits to validate and test on."""
    found = datasets.load("digits")
    return replace(found, val=found.val.head(40), test=found.test.head(60))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(residual(), 1)


@pytest.fixture(scope="session")
def split() -> Split:
    """Images and labels for `network`."""
    rng = np.random.default_rng(0)
    return Split(rng.random((12, 1, 6, 6), np.float32), rng.integers(0, 4, 12))
