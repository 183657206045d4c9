"""The training loop: epochs of gradient estimates, validation, metrics, checkpoints."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ep_neuro import data as datasets
from ep_neuro.baselines import Backprop, FeedForwardTwin
from ep_neuro.checkpoint import STATE, Model, load_model, load_state, save_model
from ep_neuro.config import Optimiser, TrainConfig
from ep_neuro.costs import one_hot, squared_error
from ep_neuro.data import Dataset, Split
from ep_neuro.errors import ConfigError, RunError
from ep_neuro.estimators import Estimate
from ep_neuro.files import write_atomic
from ep_neuro.network import Landscape, Network, parameter_names
from ep_neuro.settle import Schedule, settle

Record = dict[str, float]
"""The metrics of one epoch, a line of ``metrics.jsonl``."""

BIAS_SHARE = 0.1
"""Scale of a bias, as a share of the box height, in relative learning rates."""

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
        Largest residual of any sample, in units of the state.
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


def evaluate(
    network: Network,
    split: Split,
    schedule: Schedule,
    *,
    batch: int = 360,
    feedforward: bool = False,
) -> Evaluation:
    """Settle every sample of `split` freely and read the largest output.

    With `feedforward`, one pass of the feed-forward twin takes the place of settling.
    """
    outputs, residuals, sweeps = [], [], []
    with torch.no_grad():
        for start in range(0, len(split), batch):
            x = torch.from_numpy(split.x[start : start + batch])
            if feedforward:
                outputs.append(FeedForwardTwin(network)(x).flatten(1))
                continue
            result = settle(Landscape(network, x), schedule)
            outputs.append(result.state[network.spec.output].flatten(1))
            residuals.append(result.residual)
            sweeps.append(result.sweeps)
    values = torch.cat(outputs).numpy()
    residual = torch.cat(residuals) if residuals else torch.zeros(1)
    return Evaluation(
        accuracy=float((values.argmax(1) == split.y).mean()),
        outputs=values,
        residual=float(residual.max()),
        unsettled=float((residual > schedule.tolerance).float().mean()),
        sweeps=float(np.mean(sweeps)) if sweeps else 1.0,
    )


def train(
    config: TrainConfig,
    out: str | Path | None = None,
    *,
    dataset: Dataset | None = None,
    resume: bool = False,
    monitor: Monitor | None = None,
) -> TrainResult:
    """Train as `config` says; the test split is read once, at the end.

    Parameters
    ----------
    config : TrainConfig
        What to do.
    out : path, optional
        Run directory: ``config.yaml``, ``metrics.jsonl``, ``last`` (to resume from) and ``best``
        (on validation; the later of equals).
    dataset : Dataset, optional
        Data in memory instead of ``config.data``.
    resume : bool
        Go on from ``last``, if it is there, with the same result as without the interruption.
    monitor : callable, optional
        Told of every step.

    Raises
    ------
    ConfigError
        If `resume` meets another configuration.
    RunError
        If the gradient is no longer finite; the last epoch is then on disk.
    """
    torch.set_num_threads(config.threads)
    if dataset is None:
        dataset = datasets.load(config.data, config.data_root)
    dataset = datasets.fitted(dataset, config.spec())
    run = _Run(config, dataset, Path(out) if out is not None else None, monitor)
    if resume:
        run.restore()
    run.start()
    while run.epoch < config.epochs:
        run.advance()
    return run.finish()


class _Run:
    """The state of a training run between epochs."""

    def __init__(
        self, config: TrainConfig, dataset: Dataset, out: Path | None, monitor: Monitor | None
    ) -> None:
        self.config, self.dataset, self.out, self.monitor = config, dataset, out, monitor
        self.network = Network(config.spec(), config.seed)
        self.best = self._copy(self.network)
        self.steps_an_epoch = -(-len(dataset.train) // config.batch)
        self.optimiser = make_optimiser(config.optimiser, self.network)
        self.scheduler = make_scheduler(
            config.optimiser, self.optimiser, config.epochs * self.steps_an_epoch
        )
        average = get_ema_multi_avg_fn(config.average)
        self.averaged = AveragedModel(self.network, multi_avg_fn=average)
        self.history: list[Record] = []

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def candidate(self) -> Network:
        """The network that is validated: the running average, if there is one."""
        network = self.averaged.module if self.config.average else self.network
        assert isinstance(network, Network)
        return network

    def start(self) -> None:
        """Write the resolved configuration."""
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomic(self.out / "config.yaml", self.config.to_yaml().encode())

    def advance(self) -> None:
        """One epoch: train, validate, save."""
        started = time.perf_counter()
        sums: dict[str, float] = {}
        for step, index in enumerate(self._batches()):
            estimate = self._step(index)
            for key, value in self._measure(estimate, index).items():
                sums[key] = sums.get(key, 0.0) + value * len(index) / len(self.dataset.train)
            if self.monitor is not None:
                done = self.epoch * self.steps_an_epoch + step + 1
                latest = self.history[-1] if self.history else {}
                total = self.config.epochs * self.steps_an_epoch
                self.monitor(done, total, {**latest, "epoch": self.epoch + 1})
        seconds = time.perf_counter() - started
        validation = self._evaluate(self.candidate, self.dataset.val)
        record = {
            "epoch": self.epoch + 1,
            **sums,
            "val_accuracy": validation.accuracy,
            "val_residual": validation.residual,
            "val_unsettled": validation.unsettled,
            "lr": self.optimiser.param_groups[0]["lr"],
            "seconds": seconds,
            "images_per_second": len(self.dataset.train) / seconds,
        }
        so_far = max((r["val_accuracy"] for r in self.history), default=-1.0)
        self.history.append(record)
        if record["val_accuracy"] >= so_far:
            self.best = self._copy(self.candidate)
            self._save("best", self.best)
        self._save("last", self.network, self._state())
        self._write_metrics()

    def _batches(self) -> Iterator[Tensor]:
        # Seeded by the epoch, so that a resumed run sees the same order without a stored RNG state.
        generator = torch.Generator().manual_seed(self.config.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.dataset.train), generator=generator)
        yield from order.split(self.config.batch)

    def _step(self, index: Tensor) -> Estimate:
        x = torch.from_numpy(self.dataset.train.x)[index]
        estimate = self.config.estimator(self.network, x, self._targets(index))
        for name, parameter in parameter_names(self.network).items():
            parameter.grad = estimate.gradient[name]
            if not bool(torch.isfinite(parameter.grad).all()):
                raise RunError(
                    f"training, epoch {self.epoch + 1}",
                    f"the gradient of {name} is not finite",
                    "lower optimiser.lr or the gains of the network; the last epoch is saved",
                )
        self.optimiser.step()
        self.scheduler.step()
        if self.config.average:
            self.averaged.update_parameters(self.network)
        return estimate

    def _targets(self, index: Tensor) -> Tensor:
        spec = self.network.spec
        labels = torch.from_numpy(self.dataset.train.y)[index]
        return one_hot(labels, spec.shapes[spec.output], torch.float32)

    def _measure(self, estimate: Estimate, index: Tensor) -> Record:
        """Means over the batch."""
        output = estimate.free.state[self.network.spec.output]
        targets = self._targets(index)
        hits = output.flatten(1).argmax(1) == targets.flatten(1).argmax(1)
        tolerance = getattr(getattr(self.config.estimator, "free", None), "tolerance", 0.0)
        return {
            "loss": float(squared_error(output, targets).mean()),
            "train_accuracy": float(hits.float().mean()),
            "residual": float(estimate.free.residual.mean()),
            "unsettled": float((estimate.free.residual > tolerance).float().mean()),
            "sweeps_free": float(estimate.free.sweeps),
            "sweeps_nudged": float(estimate.nudged.sweeps if estimate.nudged else 0),
        }

    def _evaluate(self, network: Network, split: Split) -> Evaluation:
        feedforward = isinstance(self.config.estimator, Backprop)
        return evaluate(network, split, self.config.evaluation, feedforward=feedforward)

    def _state(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json", exclude={"epochs", "data_root"}),
            "history": self.history,
            "optimiser": self.optimiser.state_dict(),
            "scheduler": {
                k: v for k, v in self.scheduler.state_dict().items() if not k.startswith("lr_")
            },
            "averaged": self.averaged.state_dict(),
            "best": self.best.state_dict(),
        }

    def restore(self) -> None:
        """Go back to the end of the last epoch on disk, if there is one."""
        if self.out is None or not (self.out / "last" / STATE).is_file():
            return
        state = load_state(self.out / "last")
        mine = self._state()["config"]
        for key in mine:
            if state["config"].get(key) != mine[key]:
                raise ConfigError(
                    f"--resume {self.out}",
                    f"its '{key}' is {state['config'].get(key)}, the configuration says {mine[key]}",
                    "resume with its own config.yaml, or train into another directory",
                )
        self.network.load_state_dict(load_model(self.out / "last").network.state_dict())
        self.optimiser.load_state_dict(state["optimiser"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.averaged.load_state_dict(state["averaged"])
        self.best.load_state_dict(state["best"])
        self.history = [dict(r) for r in state["history"]]

    def finish(self) -> TrainResult:
        """Test the best network on the test split, once, and write its accuracy beside it."""
        test = self._evaluate(self.best, self.dataset.test)
        model = Model(self.best, {**self._metadata(), "test_accuracy": test.accuracy})
        if self.out is not None:
            save_model(model, self.out / "best")
        speed = float(np.median([r["images_per_second"] for r in self.history]))
        return TrainResult(model, self.history, test, speed)

    def _metadata(self) -> dict[str, Any]:
        return {
            "data": self.config.data,
            "seed": self.config.seed,
            "epochs": self.epoch,
            "estimator": self.config.estimator.kind,
            "val_accuracy": max((r["val_accuracy"] for r in self.history), default=None),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }

    def _save(self, name: str, network: Network, state: dict[str, Any] | None = None) -> None:
        if self.out is not None:
            save_model(Model(network, self._metadata()), self.out / name, state)

    def _write_metrics(self) -> None:
        if self.out is not None:
            lines = "".join(json.dumps(record) + "\n" for record in self.history)
            write_atomic(self.out / "metrics.jsonl", lines.encode())

    @staticmethod
    def _copy(network: Network) -> Network:
        twin = Network(network.spec)
        twin.load_state_dict(network.state_dict())
        return twin


def make_optimiser(config: Optimiser, network: Network) -> torch.optim.Optimizer:
    """The torch optimiser of `config`: one group a tensor, biases without decay."""
    spec = network.spec
    groups = []
    for c in spec.couplings:
        std = c.gain / math.sqrt(math.prod(spec.weight_shapes[c.name][1:]))
        rate = config.lr * (std if config.relative else 1.0)
        decay = config.weight_decay * (config.lr / rate)
        groups.append({"params": [network.weights[c.name]], "lr": rate, "weight_decay": decay})
    for p in spec.populations:
        height = 1.0 if p.box is None else p.box[1] - p.box[0]
        rate = config.lr * (BIAS_SHARE * height if config.relative else 1.0)
        groups.append({"params": [network.biases[p.name]], "lr": rate, "weight_decay": 0.0})
    if config.kind == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0
        )
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.99))


def make_scheduler(
    config: Optimiser, optimiser: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to zero after `steps`."""
    warmup = round(config.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 + 0.5 * float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
