"""Would EP learn on this device? Digits from scratch, by device and by method, and what limits it.

    python -m targets.crossbar.device_study DIRECTORY [--seeds N] [--samples N] [--only FIGURE]
        [--jobs N | --dask ADDRESS]

lets `zoo:digits_dense` learn by pulses and writes ``study.json``, ``table.md`` and a figure each by
device and method, asymmetry, number of states, dead cells, a day between two sessions, and on/off
ratio. Each row is a job, kept in ``jobs`` there: a second call runs what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from compilers.ir.graph import Graph
from compilers.passes.make_plastic import learnable, make_plastic
from compilers.program import Program
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset
from ep_neuro.errors import ConfigError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from ep_neuro.report import save_figure
from ep_neuro.report.plots.axes import draw_line, draw_seeds, finish, panel, styled
from ep_neuro.report.plots.palette import series_style
from ep_neuro.storage.atomic import write_file
from targets.crossbar.arrays.options import DAY, METHODS, ONE_WAY, TRANSFERS
from targets.crossbar.backend import BACKEND
from targets.crossbar.study import program_for
from targets.experiments.studies.jobs import JOBS, Job, Kept, read_words, run_shown, write_numbers

TABLE = "table.md"
"""File of the table by device and method."""

RATES: Mapping[str, tuple[float, float, float]] = {
    "reram": (0.5, 0.15, 0.2),
    "pcm": (0.3, 0.1, 0.03),
}
OTHER_RATES = (1.5, 0.3, 0.2)
"""Learning rate, that of what comes into the output, and the share of both that is left at the end,
by device and of all others; chosen on the validation digits, as is what follows."""

BATCH, BETA, STEPS = 10, 0.5, 10
"""Samples a commit, nudge, and steps of the free phase, of which nudged ones have half."""

SAMPLES = 4000
"""Samples to learn, by default."""

DEVICES = ("idealized", "capacitor", "ecram", "reram", "pcm")
"""Those of the table, by aihwkit's presets."""


DAYS = ("learnt", "a day later", "learnt on")
"""Where a row that waits is measured."""


@dataclass(frozen=True)
class Row:
    """One run: what learns, and how."""

    figure: str
    series: str
    """Of `figure`, where it is shown."""
    value: float | str
    """At which place of the figure."""
    options: Mapping[str, Any]
    """Of the target."""
    samples: int = 1
    """How long it learns; in a plan, in multiples of what is asked for."""
    seed: int = 0
    """Of the fresh weights, the devices and the order of the samples."""
    wait: float = 0.0
    """Seconds after which as many samples are learnt once more."""

    @property
    def job(self) -> Job:
        """What measures it."""
        name = f"{self.figure}, {self.series}, {self.value or 'a day'}, seed {self.seed}"
        return Job(name, asdict(self))


def compute(digits: Dataset, job: Job, tell: Callable[[Any], None]) -> list[dict[str, Any]]:
    """The row of `job` as ``study.json`` holds it, with its accuracies."""
    row = {**job.facts, **measure(digits, Row(**job.facts))}
    tell(row)
    return [row]


