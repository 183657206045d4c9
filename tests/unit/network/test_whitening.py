"""Claims about whitened kernels: they whiten, they come from training data, and they stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.energy.spec import InputSpec, NetworkSpec
from ep_neuro.errors import ConfigError, SpecError
from ep_neuro.estimators import Centered
from ep_neuro.estimators.baselines import Unrolled, implicit_gradient
from ep_neuro.estimators.gradient_check import check_network, cosine
from ep_neuro.network.checkpoint import load_model
from ep_neuro.network.network import Network
from ep_neuro.network.whitening import whiten
from ep_neuro.training import loop
from ep_neuro.training.config import TrainConfig, build_config
from ep_neuro.training.loop import train
from tests.helpers.problems import TIGHT, problem

SCHEDULE = {"sweeps": 20, "relaxation": 1.2, "tolerance": 1e-3}


def network_of(channels: int = 8, gain: float = 0.5, **fields: Any) -> dict[str, Any]:
    """8x8 digits, a whitened 3x3 kernel, a convolution and a head, in units of 4 and 2."""
    conv = {"kind": "conv", "kernel": 3, "padding": 1}
    return {
        "name": "whitened",
        "input": {"shape": [1, 8, 8], "mean": [0.3], "std": [0.37]},
        "populations": [
            {"name": "a", "shape": [channels, 8, 8], "box": [0, 2], "unit": 4.0},
            {"name": "b", "shape": [8, 4, 4], "box": [0, 2], "unit": 2.0},
            {"name": "out", "shape": [10], "box": [-0.5, 1.5]},
        ],
        "couplings": [
            {"pre": "input", "post": "a", "gain": gain, "whiten": True, **conv, **fields},
            {"pre": "a", "post": "b", "stride": 2, "standardise": True, **conv},
            {"pre": "b", "post": "out", "gain": 0.5},
        ],
    }


def config(**changes: Any) -> TrainConfig:
    fields = {
        "network": network_of(),
        "estimator": {"kind": "frozen-mean", "free": SCHEDULE, "nudged": SCHEDULE},
        "evaluation": SCHEDULE,
        "optimiser": {"lr": 0.1, "relative": True, "weight_decay": 0.01, "clip_norm": 1.0},
        "epochs": 3,
        "batch": 16,
        "average": 0.9,
    }
    return build_config({**fields, **changes})


@pytest.fixture(scope="module")
def digits() -> Dataset:
    whole = datasets.load("digits")
    return replace(whole, train=whole.train.head(400), val=whole.val.head(200))


def kernel(network: Network) -> torch.Tensor:
    return network.weights["input->a"].detach()


# --- the law -----------------------------------------------------------------------------------


def test_channels_of_a_whitened_kernel_are_uncorrelated_and_as_large_as_the_gain_says() -> None:
    # Correlated over colours and over space, with every direction far above the noise floor.
    noise = torch.rand(300, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    x = (0.7 * noise + 0.3 * F.avg_pool2d(noise, 3, 1, 1) + 0.3 * noise.flip(1)) / 1.3
    spec = network_of(channels=20)
    spec["input"] = {"shape": [3, 9, 9], "mean": [0.5] * 3, "std": [0.2] * 3}
    spec["populations"][0]["shape"] = [20, 9, 9]
    spec["populations"][1]["shape"] = [8, 5, 5]
    network = Network(NetworkSpec.from_dict(spec))
    whiten(network, x.numpy())
    # The convolution with no padding sees the very patches that were measured.
    drive = F.conv2d(network.normalise(x), kernel(network)).transpose(0, 1).flatten(1).double()
    found = torch.cov(drive) / (0.5 * 4.0) ** 2
    expected = torch.eye(10, dtype=torch.float64).repeat(2, 2)
    expected[:10, 10:] *= -1
    expected[10:, :10] *= -1
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


def test_leading_directions_come_first_each_with_both_signs() -> None:
    spec = NetworkSpec.from_dict(network_of(channels=7))
    network = Network(spec)
    x = datasets.load("digits").train.pixels
    whiten(network, x)
    found = kernel(network).flatten(1)
    assert torch.equal(found[4:], -found[:3])
    # Whitening divides by the root of the variance: what varies least gets the longest row.
    lengths = found[:4].norm(dim=1)
    assert bool((lengths.diff() > 0).all())
    again = Network(spec, seed=9)
    whiten(again, x)
    assert torch.equal(kernel(again), kernel(network))


def test_directions_without_signal_are_not_blown_up() -> None:
    network = Network(NetworkSpec.from_dict(network_of(channels=18)))
    flat = np.full((10, 1, 8, 8), 0.5, np.float32) + np.arange(10).reshape(-1, 1, 1, 1) / 20
    whiten(network, flat)
    assert bool(torch.isfinite(kernel(network)).all())


# --- training ----------------------------------------------------------------------------------


def test_ep_learns_behind_a_whitened_kernel_that_does_not_move(
    digits: Dataset, tmp_path: Path
) -> None:
    result = train(config(), tmp_path / "run", dataset=digits)
    expected = Network(config().spec(), 0)
    whiten(expected, digits.train.pixels)
    for place in ("last", "best"):
        saved = load_model(tmp_path / "run" / place).network
        assert torch.equal(kernel(saved), kernel(expected))
    assert not torch.equal(saved.weights["a->b"], expected.weights["a->b"])
    assert not torch.equal(saved.gains["a->b"], expected.gains["a->b"])
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.test.accuracy > 0.8


def test_a_run_that_starts_from_a_model_or_goes_on_keeps_its_kernel(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(config(epochs=1), tmp_path / "first", dataset=digits)
    other = replace(digits, train=Split(1 - digits.train.x, digits.train.y))
    start = {"network": None, "start": str(tmp_path / "first")}
    second = train(config(**start, epochs=1), dataset=other)
    assert torch.equal(kernel(second.model.network), kernel(first.model.network))
    monkeypatch.setattr(loop, "whiten", lambda network, _: whiten(network, other.train.pixels))
    third = train(config(epochs=2), tmp_path / "first", dataset=digits, resume=True)
    assert torch.equal(kernel(third.model.network), kernel(first.model.network))


def test_a_fixed_kernel_has_no_gradient_and_all_else_has_the_exact_one() -> None:
    network, x, y = problem(1, NetworkSpec.from_dict(network_of(gain=0.1)))
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    estimator = Centered(beta=1e-3, free=TIGHT, nudged=TIGHT)
    for found in (
        exact,
        estimator(network, x, y).gradient,
        Unrolled(free=TIGHT)(network, x, y).gradient,
    ):
        assert not found["weight/input->a"].any()
        assert cosine(found, exact) > 0.9999
    check = check_network(network, x, y)
    assert check.finite_difference is not None
    assert check.finite_difference < 1e-3


def test_until_training_the_kernel_is_random_as_ever() -> None:
    spec = NetworkSpec.from_dict(network_of())
    assert torch.equal(kernel(Network(spec, 4)), kernel(Network(spec.plain(), 4)))


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"channels": 19},
            "19 channels exceed 18, two signs of each direction in a patch of 1x3x3",
        ),
        ({"standardise": True}, "standardise and whiten exclude each other"),
        ({"kernel": 9, "padding": 4}, "no patch of side 9 fits on the input"),
    ],
)
def test_what_cannot_be_whitened_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=f"'input->a': {words}"):
        NetworkSpec.from_dict(network_of(**changes))


def test_only_convolutions_of_the_input_are_whitened() -> None:
    spec = network_of()
    spec["couplings"][1] = {**spec["couplings"][1], "whiten": True, "standardise": False}
    with pytest.raises(SpecError, match="'a->b': whiten belongs to convolutions of the input"):
        NetworkSpec.from_dict(spec)
    spec["couplings"] = [{"pre": "input", "post": "out", "whiten": True}]
    spec["populations"] = spec["populations"][2:]
    with pytest.raises(SpecError, match="and this is kind: dense from 'input'"):
        NetworkSpec.from_dict(spec)
    assert NetworkSpec(**{**spec, "couplings": [{"pre": "input", "post": "out"}]}).input == (
        InputSpec(**network_of()["input"])
    )


def test_a_rate_for_a_kernel_that_does_not_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'input->a': .* whitens by this coupling"):
        train(config(optimiser={"rates": {"input->a": 0.5}}))
