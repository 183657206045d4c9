"""Claims about a GPU: states, gradients and training are those of the CPU, and resuming goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.estimators import FrozenMean
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle
from ep_neuro.training.config import TrainConfig, build_config
from ep_neuro.training.loop import TrainResult, train
from tests.helpers.cuda import full_precision, needs_cuda
from tests.helpers.graphs import random_residual_spec
from tests.helpers.problems import chain, difference, interrupt_at, pooled, problem, smooth_chain

__all__ = ["full_precision"]

pytestmark = [needs_cuda, pytest.mark.usefixtures("full_precision")]

GPU = "cuda"
SPECS = {
    "residual": random_residual_spec(3),
    "max-pooled": pooled("max"),
    "smooth": smooth_chain(),
    "readout": chain(readout=True),
    "cross-entropy": chain(cost="cross-entropy"),
}
SCHEDULES = {
    # Samples leave as they settle; a fixed number of sweeps is recorded as a CUDA graph.
    "until-settled": Schedule(sweeps=300, tolerance=1e-12),
    "fixed": Schedule(sweeps=12, tolerance=0.0),
}
DIGITS = {torch.float64: 1e-10, torch.float32: 1e-4}
"""How far a GPU may be from the CPU: sums are added in another order."""


def given(spec: NetworkSpec, dtype: torch.dtype) -> tuple[Network, Tensor, Tensor]:
    """A network, four inputs and their targets."""
    network, x, y = problem(5, spec)
    return network.to(dtype), x.to(dtype), y.to(dtype)


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_states_settle_on_a_gpu_where_they_do_on_the_cpu(
    spec: NetworkSpec, dtype: torch.dtype
) -> None:
    network, x, _ = given(spec, dtype)
    for schedule in SCHEDULES.values():
        with torch.no_grad():
            here = settle(Landscape(network.cpu(), x), schedule)
            there = settle(Landscape(network.to(GPU), x.to(GPU)), schedule)
        for name, state in here.state.items():
            assert there.state[name].device.type == GPU
            found = there.state[name].cpu()
            assert torch.allclose(found, state, rtol=DIGITS[dtype], atol=DIGITS[dtype])


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_gradient_on_a_gpu_is_that_of_the_cpu(
    spec: NetworkSpec, schedule: Schedule, dtype: torch.dtype
) -> None:
    network, x, y = given(spec, dtype)
    estimator = FrozenMean(free=schedule, nudged=schedule, fallback=False)
    here = estimator(network, x, y).gradient
    there = estimator(network.to(GPU), x.to(GPU), y.to(GPU)).gradient
    assert difference({k: g.cpu() for k, g in there.items()}, here) < DIGITS[dtype]


def test_samples_that_settle_late_are_settled_again_on_a_gpu() -> None:
    network, x, y = given(SPECS["residual"], torch.float64)
    hasty = Schedule(sweeps=3, tolerance=1e-9)
    estimator = FrozenMean(free=SCHEDULES["until-settled"], nudged=hasty)
    here = estimator(network, x, y).gradient
    there = estimator(network.to(GPU), x.to(GPU), y.to(GPU)).gradient
    assert difference({k: g.cpu() for k, g in there.items()}, here) < DIGITS[torch.float64]


def test_bfloat16_on_a_gpu_points_where_the_full_gradient_does() -> None:
    network, x, y = given(SPECS["max-pooled"], torch.float32)
    fixed = SCHEDULES["fixed"]
    full = FrozenMean(free=fixed, nudged=fixed, fallback=False)
    here = full(network, x, y).gradient
    short = full.model_copy(update={"precision": "bfloat16"})
    there = short(network.to(GPU), x.to(GPU), y.to(GPU)).gradient
    assert cosine({k: g.cpu() for k, g in there.items()}, here) > 0.99


# --- training ----------------------------------------------------------------------------------


def images() -> Dataset:
    """Three classes of 2x9x9 images, each bright in another third; 40, 12 and 15 samples."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        y = np.arange(count, dtype=np.int64) % 3
        pixels = rng.integers(0, 100, (count, 2, 9, 9))
        for image, label in zip(pixels, y, strict=True):
            image[:, 3 * label : 3 * label + 3] += 150
        return Split(pixels.astype(np.uint8), y)

    return Dataset("images", split(40), split(12), split(15), ("a", "b", "c"))


def configured(device: str, **changes: Any) -> TrainConfig:
    return build_config(
        {
            "network": pooled("avg").to_dict(),
            "estimator": {
                "kind": "frozen-mean",
                "free": {"sweeps": 9, "tolerance": 1e-4},
                "nudged": {"sweeps": 6, "tolerance": 1e-2},
            },
            "truth": {"every": 4, "samples": 2},
            "augment": [{"kind": "flip"}, {"kind": "crop", "padding": 1}],
            "optimiser": {"kind": "sgd", "lr": 0.05, "clip_norm": 1.0},
            "epochs": 2,
            "batch": 16,
            "average": 0.9,
            "device": device,
            **changes,
        }
    )


def apart(a: TrainResult, b: TrainResult) -> float:
    """Largest difference of two trained parameters."""
    theirs = b.model.network.state_dict()
    return max(float((v - theirs[k]).abs().max()) for k, v in a.model.network.state_dict().items())


@pytest.mark.parametrize("carry", [False, True], ids=["fresh-states", "carried-states"])
def test_training_on_a_gpu_is_training_on_the_cpu(carry: bool) -> None:
    here, there = (
        train(configured(device, carry_states=carry), dataset=images()) for device in ("cpu", GPU)
    )
    assert apart(here, there) < 1e-3
    assert there.history[-1]["loss"] == pytest.approx(here.history[-1]["loss"], rel=1e-3)
    assert there.history[-1]["val_accuracy"] == here.history[-1]["val_accuracy"]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_run_that_was_cut_off_on_a_gpu_goes_on_there(kind: str, tmp_path: Path) -> None:
    """Cut off in its second epoch, after a step that was saved."""
    chosen = configured(GPU, optimiser={"kind": kind, "lr": 0.01}, save_minutes=1e-9)
    whole = train(chosen, dataset=images())

    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path, dataset=images(), monitor=interrupt_at(5))
    resumed = train(chosen, tmp_path, dataset=images(), resume=True)
    assert len(resumed.history) == 2
    assert apart(resumed, whole) < 1e-3
