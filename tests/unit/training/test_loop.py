"""Claims about training: repeatable, resumable, honest about splits, and saved when it fails."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.errors import ConfigError, DataError, RunError
from ep_neuro.network.checkpoint import load_model, load_state
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.training import evaluation, loop
from ep_neuro.training.config import Optimiser, TrainConfig, build_config, read_config
from ep_neuro.training.loop import TrainResult, evaluate, train
from ep_neuro.training.optimizer import make_optimiser, make_scheduler
from tests.helpers.problems import interrupt_at

NETWORK: dict[str, Any] = {
    "name": "tiny",
    "input": {"shape": [6]},
    "populations": [
        {"name": "h", "shape": [8]},
        {"name": "output", "shape": [3], "box": None},
    ],
    "couplings": [
        {"pre": "input", "post": "h", "gain": 0.5},
        {"pre": "h", "post": "output", "gain": 0.5},
        {"pre": "input", "post": "output", "gain": 0.5},
    ],
}
SCHEDULE = {"sweeps": 60, "relaxation": 1.2, "tolerance": 1e-4}


def config(**changes: Any) -> TrainConfig:
    return build_config(
        {
            "network": NETWORK,
            "estimator": {"free": SCHEDULE, "nudged": SCHEDULE},
            "evaluation": SCHEDULE,
            "optimiser": {"lr": 0.02, "warmup": 0.2, "weight_decay": 0.01},
            "epochs": 4,
            "batch": 16,
            "average": 0.9,
            **changes,
        }
    )


def clusters(noise: float = 0.2) -> Dataset:
    """Three classes of six pixels, two of them bright; 40, 12 and 15 samples."""
    rng = np.random.default_rng(0)
    centres = np.kron(np.eye(3), [1, 1])

    def split(count: int) -> Split:
        y = np.arange(count, dtype=np.int64) % 3
        x = centres[y] + noise * rng.normal(size=(count, 6))
        return Split(x.astype(np.float32), y)

    return Dataset("clusters", split(40), split(12), split(15), ("a", "b", "c"))


def same(a: Network, b: Network) -> bool:
    theirs = parameter_names(b)
    return all(torch.equal(p, theirs[k]) for k, p in parameter_names(a).items())


def learned(result: TrainResult) -> list[dict[str, float]]:
    """The history without what the clock says."""
    clock = {"seconds", "images_per_second"}
    return [{k: v for k, v in r.items() if k not in clock} for r in result.history]


# --- learning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["centered", "backprop"])
def test_a_tiny_network_learns_three_clusters(estimator: str) -> None:
    chosen: dict[str, Any] = {"kind": estimator}
    if estimator == "centered":
        chosen.update(free=SCHEDULE, nudged=SCHEDULE)
    result = train(config(estimator=chosen, epochs=15), dataset=clusters())
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    assert result.test.accuracy == 1
    assert result.images_per_second > 0


@pytest.mark.parametrize("kind", ["centered", "frozen-mean"])
def test_under_a_cross_entropy_it_learns_them_and_reports_that_loss(kind: str) -> None:
    network = {**NETWORK, "cost": "cross-entropy"}
    chosen = {"kind": kind, "free": SCHEDULE, "nudged": SCHEDULE}
    result = train(config(network=network, estimator=chosen, epochs=15), dataset=clusters())
    losses = [record["loss"] for record in result.history]
    # Of three classes, an untrained network knows about log 3.
    assert losses[0] == pytest.approx(np.log(3), abs=0.5)
    assert losses[-1] < 0.5 * losses[0]
    assert result.test.accuracy == 1


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_one_seed_gives_one_result_and_another_another(kind: str) -> None:
    first, again, other = (
        train(config(optimiser={"kind": kind, "lr": 0.05}, seed=s, epochs=2), dataset=clusters())
        for s in (0, 0, 1)
    )
    assert same(first.model.network, again.model.network)
    assert learned(first) == learned(again)
    assert not same(first.model.network, other.model.network)


def test_each_epoch_sees_every_sample_once_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[np.ndarray] = []
    step = loop._Run._step

    def watched(run: Any, index: torch.Tensor) -> Any:
        seen.append(index.numpy())
        return step(run, index)

    monkeypatch.setattr(loop._Run, "_step", watched)
    train(config(epochs=2), dataset=clusters())
    orders = [np.concatenate(seen[:3]), np.concatenate(seen[3:])]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert not np.array_equal(*orders)


# --- splits ------------------------------------------------------------------------------------


def test_the_test_split_is_read_once_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def watched(network: Network, split: Split, *rest: Any, **more: Any) -> Any:
        read.append(len(split))
        return evaluate(network, split, *rest, **more)

    monkeypatch.setattr(loop, "evaluate", watched)
    train(config(epochs=3), dataset=clusters())
    assert read == [12, 12, 12, 15]


def test_the_test_split_has_no_say_in_the_model() -> None:
    data = clusters()
    flipped = Split(data.test.x, (data.test.y + 1) % 3)
    other = Dataset(data.name, data.train, data.val, flipped, data.classes)
    first, second = (train(config(epochs=3), dataset=d) for d in (data, other))
    assert same(first.model.network, second.model.network)
    assert learned(first) == learned(second)
    assert first.test.accuracy != second.test.accuracy


def test_validation_picks_the_model_that_is_kept(tmp_path: Path) -> None:
    data, chosen = clusters(noise=0.9), config(epochs=8, optimiser={"lr": 0.2}, average=0)
    result = train(chosen, tmp_path, dataset=data)
    best = max(r["val_accuracy"] for r in result.history)
    worst = min(r["val_accuracy"] for r in result.history)
    kept = load_model(tmp_path / "best")
    assert worst < best
    assert same(kept.network, result.model.network)
    assert evaluate(kept.network, data.val, chosen.evaluation).accuracy == best
    assert kept.metadata["val_accuracy"] == best
    tested = evaluate(kept.network, data.test, chosen.evaluation).accuracy
    assert kept.metadata["test_accuracy"] == tested == result.test.accuracy


def test_data_that_do_not_fit_the_network_are_refused() -> None:
    data = clusters()
    wide = Split(np.zeros((4, 7), np.float32), data.train.y[:4])
    with pytest.raises(DataError, match=r"samples are \[7\], network 'tiny' takes \[6\]"):
        train(config(), dataset=Dataset("wide", wide, wide, wide, data.classes))
    with pytest.raises(DataError, match="2 classes, network 'tiny' has 3 outputs"):
        train(config(), dataset=Dataset("few", data.train, data.val, data.test, ("a", "b")))


# --- the run directory and resuming ------------------------------------------------------------


def test_the_run_directory_holds_what_its_readers_need(tmp_path: Path) -> None:
    result = train(config(epochs=2), tmp_path, dataset=clusters())
    assert {p.name for p in tmp_path.iterdir()} == {
        "best",
        "last",
        "config.yaml",
        "metrics.jsonl",
        "curves.svg",
    }
    assert read_config(str(tmp_path / "config.yaml")) == config(epochs=2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history
    assert [r["epoch"] for r in result.history] == [1, 2]


@pytest.fixture(scope="module", params=["adam", "sgd"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, Path, TrainResult]:
    """A configuration, and what it trains without an interruption."""
    optimiser = {"kind": request.param, "lr": 0.05, "warmup": 0.3, "weight_decay": 0.1}
    chosen, place = config(optimiser=optimiser), tmp_path_factory.mktemp("whole")
    return chosen, place, train(chosen, place, dataset=clusters())


@pytest.mark.parametrize("step", [4, 5, 8])
def test_resuming_ends_in_bit_identical_weights(
    tmp_path: Path, whole: tuple[TrainConfig, Path, TrainResult], step: int
) -> None:
    chosen, place, undisturbed = whole
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(chosen, broken, dataset=clusters(), monitor=interrupt_at(step))
    assert len(load_state(broken / "last")["history"]) == (step - 1) // 3
    resumed = train(chosen, broken, dataset=clusters(), resume=True)
    assert same(resumed.model.network, undisturbed.model.network)
    assert learned(resumed) == learned(undisturbed)
    for name in ("best", "last"):
        mine, theirs = (load_model(run / name) for run in (broken, place))
        assert same(mine.network, theirs.network)


def test_resuming_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    done = train(config(epochs=2), tmp_path, dataset=clusters())
    steps: list[int] = []
    again = train(
        config(epochs=2), tmp_path, dataset=clusters(), resume=True,
        monitor=lambda step, total, latest: steps.append(step),
    )  # fmt: skip
    assert steps == []
    assert same(again.model.network, done.model.network)
    assert again.test.accuracy == done.test.accuracy


def test_resuming_tells_of_an_epoch_that_was_saved_and_not_yet_told_of(tmp_path: Path) -> None:
    train(config(epochs=2), tmp_path, dataset=clusters())
    told = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(told.splitlines(keepends=True)[0])
    train(config(epochs=2), tmp_path, dataset=clusters(), resume=True)
    assert (tmp_path / "metrics.jsonl").read_text() == told


def test_resuming_where_nothing_is_starts_from_the_beginning(tmp_path: Path) -> None:
    resumed = train(config(epochs=1), tmp_path / "new", dataset=clusters(), resume=True)
    assert same(resumed.model.network, train(config(epochs=1), dataset=clusters()).model.network)


def test_resuming_with_another_configuration_is_refused(tmp_path: Path) -> None:
    train(config(epochs=1), tmp_path, dataset=clusters())
    with pytest.raises(ConfigError) as caught:
        train(config(epochs=2, batch=8), tmp_path, dataset=clusters(), resume=True)
    assert f"--resume {tmp_path}: its 'batch' is 16, the configuration says 8" in str(caught.value)
    assert "resume with its own config.yaml" in str(caught.value)


# --- failing -----------------------------------------------------------------------------------


def test_a_gradient_that_is_not_finite_stops_the_run_and_the_last_epoch_stays(
    tmp_path: Path,
) -> None:
    data = clusters()

    def poison(done: int, total: int, latest: dict[str, float]) -> None:
        if latest["epoch"] == 2:
            data.train.x[:] = np.nan

    with pytest.raises(RunError) as caught:
        train(config(), tmp_path, dataset=data, monitor=poison)
    text = str(caught.value)
    assert text.startswith("training, epoch 2: the gradient of ")
    assert "is not finite" in text
    assert "lower optimiser.lr" in text
    assert load_model(tmp_path / "last").metadata["epochs"] == 1
    assert all(p.isfinite().all() for p in load_model(tmp_path / "last").network.parameters())


def test_evaluation_reports_the_samples_that_did_not_settle() -> None:
    network = Network(config().spec())
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= 10
    schedule = {"method": "synchronous", "sweeps": 40, "relaxation": 1.0}
    found = evaluate(network, clusters().test, config(evaluation=schedule).evaluation, batch=4)
    assert found.unsettled > 0
    assert found.residual > 1e-2
    assert found.outputs.shape == (15, 3)


def test_evaluation_does_not_depend_on_the_batch() -> None:
    result = train(config(epochs=3), dataset=clusters())
    tight = config(evaluation={"sweeps": 500, "tolerance": 1e-6}).evaluation
    a, b = (evaluate(result.model.network, clusters().test, tight, batch=n) for n in (1, 15))
    assert a.accuracy == b.accuracy
    np.testing.assert_allclose(a.outputs, b.outputs, atol=1e-4)


def test_evaluation_settles_no_more_samples_at_once_than_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, sizes = Network(config().spec()), []
    neurons = sum(math.prod(shape) for shape in network.spec.shapes.values())
    monkeypatch.setattr(evaluation, "BATCH_NUMBERS", 4 * neurons + 1)
    settle = network.settle
    monkeypatch.setattr(network, "settle", lambda x, how: sizes.append(len(x)) or settle(x, how))
    evaluate(network, clusters().test, config().evaluation)
    assert sizes == [4, 4, 4, 3]


# --- the schedule of the learning rate ---------------------------------------------------------


def rates(chosen: Optimiser, steps: int) -> list[float]:
    optimiser = make_optimiser(chosen, Network(config().spec()))
    scheduler = make_scheduler(chosen, optimiser, steps)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return [*found, optimiser.param_groups[0]["lr"]]


def test_the_rate_rises_linearly_and_falls_as_a_cosine_to_zero() -> None:
    found = rates(Optimiser(lr=0.4, warmup=0.2), 50)
    warm, cosine = found[:10], found[10:]
    assert np.allclose(np.diff(warm), 0.4 / 11)
    assert max(found) == cosine[0] == pytest.approx(0.4)
    assert cosine[20] == pytest.approx(0.2)
    assert cosine[-1] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(cosine))


def test_without_a_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rates(Optimiser(lr=0.4), 10)[0] == pytest.approx(0.4)


@pytest.mark.parametrize(("kind", "factor"), [("adam", 0.95), ("sgd", 0.905)])
def test_weights_decay_and_biases_do_not(kind: str, factor: float) -> None:
    # Without a gradient: Adam decays by lr * decay, Nesterov's first step looks 0.9 further ahead.
    chosen = Optimiser.model_validate({"kind": kind, "lr": 0.1, "weight_decay": 0.5})
    network = Network(config().spec())
    with torch.no_grad():
        for bias in network.biases.values():
            bias.fill_(1.0)
    before = {k: p.detach().clone() for k, p in parameter_names(network).items()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimiser(chosen, network).step()
    for name, parameter in parameter_names(network).items():
        expected = before[name] * (factor if name.startswith("weight/") else 1)
        torch.testing.assert_close(parameter.detach(), expected)
