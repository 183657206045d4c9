"""The training loop: epochs of gradient estimates, validation, metrics, checkpoints."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ep_neuro import data as datasets
from ep_neuro.baselines import CALIBRATION, Backprop, FeedForwardTwin
from ep_neuro.checkpoint import STATE, Model, load_model, load_state, save_model
from ep_neuro.config import TrainConfig
from ep_neuro.data import Dataset, Split
from ep_neuro.deployed import Deployment
from ep_neuro.distributed import Ranks, join
from ep_neuro.errors import ConfigError, RunError
from ep_neuro.files import remove_leftovers, write_atomic
from ep_neuro.health import spectral_radius
from ep_neuro.network import Network
from ep_neuro.optimisers import make_optimiser, make_scheduler
from ep_neuro.run_log import Record, RunLog, Tally
from ep_neuro.settle import Schedule
from ep_neuro.step import Stepper
from ep_neuro.whitening import whiten

__all__ = [
    "Evaluation",
    "Monitor",
    "Record",
    "TrainResult",
    "evaluate",
    "make_optimiser",
    "make_scheduler",
    "train",
]

FREE_TO_CHANGE = {"epochs", "data_root", "device", "plugins", "save_minutes", "threads"}
"""Keys in which a resumed run may differ from what it resumes."""

RADIUS_SAMPLES = 32
"""Validation samples over which the spectral radius is taken."""

Monitor = Callable[[int, int, Record], None]
"""Progress: called with (steps done, steps in all, the latest metrics)."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of the settled network, and how well it settled.

    Attributes
    ----------
    accuracy : float
        Share of samples whose largest output is their label.
    outputs : ndarray, (N, classes)
    residual : float
        Largest residual of any sample, in heights of the box.
    unsettled : float
        Share of samples above the tolerance.
    sweeps : float
        Mean sweeps a batch.
    """

    accuracy: float
    outputs: np.ndarray
    residual: float
    unsettled: float
    sweeps: float


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


def evaluate(
    network: Network,
    split: Split,
    schedule: Schedule,
    *,
    batch: int = 360,
    feedforward: bool = False,
    deployed: Deployment | None = None,
) -> Evaluation:
    """Settle every sample of `split` freely and read the largest output.

    With `feedforward`, one pass of the feed-forward twin takes the place of settling; with
    `deployed`, the free phase of the compiled network does.
    """
    device = next(network.parameters()).device
    outputs, residuals, sweeps = [], [], []
    with torch.no_grad():
        for start in range(0, len(split), batch):
            x = _unit(torch.from_numpy(split.pixels[start : start + batch]).to(device))
            if feedforward:
                outputs.append(network.scores(FeedForwardTwin(network)(x)).cpu())
                continue
            if deployed is None:
                result = network.settle(x, schedule)
            else:
                result = deployed.settle(network, x)
            outputs.append(network.scores(result.state[network.spec.output]).cpu())
            residuals.append(result.residual.cpu())
            sweeps.append(result.sweeps)
    values = torch.cat(outputs).numpy()
    residual = torch.cat(residuals) if residuals else torch.zeros(1)
    tolerance = schedule.tolerance if deployed is None else deployed.tolerance
    return Evaluation(
        accuracy=float((values.argmax(1) == split.y).mean()),
        outputs=values,
        residual=float(residual.max()),
        # A residual that is not a number has not met the tolerance either.
        unsettled=float((~(residual <= tolerance)).float().mean()),
        sweeps=float(np.mean(sweeps)) if sweeps else 1.0,
    )


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of several parts of a split, in order, as one."""
    samples = [len(part.outputs) for part in parts]
    mean = partial(np.average, weights=samples)
    return Evaluation(
        accuracy=float(mean([part.accuracy for part in parts])),
        outputs=np.concatenate([part.outputs for part in parts]),
        residual=max(part.residual for part in parts),
        unsettled=float(mean([part.unsettled for part in parts])),
        sweeps=float(mean([part.sweeps for part in parts])),
    )


def _unit(pixels: Tensor) -> Tensor:
    """Stored pixels as numbers from 0 to 1."""
    return pixels if pixels.is_floating_point() else pixels.float() / 255


