"""The training loop: epochs of gradient estimates, validation, metrics, checkpoints."""

from __future__ import annotations

import contextlib
import copy
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.deployment.dynamics import Deployment
from ep_neuro.errors import ConfigError, RunError
from ep_neuro.estimators.baselines import CALIBRATION, Backprop, FeedForwardTwin
from ep_neuro.network.checkpoint import Model, load_model, load_state, save_model
from ep_neuro.network.network import Network
from ep_neuro.network.ranges import RANGES, measure_ranges
from ep_neuro.network.stability import spectral_radius
from ep_neuro.network.whitening import whiten
from ep_neuro.storage.atomic import remove_leftovers, write_atomic
from ep_neuro.storage.yaml_io import dump_yaml
from ep_neuro.training.class_weights import class_weights
from ep_neuro.training.config import TrainConfig, located
from ep_neuro.training.distributed import Ranks, join
from ep_neuro.training.evaluation import Evaluation, as_unit, evaluate, joined
from ep_neuro.training.metrics import CONFIG, Record, RunLog, Tally, write_metrics
from ep_neuro.training.run_directory import MARKER, claimed, clear, keep_start
from ep_neuro.training.train_step import Stepper

FREE_TO_CHANGE = {"epochs", "data_root", "device", "plugins", "save_minutes", "threads"}
"""Keys in which a resumed run may differ from what it resumes."""

RANGE_SAMPLES = 256
"""Validation samples that the ranges of the states are taken from."""

RADIUS_SAMPLES = 32
"""Validation samples over which the spectral radius is taken."""

Monitor = Callable[[int, int, Record], None]
"""Progress: called with (steps done, steps in all, the latest metrics)."""


@dataclass(frozen=True)
class TrainResult:
    """The trained model, its metrics by epoch, and its accuracy on the test split."""

    model: Model
    history: list[Record]
    test: Evaluation
    images_per_second: float

    @property
    def gradient_cosine(self) -> float | None:
        """Least cosine of the gradient to the implicit one; None where it was not measured."""
        found = [r["gradient_cosine"] for r in self.history if "gradient_cosine" in r]
        return min(found, default=None)


