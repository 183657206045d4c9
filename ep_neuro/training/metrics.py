"""Metrics of an epoch and where they go: ``metrics.jsonl``, TensorBoard, ``curves.svg``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ep_neuro.errors import DataError
from ep_neuro.network.checkpoint import best_in
from ep_neuro.storage.atomic import write_atomic
from ep_neuro.storage.yaml_io import load_yaml

if TYPE_CHECKING:
    from ep_neuro.report import GradientTruth, LearningCurve

METRICS, CONFIG = "metrics.jsonl", "config.yaml"

Record = dict[str, float]
"""What was measured at one point of a run, an epoch for instance: a line of ``metrics.jsonl``."""

LEAST = {"gradient_cosine", "worst_cosine"}
"""Metrics of which an epoch keeps the least, not the mean."""


@dataclass
class Tally:
    """The metrics of the steps of an epoch so far.

    ``sums`` are over the samples of the steps that measured the metric, which ``samples`` counts;
    of the metrics in `LEAST` it is the least.
    """

    sums: dict[str, float] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)

    def add(self, measured: Mapping[str, float], samples: int) -> None:
        """Add the means over the `samples` of a step."""
        for key, value in measured.items():
            if key in LEAST:
                self.sums[key] = min(self.sums.get(key, value), value)
            else:
                self.sums[key] = self.sums.get(key, 0.0) + value * samples
            self.samples[key] = self.samples.get(key, 0) + samples

    def record(self) -> Record:
        """The mean of each metric, or its least."""
        return {k: v if k in LEAST else v / self.samples[k] for k, v in self.sums.items()}


class RunLog:
    """The metrics of a run in its directory; without one, nowhere."""

    def __init__(self, out: Path | None) -> None:
        self.out = out
        self._board: Any = None

    def write(self, history: Sequence[Record]) -> None:
        """Write all epochs, and tell TensorBoard of the last."""
        if self.out is None:
            return
        write_metrics(history, self.out)
        self._board = self._board or _open_board(self.out / "tensorboard", len(history))
        if self._board is not None:
            for key, value in history[-1].items():
                if key != "epoch":
                    self._board.add_scalar(key, value, len(history))
            self._board.flush()

    def close(self, title: str, history: Sequence[Record], asked: float | None = None) -> None:
        """Draw the curves; `asked` is the cosine that the gradient was to keep."""
        if self._board is not None:
            self._board.close()
        if self.out is None or not history:
            return
        from ep_neuro.report import plot_curves, save_figure

        curve, truth = training_curve(title, history), gradient_truth(history, asked)
        save_figure(plot_curves(curve, truth), self.out / "curves.svg")


def write_metrics(history: Sequence[Record], folder: Path) -> None:
    """Write ``metrics.jsonl``, a line of JSON for each point; what is not a number is null."""
    rows = [{k: v if v == v else None for k, v in record.items()} for record in history]
    write_atomic(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())


def column(history: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    """One measurement at every point, NaN where it was not made."""
    return np.array([record.get(key, np.nan) for record in history], dtype=float)


def training_curve(title: str, history: Sequence[Record]) -> LearningCurve:
    """Accuracy and loss by epoch."""
    from ep_neuro.report import LearningCurve

    accuracy = {"training": "train_accuracy", "validation": "val_accuracy"}
    return LearningCurve(
        title,
        column(history, "epoch"),
        accuracy={name: column(history, key) for name, key in accuracy.items()},
        loss={"training": column(history, "loss")},
    )


def gradient_truth(
    history: Sequence[Mapping[str, float]], asked: float | None
) -> GradientTruth | None:
    """How true the gradient of a run was; None where no epoch measured it."""
    from ep_neuro.report import GradientTruth

    if not any("gradient_cosine" in record for record in history):
        return None

    return GradientTruth(
        column(history, "epoch"),
        cosine=column(history, "gradient_cosine"),
        worst=column(history, "worst_cosine"),
        free=column(history, "sweeps_free"),
        nudged=column(history, "sweeps_nudged"),
        asked=asked,
    )


def truth_beside(model: str | Path) -> GradientTruth | None:
    """How true the gradient was in the run that `model` is, or its ``best`` or ``last``.

    None where no run lies around `model`, or it measured no cosine.

    Raises
    ------
    DataError, ConfigError
        If the metrics or the configuration of the run cannot be read.
    """
    place = best_in(model)
    run = place.resolve().parent
    if place.resolve().name not in ("best", "last") or not (run / METRICS).is_file():
        return None
    truth = load_yaml(run / CONFIG).get("truth") if (run / CONFIG).is_file() else None
    asked = truth.get("cosine") if isinstance(truth, dict) else None
    asked = asked if isinstance(asked, float | int) else None
    return gradient_truth(read_metrics(run / METRICS), asked)


def read_metrics(path: Path) -> list[Record]:
    """The metrics of every epoch; raises `DataError` if a line is no record."""
    history: list[Record] = []
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        try:
            found = json.loads(line).items()
            record = {key: float("nan" if value is None else value) for key, value in found}
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise DataError(
                f"{path} line {number}",
                "is not the metrics of an epoch",
                "correct the line, or move the model out of the run directory",
            ) from None
        history.append(record)
    return history


def _open_board(folder: Path, epoch: int) -> Any:
    """A TensorBoard writer that forgets what an earlier run said from `epoch` on, or None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=epoch)
