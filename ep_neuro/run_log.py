"""Metrics of an epoch and where they go: ``metrics.jsonl``, TensorBoard, ``curves.svg``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ep_neuro.files import write_atomic

Record = dict[str, float]
"""The metrics of one epoch, a line of ``metrics.jsonl``."""


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
        lines = "".join(json.dumps(record) + "\n" for record in history)
        write_atomic(self.out / "metrics.jsonl", lines.encode())
        self._board = self._board or _open_board(self.out / "tensorboard", len(history))
        if self._board is not None:
            for key, value in history[-1].items():
                if key != "epoch":
                    self._board.add_scalar(key, value, len(history))
            self._board.flush()

    def close(self, title: str, history: Sequence[Record]) -> None:
        """Draw the curves."""
        if self._board is not None:
            self._board.close()
        if self.out is None or not history:
            return
        from ep_neuro.report import LearningCurve, plot_curves, save_figure

        def column(key: str) -> list[float]:
            return [record[key] for record in history]

        curve = LearningCurve(
            title,
            column("epoch"),
            accuracy={
                "training": column("train_accuracy"),
                "validation": column("val_accuracy"),
            },
            loss={"training": column("loss")},
        )
        save_figure(plot_curves(curve), self.out / "curves.svg")


def _open_board(folder: Path, epoch: int) -> Any:
    """A TensorBoard writer that forgets what an earlier run said from `epoch` on, or None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=epoch)