def train(
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    dataset: Dataset | None = None,
    resume: bool = False,
    force: bool = False,
    monitor: Monitor | None = None,
) -> TrainResult:
    """Train as `config` says; the test split is read once, at the end.

    Under torchrun each process takes its part of every batch, with the result of a single one.

    Parameters
    ----------
    config : TrainConfig
        What to do.
    out : path, optional
        Run directory: ``config.yaml``, ``metrics.jsonl``, ``curves.svg``, ``last`` (to resume
        from) and ``best`` (on validation; the later of equals). No other training gets in while
        this one is going on.
    dataset : Dataset, optional
        Data in memory instead of ``config.data``.
    resume : bool
        Go on from ``last``, if it is there, with the same result as without the interruption: on
        one CPU, bit for bit.
    force : bool
        Replace the run that stands in `out`, once there is something to replace it with.
    monitor : callable, optional
        Told of every step.

    Raises
    ------
    ConfigError
        If `resume` meets another configuration, or `out` holds a run and neither `resume` nor
        `force` is set, or something else than a run.
    RunError
        If the gradient is no longer finite, or, by the rule ``on_unsettled: stop``, if a batch does
        not settle; the weights before that step are then on disk.
    """
    place = None if out is None else Path(out)
    if force and place is not None:
        keep_start(config.start, place)
    with (
        _threads(config.threads),
        join(config.device) as ranks,
        claimed(place if ranks.leads else None, resume=resume, force=force),
    ):
        if dataset is None:
            wanted = config.data, config.data_root, config.spec(), config.resize
            dataset = ranks.in_turn(lambda: datasets.load_fitted(*wanted))
        else:
            dataset = datasets.fitted(dataset, config.spec())
        run = _Run(config, dataset, place, monitor, ranks)
        if not (resume and run.restore()):
            run.begin()
        while run.epoch < config.epochs:
            run.advance()
        return run.finish()


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """So many threads of torch; afterwards those of before, which are the whole process's."""
    before, cores = torch.get_num_threads(), os.cpu_count() or 1
    if number > cores:
        # Threads that wait for a core are slower than none: 64 on two cores, thirteen times.
        text = f"threads: {number} on {cores} cores would wait for each other; {cores} are used"
        warnings.warn(text, stacklevel=4)
    torch.set_num_threads(min(number, cores))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run:
    """The state of a training run between steps."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        out: Path | None,
        monitor: Monitor | None,
        ranks: Ranks,
    ) -> None:
        self.config, self.dataset, self.ranks = config, dataset, ranks
        self.out = out if ranks.leads else None
        self.monitor = monitor if ranks.leads else None
        # Of the run directory all ranks know, and rank 0 alone writes there.
        self.place = out
        begun = config.begin()
        begun.network.class_weights = class_weights(config.class_weights, dataset, config.estimator)
        self.network, self.origin = begun.network.to(ranks.device), begun.metadata
        if config.start is None:
            whiten(self.network, dataset.train.pixels)
        self.best = copy.deepcopy(self.network)
        self.steps_an_epoch = -(-len(dataset.train) // config.batch)
        steps = config.epochs * self.steps_an_epoch
        self.stepper = Stepper(config, dataset.train, self.network, steps, ranks)
        self.history: list[Record] = []
        # Of the epoch that has begun: steps done, their metrics, seconds.
        self.step, self.tally, self.seconds = 0, Tally(), 0.0
        self.log = RunLog(self.out)
        self.saved_at = time.monotonic()

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def candidate(self) -> Network:
        """The network that is validated: the running average, if any, without batch norm."""
        network = self.stepper.averaged.module if self.config.average else self.network
        assert isinstance(network, Network)
        estimator = self.config.estimator
        if not (isinstance(estimator, Backprop) and estimator.batch_norm):
            return network
        # Evenly over the split, which may be sorted by class.
        some = self.dataset.train.pixels[:: -(-len(self.dataset.train) // CALIBRATION)]
        images = as_unit(torch.from_numpy(some).to(self.ranks.device))
        return FeedForwardTwin(network, batch_norm=True).folded(images)

    def begin(self) -> None:
        """Make the run directory one of ours, whatever happens later; an earlier run goes."""
        if self.out is not None:
            clear(self.out)
        self._save_last()
        self._write_config()

    def _write_config(self) -> None:
        """Write the resolved configuration; a killed run's half-written files go."""
        if self.out is not None:
            remove_leftovers(self.out)
            write_atomic(self.out / CONFIG, dump_yaml(located(self._config())).encode())

    def advance(self) -> None:
        """What is left of an epoch: train, validate, save."""
        for index in self._batches()[self.step :]:
            started = time.perf_counter()
            try:
                measured = self._step(index)
            except RunError:
                self._save_last()
                raise
            self.tally.add(measured, len(index))
            self.seconds += time.perf_counter() - started
            self.step += 1
            self._tell()
            if 0 < 60 * self.config.save_minutes <= time.monotonic() - self.saved_at:
                self._save_last()
        record = self._record()
        so_far = self._best_accuracy()
        self.history.append(record)
        self.step, self.tally, self.seconds = 0, Tally(), 0.0
        if record.get("val_accuracy", -1.0) >= (0.0 if so_far is None else so_far):
            self.best = copy.deepcopy(self.candidate)
            self._save("best", self.best)
        self._save_last()
        self.log.write(self.history)

    def _tell(self) -> None:
        if self.monitor is not None:
            done = self.epoch * self.steps_an_epoch + self.step
            latest = self.history[-1] if self.history else {}
            total = self.config.epochs * self.steps_an_epoch
            self.monitor(done, total, {**latest, "epoch": self.epoch + 1})

    def _record(self) -> Record:
        """The metrics of the epoch that has just been trained."""
        record = {
            "epoch": self.epoch + 1,
            **self.tally.record(),
            "lr": self.stepper.optimiser.param_groups[0]["lr"],
            "seconds": self.seconds,
            "images_per_second": len(self.dataset.train) / self.seconds,
        }
        last = self.epoch + 1 == self.config.epochs
        if last or (self.epoch + 1) % self.config.validate_every == 0:
            record |= self._validation()
        return record

    def _validation(self) -> Record:
        """Accuracy and settling of the candidate on the validation split."""
        network = self.candidate
        found = self._evaluate(network, self.dataset.val)
        record = {
            "val_accuracy": found.accuracy,
            "val_residual": found.residual,
            "val_unsettled": found.unsettled,
        }
        if not isinstance(self.config.estimator, Backprop):
            few = torch.from_numpy(self.dataset.val.head(RADIUS_SAMPLES).x).to(self.ranks.device)
            record["spectral_radius"] = spectral_radius(network, few, self.config.evaluation)
        return record

    def _best_accuracy(self) -> float | None:
        """The highest validation accuracy so far; None before the first."""
        seen = [r["val_accuracy"] for r in self.history if "val_accuracy" in r]
        return max(seen, default=None)

    def _batches(self) -> list[Tensor]:
        # Seeded by the epoch, so that a resumed run sees the same order without a stored RNG state.
        generator = torch.Generator().manual_seed(self._seed())
        order = torch.randperm(len(self.dataset.train), generator=generator)
        return list(order.split(self.config.batch))

    def _seed(self) -> int:
        return self.config.seed * 100_003 + self.epoch

    def _step(self, index: Tensor) -> Record:
        seed = self._seed() * 1_000_003 + self.step + 1
        return self.stepper(index, seed, f"training, epoch {self.epoch + 1}")

    def _evaluate(self, network: Network, split: Split) -> Evaluation:
        """Accuracy on `split`, of which each rank settles its part."""
        estimator = self.config.estimator
        feedforward = isinstance(estimator, Backprop)
        deployed = estimator if isinstance(estimator, Deployment) else None
        index = self.ranks.share(torch.arange(len(split))).numpy()
        mine, schedule = split.at(index), self.config.evaluation
        found = evaluate(network, mine, schedule, feedforward=feedforward, deployed=deployed)
        return joined(self.ranks.gather(found))

    # --- on disk -------------------------------------------------------------------------------

    def _config(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json")

    def _origin(self) -> dict[str, str | None]:
        """What the run is made of, known by what it holds, wherever it lies."""
        start = self.origin.get("start.sha256")
        return {"data.sha256": self.dataset.digest, "start.sha256": start}

    def _state(self) -> dict[str, Any]:
        return {
            "config": {k: v for k, v in self._config().items() if k not in FREE_TO_CHANGE},
            "origin": self._origin(),
            "history": self.history,
            "epoch": {"step": self.step, "seconds": self.seconds, **vars(self.tally)},
            "best": self.best.state_dict(),
            **self.stepper.state(),
        }

    def restore(self) -> bool:
        """Go back to the last step on disk; False if there is none."""
        found = self.ranks.from_leader(self._read)
        if found is None:
            return False
        spec, parameters, state = found
        self._refuse_another(spec, state)
        self.network.load_state_dict(parameters)
        self.stepper.restore(state)
        self.best.load_state_dict(state["best"])
        self.history = [dict(r) for r in state["history"]]
        begun = state["epoch"]
        self.step, self.seconds = begun["step"], begun["seconds"]
        done = self.step * self.config.batch
        counts = begun.get("samples", dict.fromkeys(begun["sums"], done))
        self.tally = Tally(begun["sums"], counts)
        self._write_config()
        if self.out is not None and self.history:
            # A run that was stopped between the two had saved an epoch and not yet told of it.
            write_metrics(self.history, self.out)
        return True

    def _refuse_another(self, spec: dict[str, Any], state: dict[str, Any]) -> None:
        """Raise `ConfigError` if the run on disk is of another configuration, or of other data."""
        mine = located(self._config()) | self._origin()
        # A key that the version before did not have is at its default.
        defaults = TrainConfig().model_dump(mode="json", exclude=FREE_TO_CHANGE)
        theirs = located(defaults | state["config"]) | state.get("origin", {})
        same = {"network"} if spec == self.network.spec.to_dict() else set()
        same |= {"data", "start"} if "origin" in state else set()
        for key in [k for k in mine if k in theirs and k not in same]:
            if theirs[key] != mine[key]:
                raise ConfigError(
                    f"--resume {self.place}",
                    f"its '{key}' is {theirs[key]}, the configuration says {mine[key]}",
                    "resume with its own config.yaml, or train into another directory",
                )

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]] | None:
        if self.out is None or not (self.out / MARKER).is_file():
            return None
        network = load_model(self.out / "last").network
        return network.spec.to_dict(), network.state_dict(), load_state(self.out / "last")

    def finish(self) -> TrainResult:
        """Test the best network on the test split, once, and write its accuracy beside it."""
        test = self._evaluate(self.best, self.dataset.test)
        self.best.class_weights = None
        few = torch.from_numpy(self.dataset.val.head(RANGE_SAMPLES).x).to(self.ranks.device)
        ranges = measure_ranges(self.best, few, self.config.evaluation)
        found = {RANGES: ranges, "test_accuracy": test.accuracy}
        model = Model(self.best.cpu(), {**self._metadata(), **found})
        if self.out is not None:
            save_model(model, self.out / "best")
        asked = None if self.config.truth is None else self.config.truth.cosine
        self.log.close(self.network.spec.name, self.history, asked)
        speed = float(np.median([r["images_per_second"] for r in self.history]))
        return TrainResult(model, self.history, test, speed)

    def _metadata(self) -> dict[str, Any]:
        deployed = self.config.estimator
        return {
            **self.origin,
            **datasets.identity(self.dataset),
            "seed": self.config.seed,
            "epochs": self.epoch,
            "estimator": self.config.estimator.kind,
            **(deployed.notes() if isinstance(deployed, Deployment) else {}),
            "val_accuracy": self._best_accuracy(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }

    def _save_last(self) -> None:
        self._save("last", self.network, self._state())
        self.saved_at = time.monotonic()

    def _save(self, name: str, network: Network, state: dict[str, Any] | None = None) -> None:
        if self.out is not None:
            save_model(Model(network, self._metadata()), self.out / name, state)
