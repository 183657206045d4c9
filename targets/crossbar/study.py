"""Accuracy against what devices do: sweeps over error, bits and time, their figures, recovery.

    python -m targets.crossbar.study MODEL DIRECTORY [--seeds N] [--jobs N | --dask ADDRESS]

settles the test digits on arrays of growing error, of fewer bits and of growing age, lets an
erroneous array learn, and writes ``study.json``, ``error.svg``, ``bits.svg`` and ``time.svg`` when
all is done, into a new folder or that of an earlier study. Each array is a job, whose result is
kept in ``jobs`` there: a second call runs what is missing.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from compilers import compile_network
from compilers.passes.choose_leak import LeakWarning
from compilers.passes.make_plastic import make_plastic
from compilers.program import Program
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.network.checkpoint import load_model
from ep_neuro.network.network import Network
from ep_neuro.report import save_figure
from ep_neuro.report.plots.axes import draw_seeds, finish, panel, styled
from ep_neuro.report.plots.palette import series_style
from targets.crossbar.arrays.options import DAY, YEAR
from targets.crossbar.backend import BACKEND
from targets.experiments.studies.jobs import JOBS, Job, Kept, read_words, run_shown, write_numbers
from targets.experiments.studies.workers import Workers
from targets.interface.session import Session


@dataclass(frozen=True)
class DeviceSweep:
    """Accuracy of one network on arrays that differ in one option."""

    name: str
    """Of the figure's file."""
    label: str
    """What the values are, with their unit."""
    values: tuple[float, ...]
    """The option's values."""
    accuracy: Mapping[str, list[list[float]]]
    """By series, the accuracies of all seeds at each value."""


TIMES = {60.0: "minute", 3600.0: "hour", DAY: "day", 30 * DAY: "month", YEAR: "year"}
"""What ticks say of times, in seconds."""

Series = Mapping[str, Mapping[str, Any]]
"""Options of each series, by the name that the legend gives it."""

PLANS: tuple[tuple[str, str, tuple[str, ...], tuple[float, ...], Series], ...] = (
    (
        "error",
        "programming error (share of the largest weight of a line)",
        ("programming_error",),
        (0.0, 0.02, 0.05, 0.1, 0.15, 0.2),
        {"as written": {}, "with PCM at 1 s": {"preset": "pcm", "seconds": 1.0}},
    ),
    (
        "bits",
        "bits of the converters",
        ("dac_bits", "adc_bits"),
        (8, 7, 6, 5, 4, 3, 2),
        {"exact weights": {}, "PCM": {"preset": "pcm"}},
    ),
    (
        "time",
        "time since programming",
        ("seconds",),
        (1.0, 60.0, 3600.0, DAY, 30 * DAY, YEAR),
        {
            "PCM, compensated": {"preset": "pcm"},
            "PCM, as it drifts": {"preset": "pcm", "compensation": False},
            "own pair, compensated": {"device": "pair"},
            "own pair, as it drifts": {"device": "pair", "compensation": False},
        },
    ),
)
"""The figures: name, label, options that take the values, values, and series."""


def program_for(network: Network, options: Mapping[str, Any], **settings: Any) -> Program:
    """`network` compiled for the crossbar with `options`."""
    with warnings.catch_warnings():
        # The same network over and over: what there is to say of its leak was said in training.
        warnings.simplefilter("ignore", LeakWarning)
        return compile_network(network, BACKEND, options=options, **settings)


def accuracy(session: Session, split: Split) -> float:
    """Share of `split` that `session` answers right."""
    return float((session.settle(split.x).predictions == split.y).mean())


def measured(
    network: Network, split: Split, options: Mapping[str, Any], seeds: int, **settings: Any
) -> list[float]:
    """Accuracy on arrays of seeds 0 to `seeds` - 1."""
    return [once(network, split, {**options, "seed": seed}, **settings) for seed in range(seeds)]


def once(network: Network, split: Split, options: Mapping[str, Any], **settings: Any) -> float:
    """Accuracy on arrays with `options`."""
    with BACKEND.open(program_for(network, options, **settings)) as session:
        return accuracy(session, split)


def sweep(network: Network, split: Split, name: str, seeds: int = 3) -> DeviceSweep:
    """The sweep called `name`, one of `PLANS`."""
    jobs = sweep_jobs(name, seeds)
    rows = [once(network, split, job.facts["options"]) for job in jobs]
    return swept(name, seeds, rows)


def sweep_jobs(name: str, seeds: int) -> list[Job]:
    """An array each, by series, then value, then seed."""
    _, _, keys, values, series = next(plan for plan in PLANS if plan[0] == name)
    return [
        Job(
            f"{name} {value:g}, {title}, seed {seed}",
            {"options": {**options, **dict.fromkeys(keys, value), "seed": seed}},
        )
        for title, options in series.items()
        for value in values
        for seed in range(seeds)
    ]


