"""Claims about the options of training: clipping, rates, unsettled batches, saving in time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ep_neuro.data.augmentation import Crop
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.errors import ConfigError, ModelError, RunError
from ep_neuro.estimators import Centered
from ep_neuro.estimators.gradient_check import in_units
from ep_neuro.network.checkpoint import load_model, load_state
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.training.config import TrainConfig, build_config
from ep_neuro.training.loop import TrainResult, train
from ep_neuro.training.optimizer import make_optimiser
from tests.helpers.forked import fork
from tests.helpers.problems import interrupt_at
from tests.unit.training.test_loop import SCHEDULE, clusters, config, learned, same

IMAGES: dict[str, Any] = {
    "name": "images",
    "input": {"shape": [1, 6, 6]},
    "populations": [
        {"name": "h", "shape": [4, 3, 3]},
        OUTPUT := {"name": "output", "shape": [3], "box": None},
    ],
    "couplings": [
        {"pre": "input", "post": "h", "kind": "conv", "kernel": 3, "stride": 2, "padding": 1},
        {"pre": "h", "post": "output", "gain": 0.5},
    ],
}


def squares() -> Dataset:
    """Bytes: a bright corner, edge or middle; 30, 9 and 9 samples."""
    rng = np.random.default_rng(0)
    places = [(0, 0), (0, 2), (2, 2)]

    def split(count: int) -> Split:
        y = np.arange(count, dtype=np.int64) % 3
        x = rng.integers(0, 60, (count, 1, 6, 6)).astype(np.uint8)
        for image, label in zip(x, y, strict=True):
            row, column = places[label]
            image[0, row : row + 2, column : column + 2] = 250
        return Split(x, y)

    return Dataset("squares", split(30), split(9), split(9), ("a", "b", "c"))


def on_images(**changes: Any) -> TrainConfig:
    return config(
        network=IMAGES, augment=[{"kind": "crop", "padding": 1}, {"kind": "flip"}], **changes
    )


# --- augmentation in the loop ------------------------------------------------------------------


def test_training_sees_augmented_bytes_and_validation_plain_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.Tensor] = []
    crop = Crop.__call__

    def watched(step: Crop, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return crop(step, images, u)

    monkeypatch.setattr(Crop, "__call__", watched)
    data = squares()
    before = data.train.pixels.copy()
    train(on_images(epochs=2), dataset=data)
    assert [len(images) for images in seen] == [16, 14, 16, 14]
    assert all(images.dtype == torch.uint8 for images in seen)
    assert np.array_equal(data.train.pixels, before)


def test_augmentation_changes_what_is_learned_and_one_seed_repeats_it() -> None:
    first, again = (train(on_images(epochs=2), dataset=squares()) for _ in range(2))
    plain = train(config(network=IMAGES, epochs=2), dataset=squares())
    assert same(first.model.network, again.model.network)
    assert not same(first.model.network, plain.model.network)


# --- the size of a step ------------------------------------------------------------------------


def moved_by(chosen: TrainConfig) -> dict[str, float]:
    """How far each tensor of a fresh network goes in one epoch."""
    fresh = parameter_names(Network(chosen.spec(), chosen.seed))
    after = parameter_names(train(chosen, dataset=clusters()).model.network)
    return {k: float((after[k] - p).detach().norm()) for k, p in fresh.items()}


def test_a_clipped_gradient_keeps_its_direction_and_has_the_norm() -> None:
    sgd = {"kind": "sgd", "lr": 0.1, "momentum": 0.0}
    one = {"batch": 40, "epochs": 1, "average": 0.0}
    free = moved_by(config(optimiser=sgd, **one))
    clipped = moved_by(config(optimiser={**sgd, "clip_norm": 0.01}, **one))
    length = sum(v**2 for v in clipped.values()) ** 0.5
    assert length == pytest.approx(0.1 * 0.01, rel=1e-3)
    ratios = [clipped[k] / free[k] for k in free if free[k] > 1e-6]
    assert max(ratios) == pytest.approx(min(ratios), rel=1e-2)


def test_a_clip_counts_in_units_so_that_a_small_unit_hides_no_gradient() -> None:
    small = {**IMAGES, "populations": [{**IMAGES["populations"][0], "unit": 0.25}, OUTPUT]}
    one = {"kind": "sgd", "lr": 0.1, "momentum": 0.0, "clip_norm": 1e-3}
    chosen = config(network=small, optimiser=one, batch=40, epochs=1, average=0.0)
    data = squares()
    fresh = parameter_names(Network(chosen.spec(), chosen.seed))
    trained = train(chosen, dataset=data).model.network
    moved = {k: (p - fresh[k]).detach() for k, p in parameter_names(trained).items()}
    length = sum(float(g.square().sum()) for g in in_units(trained, moved).values()) ** 0.5
    assert length == pytest.approx(0.1 * 1e-3, rel=2e-2)


def test_a_rate_of_zero_freezes_one_tensor_and_leaves_the_others() -> None:
    chosen = {"lr": 0.02, "rates": {"h->output": 0.0, "h": 0.0}}
    moved = moved_by(config(optimiser=chosen, epochs=1, average=0.0))
    assert moved["weight/h->output"] == moved["bias/h"] == 0
    assert moved["weight/input->h"] > 0
    assert moved["bias/output"] > 0


def test_a_rate_scales_that_of_its_tensor_alone() -> None:
    chosen = config(optimiser={"lr": 0.1, "rates": {"h->output": 0.25}}).optimiser
    network = Network(config().spec())
    groups = {id(g["params"][0]): g["lr"] for g in make_optimiser(chosen, network).param_groups}
    assert groups[id(network.weights["h->output"])] == pytest.approx(0.025)
    assert groups[id(network.weights["input->h"])] == pytest.approx(0.1)


def test_a_rate_for_an_unknown_coupling_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        config(optimiser={"rates": {"h->outptu": 1.0}})
    assert "optimiser.rates 'h->outptu'" in str(caught.value)
    assert "did you mean 'h->output'?" in str(caught.value)


def test_biases_decay_if_asked() -> None:
    chosen = config(optimiser={"kind": "sgd", "lr": 0.1, "weight_decay": 0.5, "decay_biases": True})
    groups = make_optimiser(chosen.optimiser, Network(chosen.spec())).param_groups
    assert [g["weight_decay"] for g in groups] == [0.5] * 5


# --- carried states ----------------------------------------------------------------------------


def test_carried_states_start_the_next_free_phase_nearer_to_its_end() -> None:
    # One sample only: its equilibrium hardly moves from step to step.
    data = clusters(noise=0.0)
    few = Split(data.train.pixels[:1].repeat(32, 0), data.train.y[:1].repeat(32))
    still = Dataset(data.name, few, data.val, data.test, data.classes)
    rested, carried = (
        train(config(carry_states=c, optimiser={"lr": 1e-4}, epochs=3), dataset=still)
        for c in (False, True)
    )
    assert carried.history[-1]["sweeps_free"] < rested.history[-1]["sweeps_free"]


def test_carried_states_are_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match="carry_states: true: estimator 'backprop' has no free"):
        config(estimator={"kind": "backprop"}, carry_states=True)


# --- batches that do not settle ----------------------------------------------------------------

SHORT = {"sweeps": 3, "relaxation": 1.0, "tolerance": 1e-6}


def unsettled(**changes: Any) -> TrainConfig:
    estimator = {"free": SHORT, "nudged": SHORT}
    return config(estimator=estimator, unsettled_limit=0.1, epochs=1, **changes)


def test_an_unsettled_batch_is_used_and_counted_by_default() -> None:
    record = train(unsettled(), dataset=clusters()).history[0]
    assert record["unsettled"] > 0.9
    assert (record["sweeps_free"], record["retries"]) == (3, 0)


def test_an_unsettled_batch_gets_twice_then_four_times_the_sweeps() -> None:
    record = train(unsettled(on_unsettled="more-sweeps"), dataset=clusters()).history[0]
    assert record["retries"] == 2
    assert record["sweeps_free"] > 6


def test_more_sweeps_stop_at_what_is_enough() -> None:
    enough = {**SCHEDULE, "sweeps": 40}
    chosen = config(
        estimator={"free": {**enough, "sweeps": 15}, "nudged": enough},
        on_unsettled="more-sweeps",
        epochs=1,
    )
    assert train(chosen, dataset=clusters()).history[0]["retries"] <= 1


def test_an_unsettled_batch_stops_the_run_after_saving_if_told_so(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        train(unsettled(on_unsettled="stop"), tmp_path, dataset=clusters())
    text = str(caught.value)
    assert text.startswith("training, epoch 1: 100% of the batch did not settle")
    assert "unsettled_limit 0.1" in text
    assert "\n" not in text
    fresh = Network(config().spec(), 0)
    assert same(load_model(tmp_path / "last").network, fresh)


def test_settling_health_is_in_the_metrics() -> None:
    history = train(config(epochs=2), dataset=clusters()).history
    assert all(0 < record["spectral_radius"] < 5 for record in history)
    assert all(record["residual"] <= 1e-4 for record in history)


def test_validation_every_so_many_epochs_ends_with_the_last(tmp_path: Path) -> None:
    result = train(config(epochs=5, validate_every=2), tmp_path, dataset=clusters())
    validated = [r["epoch"] for r in result.history if "val_accuracy" in r]
    assert validated == [2, 4, 5]
    best = max(r.get("val_accuracy", 0.0) for r in result.history)
    assert result.model.metadata["val_accuracy"] == best
    assert "nan" not in (tmp_path / "curves.svg").read_text().lower()


def test_how_often_it_is_validated_moves_no_weight() -> None:
    often, once = (
        train(config(epochs=3, validate_every=every), dataset=clusters()) for every in (1, 3)
    )
    assert learned(often)[-1]["loss"] == learned(once)[-1]["loss"]


def test_label_smoothing_spreads_the_target_over_the_classes(monkeypatch: Any) -> None:
    seen = []
    exact = Centered.__call__

    def watched(self: Any, network: Network, x: Any, y: Any, **start: Any) -> Any:
        seen.append(y)
        return exact(self, network, x, y, **start)

    monkeypatch.setattr(Centered, "__call__", watched)
    train(config(epochs=1, label_smoothing=0.3), dataset=clusters())
    targets = torch.cat(seen).flatten(1)
    assert torch.allclose(targets.sum(1), torch.ones(len(targets)))
    assert torch.allclose(targets.max(1).values, torch.tensor(0.7 + 0.3 / targets.shape[1]))
    assert torch.allclose(targets.min(1).values, torch.tensor(0.3 / targets.shape[1]))


# --- saving and resuming within an epoch -------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> tuple[TrainConfig, TrainResult]:
    """A configuration that saves at each step, and what it trains without an interruption."""
    chosen = on_images(save_minutes=1e-9, carry_states=True, batch=8, epochs=2)
    return chosen, train(chosen, dataset=squares())


@pytest.mark.parametrize("step", [1, 2, 5])
def test_resuming_within_an_epoch_is_bit_identical(
    tmp_path: Path, whole: tuple[TrainConfig, TrainResult], step: int
) -> None:
    chosen, undisturbed = whole
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(chosen, broken, dataset=squares(), monitor=interrupt_at(step + 1))
    state = load_state(broken / "last")
    assert len(state["history"]) * 4 + state["epoch"]["step"] == step
    resumed = train(chosen, broken, dataset=squares(), resume=True)
    assert same(resumed.model.network, undisturbed.model.network)
    assert learned(resumed) == learned(undisturbed)


def test_killed_at_a_random_moment_and_resumed_the_weights_are_the_same(tmp_path: Path) -> None:
    chosen = on_images(save_minutes=0, epochs=25, batch=8)
    whole: TrainResult = train(chosen, dataset=squares())
    place, busy = tmp_path / "run", chosen.model_copy(update={"save_minutes": 1e-9})
    process = fork(partial(train, busy, place, dataset=squares()))
    try:
        while not (place / "last" / "state.json").is_file():
            assert process.is_alive()
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, 0.5))
    finally:
        process.kill()
        process.join()
    reached = len(load_state(place / "last")["history"])
    assert reached < 25, "killed too late to tell"
    (place / ".last.0123abcd.tmp").mkdir()
    resumed = train(chosen, place, dataset=squares(), resume=True)
    assert same(resumed.model.network, whole.model.network)
    assert learned(resumed) == learned(whole)
    assert not list(place.glob(".*"))


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_previous_one(
    tmp_path: Path,
) -> None:
    chosen = config(epochs=3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done: int, total: int, latest: dict[str, float]) -> None:
        if done == 5:
            # From here on no file may grow beyond 500 bytes: the kernel refuses, as a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))

    try:
        with pytest.raises(ModelError, match="cannot be written"):
            train(chosen, tmp_path, dataset=clusters(), monitor=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(load_state(tmp_path / "last")["history"]) == 1
    assert not list(tmp_path.glob(".*"))
    resumed = train(chosen, tmp_path, dataset=clusters(), resume=True)
    whole = train(chosen, dataset=clusters())
    assert same(resumed.model.network, whole.model.network)


@pytest.mark.parametrize("changes", [{"threads": 2}, {"save_minutes": 1.0}, {"device": "cpu"}])
def test_what_changes_no_result_may_change_when_resuming(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    train(config(epochs=1), tmp_path, dataset=clusters())
    resumed = train(config(epochs=1, **changes), tmp_path, dataset=clusters(), resume=True)
    assert len(resumed.history) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_has_its_threads_back_after_a_training(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    during: list[int] = []

    def monitor(*_: object) -> None:
        during.append(torch.get_num_threads())
        if fails:
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt) if fails else contextlib.nullcontext():
            train(config(epochs=1, threads=2), dataset=clusters(), monitor=monitor)
        assert (set(during), torch.get_num_threads()) == ({2}, 1)
    finally:
        torch.set_num_threads(1)


def test_threads_beyond_the_cores_are_told_and_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    during: list[int] = []
    with pytest.warns(UserWarning, match="threads: 5000 on 1 cores would wait .*; 1 are used"):
        train(
            config(epochs=1, threads=5000),
            dataset=clusters(),
            monitor=lambda *_: during.append(torch.get_num_threads()),
        )
    assert set(during) == {1}


# --- where metrics go --------------------------------------------------------------------------


def test_the_curves_are_drawn_at_the_end(tmp_path: Path) -> None:
    train(config(epochs=2), tmp_path, dataset=clusters())
    drawn = (tmp_path / "curves.svg").read_text()
    assert "validation" in drawn
    assert "epochs" in drawn


def test_tensorboard_hears_of_every_epoch_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, key: str, value: float, epoch: int) -> None:
            heard.append((key, value, epoch))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    fake = type(sys)("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    result = train(config(epochs=2), tmp_path, dataset=clusters())
    losses = [(epoch, value) for key, value, epoch in heard if key == "loss"]
    assert losses == [(int(r["epoch"]), r["loss"]) for r in result.history]
    assert {key for key, _, _ in heard} == set(result.history[0]) - {"epoch"}


def test_a_resolved_configuration_with_options_reads_back() -> None:
    chosen = on_images(carry_states=True, on_unsettled="stop", optimiser={"rates": {"h": 2.0}})
    assert build_config(json.loads(json.dumps(chosen.model_dump(mode="json")))) == chosen