def train(
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    dataset: Dataset | None = None,
    resume: bool = False,
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
        from) and ``best`` (on validation; the later of equals).
    dataset : Dataset, optional
        Data in memory instead of ``config.data``.
    resume : bool
        Go on from ``last``, if it is there, with the same result as without the interruption: on
        one CPU, bit for bit.
    monitor : callable, optional
        Told of every step.

    Raises
    ------
    ConfigError
        If `resume` meets another configuration.
    RunError
        If the gradient is no longer finite, or, by the rule ``on_unsettled: stop``, if a batch does
        not settle; the weights before that step are then on disk.
    """
    with _threads(config.threads), join(config.device) as ranks:
        if dataset is None:
            dataset = ranks.in_turn(lambda: datasets.load(config.data, config.data_root))
        dataset = datasets.fitted(dataset, config.spec())
        run = _Run(config, dataset, Path(out) if out is not None else None, monitor, ranks)
        if resume:
            run.restore()
        run.start()
        while run.epoch < config.epochs:
            run.advance()
        return run.finish()


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """So many threads of torch; afterwards those of before, which are the whole process's."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
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
        self.network, self.origin = begun.network.to(ranks.device), begun.metadata
        if config.start is None:
            whiten(self.network, dataset.train.pixels)
        self.best = self._copy(self.network)
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
        return FeedForwardTwin(network, batch_norm=True).folded(self._pixels(some))

    def _pixels(self, stored: np.ndarray) -> Tensor:
        return _unit(torch.from_numpy(stored).to(self.ranks.device))

    def start(self) -> None:
        """Write the resolved configuration; a killed run's half-written files go."""
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.out)
            write_atomic(self.out / "config.yaml", self.config.to_yaml().encode())

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
        so_far = max((r["val_accuracy"] for r in self.history), default=-1.0)
        self.history.append(record)
        self.step, self.tally, self.seconds = 0, Tally(), 0.0
        if record["val_accuracy"] >= so_far:
            self.best = self._copy(self.candidate)
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
        samples = len(self.dataset.train)
        validation = self._evaluate(self.candidate, self.dataset.val)
        record = {
            "epoch": self.epoch + 1,
            **self.tally.record(),
            "val_accuracy": validation.accuracy,
            "val_residual": validation.residual,
            "val_unsettled": validation.unsettled,
            "lr": self.stepper.optimiser.param_groups[0]["lr"],
            "seconds": self.seconds,
            "images_per_second": samples / self.seconds,
        }
        if not isinstance(self.config.estimator, Backprop):
            few = torch.from_numpy(self.dataset.val.head(RADIUS_SAMPLES).x).to(self.ranks.device)
            record["spectral_radius"] = spectral_radius(self.candidate, few, self.config.evaluation)
        return record

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
        mine = Split(split.pixels[index], split.y[index])
        schedule = self.config.evaluation
        found = evaluate(network, mine, schedule, feedforward=feedforward, deployed=deployed)
        return joined(self.ranks.gather(found))

    # --- on disk -------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json", exclude=FREE_TO_CHANGE),
            "history": self.history,
            "epoch": {"step": self.step, "seconds": self.seconds, **vars(self.tally)},
            "best": self.best.state_dict(),
            **self.stepper.state(),
        }

    def restore(self) -> None:
        """Go back to the last step on disk, if there is one."""
        found = self.ranks.from_leader(self._read)
        if found is None:
            return
        parameters, state = found
        mine = self._state()["config"]
        # A key that the version before did not have is at its default.
        begun_as = TrainConfig().model_dump(mode="json") | state["config"]
        for key in mine:
            if (theirs := begun_as[key]) != mine[key]:
                raise ConfigError(
                    f"--resume {self.place}",
                    f"its '{key}' is {theirs}, the configuration says {mine[key]}",
                    "resume with its own config.yaml, or train into another directory",
                )
        self.network.load_state_dict(parameters)
        self.stepper.restore(state)
        self.best.load_state_dict(state["best"])
        self.history = [dict(r) for r in state["history"]]
        begun = state["epoch"]
        self.step, self.seconds = begun["step"], begun["seconds"]
        done = self.step * self.config.batch
        counts = begun.get("samples", dict.fromkeys(begun["sums"], done))
        self.tally = Tally(begun["sums"], counts)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if self.out is None or not (self.out / "last" / STATE).is_file():
            return None
        return load_model(self.out / "last").network.state_dict(), load_state(self.out / "last")

    def finish(self) -> TrainResult:
        """Test the best network on the test split, once, and write its accuracy beside it."""
        test = self._evaluate(self.best, self.dataset.test)
        model = Model(self.best.cpu(), {**self._metadata(), "test_accuracy": test.accuracy})
        if self.out is not None:
            save_model(model, self.out / "best")
        asked = None if self.config.truth is None else self.config.truth.cosine
        self.log.close(self.network.spec.name, self.history, asked)
        speed = float(np.median([r["images_per_second"] for r in self.history]))
        return TrainResult(model, self.history, test, speed)

    def _metadata(self) -> dict[str, Any]:
        return {
            **self.origin,
            "data": self.config.data,
            "seed": self.config.seed,
            "epochs": self.epoch,
            "estimator": self.config.estimator.kind,
            **self._deployment(),
            "val_accuracy": max((r["val_accuracy"] for r in self.history), default=None),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }

    def _deployment(self) -> dict[str, Any]:
        estimator = self.config.estimator
        if not isinstance(estimator, Deployment):
            return {}
        kept = {"code", "bits", "steps", "leak"}
        if estimator.code == "sigma-delta":
            kept |= {"precision", "start", "end", "decay"}
        return {"deployed": estimator.model_dump(include=kept)}

    def _save_last(self) -> None:
        self._save("last", self.network, self._state())
        self.saved_at = time.monotonic()

    def _save(self, name: str, network: Network, state: dict[str, Any] | None = None) -> None:
        if self.out is not None:
            save_model(Model(network, self._metadata()), self.out / name, state)

    @staticmethod
    def _copy(network: Network) -> Network:
        twin = Network(network.spec).to(next(network.parameters()).device)
        twin.load_state_dict(network.state_dict())
        return twin
