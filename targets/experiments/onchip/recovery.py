"""What on-chip learning is for: a program lost accuracy, and gets it back by learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import targets
from compilers.program import Program
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.report import LearningCurve, plot_learning, save_figure
from ep_neuro.report.plots import formatting
from targets.experiments.comparison.compare import fit
from targets.experiments.onchip.learning import Learnt, Monitor, learn
from targets.experiments.onchip.run_state import accuracy_curve
from targets.experiments.onchip.schedule import Plan


@dataclass(frozen=True, eq=False)
class Recovery:
    """A loss of accuracy, and what learning on the chip regained.

    Attributes
    ----------
    title : str
        What happened.
    before : float
        Test accuracy before it did: the original one.
    learnt : Learnt
        Its ``accuracy_before`` is that with the loss.
    also : mapping of float
        Further test accuracies after learning, by name.
    """

    title: str
    before: float
    learnt: Learnt
    also: Mapping[str, float] = field(default_factory=dict)

    @property
    def regained(self) -> float:
        """Share of the lost accuracy that learning brought back; above 1 if it gave more."""
        lost = self.before - self.learnt.accuracy_before
        gained = self.learnt.accuracy_after - self.learnt.accuracy_before
        return gained / lost if lost > 0 else 1.0

    @property
    def curve(self) -> LearningCurve:
        """Accuracy by samples seen, between what was and what is."""
        levels = {"original": self.before, "before learning": self.learnt.accuracy_before}
        return accuracy_curve(self.title, self.learnt.history, levels)

    def fields(self) -> dict[str, Any]:
        """Plain data."""
        found = {"accuracy_original": self.before, **self.learnt.fields()}
        return {**found, "regained": self.regained, **self.also}

    @property
    def summary(self) -> str:
        """The three accuracies in a line."""
        learnt = self.learnt
        return _in_a_line(self.before, learnt.accuracy_before, learnt.accuracy_after, self.regained)

    def in_words(self) -> list[str]:
        """Lines for people; energy is an estimate, and says so."""
        found = self.fields()
        lines = [
            self.title,
            f"  {self.summary}",
            f"  {formatting.count(found['samples'])} samples, "
            f"{formatting.count(found['events_per_sample'])} events a sample, "
            f"{formatting.joules(self.learnt.energy_joule)} (nominal hardware, an estimate)",
        ]
        lines += [f"  {name}: {formatting.percent(value)}" for name, value in self.also.items()]
        return lines

    def draw(self, path: str | Path) -> Path:
        """Draw the curve as a figure, ``.svg`` or ``.png``."""
        return save_figure(plot_learning(self.curve), path)


def recover(
    title: str,
    before: float,
    program: Program,
    data: Dataset,
    plan: Plan,
    *,
    also: Mapping[str, Split] | None = None,
    monitor: Monitor | None = None,
) -> Recovery:
    """Let `program` learn from ``data.train``, and test it on ``data.test``.

    Parameters
    ----------
    title : str
        What happened.
    before : float
        Test accuracy before it did.
    program : Program
        The one that lost accuracy, with plasticity.
    data : Dataset
        As it is after whatever happened.
    plan : Plan
        How to learn.
    also : mapping of Split, optional
        Further samples to settle after learning, by name.
    monitor : callable, optional
        See `targets.experiments.onchip.learning.learn`.
    """
    learnt = learn(program, data, plan, monitor=monitor)
    further = {name: accuracy(learnt.program, split) for name, split in (also or {}).items()}
    return Recovery(title, before, learnt, further)


def told(found: Sequence[Recovery], figure: Path) -> list[str]:
    """One story by one seed or several: lines about the first, drawn as `figure`, and the means."""
    figure.parent.mkdir(parents=True, exist_ok=True)
    lines = [*found[0].in_words(), f"  figure: {found[0].draw(figure)}"]
    if len(found) > 1:
        rows = [
            (r.before, r.learnt.accuracy_before, r.learnt.accuracy_after, r.regained) for r in found
        ]
        means = _in_a_line(*(float(value) for value in np.mean(rows, axis=0)))
        lines.append(f"  mean of {len(found)} seeds: {means}")
        for name in found[0].also:
            value = float(np.mean([r.also[name] for r in found]))
            lines.append(f"  mean of {name}: {formatting.percent(value)}")
    return lines


def _in_a_line(original: float, before: float, after: float, regained: float) -> str:
    return (
        f"originally {formatting.percent(original)}, before learning {formatting.percent(before)}, "
        f"after learning {formatting.percent(after)} "
        f"({formatting.percent(regained, 0)} of the loss regained)"
    )


def accuracy(program: Program, split: Split) -> float:
    """Share of `split` that `program` answers right."""
    split = fit(split, program.graph)
    with targets.open(program) as session:
        return session.settle(split.x).accuracy(split.y)


# --- changes of the data ------------------------------------------------------------------------


def rotated(data: Dataset, turns: int = 1) -> Dataset:
    """`data` with every image turned by 90 degrees, `turns` times to the left."""
    return data.each(lambda s: Split(np.rot90(s.pixels, turns, axes=(-2, -1)).copy(), s.y))


def inverted(data: Dataset) -> Dataset:
    """`data` with dark and bright exchanged."""
    bright = 255 if data.train.pixels.dtype == np.uint8 else 1
    return data.each(lambda s: Split(bright - s.pixels, s.y))


def few(data: Dataset, samples: int) -> Dataset:
    """`data` with the first `samples` of its training split only."""
    return replace(data, train=data.train.head(samples))


def only(split: Split, *labels: int) -> Split:
    """The samples of `split` that have one of `labels`."""
    return split.at(np.isin(split.y, labels))


def without(split: Split, *labels: int) -> Split:
    """The samples of `split` that have none of `labels`."""
    return split.at(~np.isin(split.y, labels))


def mixed(*splits: Split) -> Split:
    """All samples of `splits`."""
    return Split(np.concatenate([s.pixels for s in splits]), np.concatenate([s.y for s in splits]))