def measure(digits: Dataset, row: Row) -> dict[str, list[float]]:
    """Accuracies of `row`, on validation and test digits: learnt; after the wait; learnt on."""
    program = program_for(
        Network(zoo("digits_dense"), row.seed),
        {**row.options, "seed": row.seed},
        steps=STEPS,
        nudged_steps=STEPS // 2,
        beta=BETA,
    )
    *rates, fall = RATES.get(row.options["device"], OTHER_RATES)
    graph = _plastic(program.graph, *rates)
    program = Program(BACKEND.name, graph, options=program.options)
    found: dict[str, list[float]] = {"validation": [], "test": []}
    train = digits.train
    with BACKEND.open(program) as session:

        def look() -> None:
            for name, split in (("validation", digits.val), ("test", digits.test)):
                found[name].append(session.settle(split.x).accuracy(split.y))

        for round_ in range(2 if row.wait else 1):
            if round_:
                session.wait(row.wait)
                look()
            rng = np.random.default_rng([row.seed, round_])
            passes = -(-row.samples // len(train))
            order = np.concatenate([rng.permutation(len(train)) for _ in range(passes)])
            for first in range(0, row.samples, 50 * BATCH):
                some = train.at(order[first : min(first + 50 * BATCH, row.samples)])
                scale = fall ** ((first / row.samples + round_) / (1 + round_))
                session.learn(some.x, some.y, batch=BATCH, rate_scale=scale)
            look()
    return found


def _plastic(graph: Graph, rate: float, output_rate: float) -> Graph:
    into = {p.weight for p in graph.projections if p.post == graph.output}
    into.add(graph.population(graph.output).bias or "")
    rates = {name: output_rate if name in into else rate for name in learnable(graph)}
    return make_plastic(graph, lr=rates, units=True)


# --- the plan ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A figure: its rows, and what its x axis counts."""

    rows: Callable[[], Iterator[Row]]
    label: str
    logarithmic: bool = False


NAMES = {"idealized": "idealized", "ecram": "ECRAM", "reram": "ReRAM", "pcm": "PCM"}
LEARNING = {
    "plain": "plain pulses",
    "tiki-taka-v2": "Tiki-Taka v2",
    "agad": "AGAD",
    "mixed-precision": "mixed precision",
}
"""What legends call devices and methods."""


def _methods() -> Iterator[Row]:
    for device in DEVICES:
        for method in METHODS[1:]:
            if not (device in ONE_WAY and method in TRANSFERS):
                yield Row("methods", method, device, {"device": device, "learning": method})


def _sweep(
    option: str, values: Sequence[float], series: Sequence[str], label: str, *, log: bool = False
) -> Plan:
    """Accuracy by the values of `option`; each of `series` is a device and a method."""

    def rows() -> Iterator[Row]:
        for value in values:
            for device, method in map(str.split, series):
                options = {"device": device, "learning": method, option: value}
                yield Row(option, f"{NAMES[device]}, {LEARNING[method]}", value, options)

    return Plan(rows, label, log)


def _day() -> Iterator[Row]:
    for device in ("pcm", "reram"):
        options = {"device": device, "learning": "mixed-precision"}
        yield Row("day", f"{device}, mixed precision", "", options, wait=DAY)


def _longer() -> Iterator[Row]:
    mixed = {"learning": "mixed-precision"}
    for times in (1, 4, 10):
        for title, options in (
            ("ReRAM, mixed precision", {"device": "reram"}),
            ("ReRAM, 16 cells a weight, mixed precision", {"device": "reram", "copies": 16}),
            ("PCM, mixed precision", {"device": "pcm"}),
        ):
            yield Row("longer", title, times, {**options, **mixed}, samples=times)


PLANS: Mapping[str, Plan] = {
    "methods": Plan(_methods, "device, by aihwkit's presets"),
    "on_off": _sweep(
        "on_off",
        (2.0, 5.0, 10.0, 30.0, 100.0, 1000.0),
        ["idealized plain"],
        "largest over smallest conductance of a device",
        log=True,
    ),
    "asymmetry": _sweep(
        "asymmetry",
        (0.0, 0.2, 0.4, 0.8),
        ["ecram plain", "ecram tiki-taka-v2", "ecram agad", "ecram mixed-precision"],
        "steps up and down relative to their mean: 1 + and 1 - this",
    ),
    "states": _sweep(
        "states",
        (10, 30, 100, 1000, 10_000),
        ["idealized plain", "reram mixed-precision", "pcm mixed-precision"],
        "states of a device",
        log=True,
    ),
    "dead": _sweep(
        "dead",
        (0.0, 0.05, 0.1, 0.2),
        ["ecram plain", "ecram tiki-taka-v2", "ecram agad"],
        "share of devices stuck at a random value",
    ),
    "copies": _sweep(
        "copies",
        (1, 4, 16, 36),
        ["reram mixed-precision", "reram tiki-taka-v2"],
        "cells a weight",
        log=True,
    ),
    "longer": Plan(_longer, "samples learnt, in those of every other figure", logarithmic=True),
    "day": Plan(_day, "a day passes between two sessions"),
}
"""The figures by name."""


def planned(only: Sequence[str], seeds: int, samples: int) -> list[Row]:
    """The rows of the figures `only`, the first seed of all before the second."""
    rows = [row for name in only for row in PLANS[name].rows()]
    return [
        Row(**{**vars(row), "seed": seed, "samples": row.samples * samples})
        for seed in range(seeds)
        for row in rows
    ]


# --- what is shown -----------------------------------------------------------------------------


Rows = Sequence[Mapping[str, Any]]
"""What `compute` gives, of all jobs."""


def shown(rows: Rows, figure: str) -> dict[str, dict[Any, list[list[float]]]]:
    """Test accuracies (%) of all seeds by series and value; a list a seed, of its points."""
    found: dict[str, dict[Any, list[list[float]]]] = {}
    for row in rows:
        if row["figure"] == figure:
            points = [100 * value for value in row["test"]]
            found.setdefault(row["series"], {}).setdefault(row["value"], []).append(points)
    return found


def table(rows: Rows) -> str:
    """Test accuracy by device and method in Markdown, the mean over seeds."""
    found = shown(rows, "methods")
    lines = [f"| device | {' | '.join(METHODS[1:])} |", "|---" * len(METHODS) + "|"]
    for device in DEVICES:
        cells = [found.get(method, {}).get(device) for method in METHODS[1:]]
        said = ["" if c is None else f"{np.mean(c):.1f} %" for c in cells]
        lines.append(f"| {device} | {' | '.join(said)} |")
    return "\n".join(lines) + "\n"


@styled
def draw(rows: Rows, name: str) -> Figure:
    """Test accuracy (%) of the figure `name`: the mean over seeds, from worst to best."""
    figure, axes = panel()
    ticks = {"methods": DEVICES, "day": DAYS}.get(name)
    for index, (title, by_value) in enumerate(shown(rows, name).items()):
        style = series_style(index)
        if name == "day":
            found = {n: np.asarray(by_value[""])[:, n] for n in range(len(DAYS))}
        else:
            last = {value: np.asarray(seeds)[:, -1] for value, seeds in by_value.items()}
            found = {DEVICES.index(v) if ticks else v: last[v] for v in last}
        at = sorted(found)
        if name == "methods":
            means = [np.mean(found[x]) for x in at]
            draw_line(axes, at, means, style, title, linestyle="none")
        else:
            draw_seeds(axes, at, [found[x] for x in at], style, title)
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks)
    if PLANS[name].logarithmic:
        axes.set_xscale("log")
        places = sorted({x for by_value in shown(rows, name).values() for x in by_value})
        axes.set_xticks(places, [f"{x:,g}" for x in places])
        axes.xaxis.set_minor_locator(NullLocator())
    finish(axes, PLANS[name].label, "test accuracy (%)")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write the table and the figures; see the module's docstring."""
    parser = argparse.ArgumentParser(description="digits learnt on devices as they are")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="that each row learns")
    parser.add_argument("--only", action="append", choices=list(PLANS), help="of the figures")
    given, workers = read_words(parser, arguments)
    digits = datasets.load("digits")
    kept = Kept(given.directory / JOBS, "device study", {"data": digits.digest})
    jobs = [row.job for row in planned(given.only or list(PLANS), given.seeds, given.samples)]

    def said(row: Mapping[str, Any]) -> str:
        return " -> ".join(f"{value:.1%}" for value in row["test"])

    run_shown("measuring", compute, digits, jobs, workers=workers, kept=kept, said=said)
    # With what earlier calls kept of the other figures.
    every = [row.job for row in planned(list(PLANS), given.seeds, given.samples)]
    rows = [row for found in kept.known(every).values() for row in found]
    write_numbers(given.directory, {"rows": rows}, "rows")
    for name in PLANS:
        if shown(rows, name):
            save_figure(draw(rows, name), given.directory / f"{name}.svg")
    write_file(given.directory / TABLE, table(rows).encode(), ConfigError, marker=b"| device |")


if __name__ == "__main__":
    from ep_neuro.cli.ending import exit_code

    sys.exit(exit_code(main, debug=False))