def swept(name: str, seeds: int, accuracies: Sequence[float]) -> DeviceSweep:
    """The sweep whose `sweep_jobs` came to `accuracies`."""
    _, label, _, values, series = next(plan for plan in PLANS if plan[0] == name)
    shape = (len(series), len(values), seeds)
    found = np.reshape(accuracies, shape).tolist()
    return DeviceSweep(name, label, values, dict(zip(series, found, strict=True)))


@styled
def draw(sweep: DeviceSweep) -> Figure:
    """Accuracy (%) by value, the mean over seeds with the range from worst to best."""
    figure, axes = panel()
    for index, (title, found) in enumerate(sweep.accuracy.items()):
        shown = [100 * np.asarray(seeds) for seeds in found]
        draw_seeds(axes, sweep.values, shown, series_style(index), title)
    if sweep.name == "time":
        axes.set_xscale("log")
        axes.set_xticks(sweep.values, [TIMES.get(value, f"{value:g} s") for value in sweep.values])
        axes.xaxis.set_minor_locator(NullLocator())
    finish(axes, sweep.label, "accuracy (%)")
    return figure


@dataclass(frozen=True)
class DeviceRecovery:
    """Accuracy on exact arrays, on erroneous ones, and after each epoch of learning on those."""

    exact: float
    erroneous: float
    learnt: tuple[float, ...]


def recover(
    network: Network,
    dataset: Dataset,
    options: Mapping[str, Any],
    *,
    rate: float = 0.05,
    epochs: int = 4,
) -> DeviceRecovery:
    """Let arrays with `options` learn the training digits by EP, with their devices in the loop.

    Their lines share a range unless `options` say otherwise: the small ones have room to grow.
    """
    options = {"scaling": "tile", **options}
    settings = {"steps": 32, "nudged_steps": 16}
    exact, erroneous = (once(network, dataset.test, o, **settings) for o in ({}, options))
    program = program_for(network, options, **settings)
    program = replace(program, graph=make_plastic(program.graph, lr=rate))
    rng, learnt = np.random.default_rng(0), []
    with BACKEND.open(program) as session:
        for _ in range(epochs):
            train = dataset.train.at(rng.permutation(len(dataset.train)))
            session.learn(train.x, train.y, batch=32)
            learnt.append(accuracy(session, dataset.test))
    return DeviceRecovery(exact, erroneous, tuple(learnt))


RECOVERY = Job("recovery", {"recovery": {"programming_error": 0.1}})
"""The job that learns."""


def compute(shared: tuple[Network, Dataset], job: Job, tell: Callable[[Any], None]) -> list[Any]:
    """The accuracy of an array, or of the `RECOVERY` all that there is to know."""
    network, dataset = shared
    row: Any
    if "recovery" in job.facts:
        row = asdict(recover(network, dataset, job.facts["recovery"]))
    else:
        row = once(network, dataset.test, job.facts["options"])
    tell(row)
    return [row]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the whole study on digits; see the module's docstring."""
    parser = argparse.ArgumentParser(description="accuracy of a digits network on crossbars")
    parser.add_argument("model", type=Path, help="a model directory")
    given, workers = read_words(parser, arguments)
    model, dataset = load_model(given.model), datasets.load("digits")
    inputs = {"model": model.digest, "data": dataset.digest}
    kept = Kept(given.directory / JOBS, "crossbar study", inputs)
    sweeps, recovery = measure(model.network, dataset, given.seeds, workers, kept)
    for result in sweeps:
        for title, accuracy in result.accuracy.items():
            means = ", ".join(f"{np.mean(a):.1%}" for a in accuracy)
            print(f"{result.name}, {title}: {means}")
    print(
        f"10 % programming error: {recovery.erroneous:.1%}, learnt on the arrays "
        f"{recovery.learnt[-1]:.1%}, exact {recovery.exact:.1%}"
    )
    figures = {f"{result.name}.svg": draw(result) for result in sweeps}
    found = {**{result.name: asdict(result) for result in sweeps}, "recovery": asdict(recovery)}
    write_numbers(given.directory, found, "recovery")
    for name, figure in figures.items():
        save_figure(figure, given.directory / name)


def measure(
    network: Network, dataset: Dataset, seeds: int, workers: Workers, kept: Kept
) -> tuple[list[DeviceSweep], DeviceRecovery]:
    """All of `PLANS` and the recovery, by `workers`."""
    plans = {name: sweep_jobs(name, seeds) for name, *_ in PLANS}
    jobs, shared = [*chain.from_iterable(plans.values()), RECOVERY], (network, dataset)
    rows = run_shown("measuring", compute, shared, jobs, workers=workers, kept=kept)
    values = (row for some in rows for row in some or ())
    sweeps = [swept(name, seeds, list(islice(values, len(some)))) for name, some in plans.items()]
    return sweeps, DeviceRecovery(**next(values))


if __name__ == "__main__":
    from ep_neuro.cli.ending import exit_code

    sys.exit(exit_code(main, debug=False))
