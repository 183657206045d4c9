"""Which choices matter to spikes that learn: digits from scratch, one choice at a time.

    python -m targets.experiments.onchip.learning_choices DIRECTORY [--seeds N] [--samples N]
        [--network SPEC] [--only CHOICE] [--jobs N | --dask ADDRESS]

lets a network learn on the reference in 8 bits, all choices but one as `compile` makes them, and
writes ``study.json`` and ``table.md``: accuracy on the validation digits, the cosine of the first
updates to the exact gradient, and processor time. Each row is a job, whose result is kept in
``jobs`` there: a second call runs what is missing.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

import compilers
from compilers.passes.choose_leak import LeakWarning
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.checkpoint import open_model
from ep_neuro.network.network import Network
from ep_neuro.storage.atomic import write_file
from targets.experiments.onchip.learning import learn
from targets.experiments.onchip.plastic import plastic
from targets.experiments.onchip.schedule import Plan
from targets.experiments.studies.jobs import JOBS, Job, Kept, read_words, run_shown, write_numbers

TABLE = "table.md"
"""File of what `table` says."""

SAMPLES, BATCH = 4000, 10
"""Samples that each row learns from, by default, and those of a commit."""

AS_COMPILED: Mapping[str, Any] = {
    "steps": 64,
    "nudged_steps": 32,
    "leak": 0.5,
    "beta": 0.5,
    "ratio": 1.0,
    "rule": "spike-average",
    "bits": 8,
    "margin": None,
}
"""What every row has but for its own choice: the defaults of `compile` and `learn`, for spikes."""

CHOICES: Mapping[str, Sequence[Any]] = {
    "steps": (8, 16, 32, 128),
    "nudged_steps": (8, 16, 64, 128),
    "leak": (0.125, 0.25, 1.0),
    "beta": (0.1, 0.2, 1.0),
    "ratio": (0.5, 2.0, 4.0),
    "rule": ("one-sided",),
    "bits": (4, 6, None),
    "margin": (0.2, 0.4, 0.8),
}
"""Other values of each choice. ``ratio`` is that of the units of neighbouring populations, and
``margin`` that of `learn`."""


def jobs(seeds: int, samples: int, only: Sequence[str] = ()) -> list[Job]:
    """What is compiled by default, then each other value of each choice, or of `only`; by seed."""
    others = ((name, value) for name in only or CHOICES for value in CHOICES[name])
    return [
        Job(
            f"{name or 'defaults'} {'' if value is None and not name else value}, seed {seed}",
            {"choice": name, "value": value, "samples": samples, "seed": seed},
        )
        for name, value in chain([("", None)], others)
        for seed in range(seeds)
    ]


def with_ratio(spec: NetworkSpec, ratio: float) -> NetworkSpec:
    """`spec` with units that shrink by `ratio` from each population to the next one."""
    last = len(spec.populations) - 1
    populations = tuple(
        p.model_copy(update={"unit": ratio ** (last - n)}) for n, p in enumerate(spec.populations)
    )
    return spec.model_copy(update={"populations": populations})


def compute(
    shared: tuple[NetworkSpec, Dataset], job: Job, tell: Callable[[Any], None]
) -> list[dict[str, Any]]:
    """The row of `job`: its facts, validation accuracy, cosine and processor seconds."""
    (spec, data), facts = shared, job.facts
    settings = dict(AS_COMPILED)
    if facts["choice"]:
        settings[facts["choice"]] = facts["value"]
    network = Network(with_ratio(spec, settings.pop("ratio")), facts["seed"])
    margin = settings.pop("margin")
    with warnings.catch_warnings():
        # Whether a recurrent drive settles is what some of the choices are about.
        warnings.simplefilter("ignore", LeakWarning)
        program = compilers.compile(
            network, code="spike", learn=settings.pop("rule"), check=False, **settings
        )
    plan = Plan(facts["samples"], batch=BATCH, seed=facts["seed"], points=1, margin=margin)
    began = time.process_time()
    learnt = learn(plastic(program), data, plan, test=data.val)
    spent = time.process_time() - began
    last = learnt.history[-1]
    row = {**facts, "accuracy": learnt.accuracy_after, "cosine": last["cosine"], "seconds": spent}
    tell(row)
    return [row]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean over seeds of each row in Markdown, with the range of its accuracy."""
    lines = [
        "| choice | value | validation accuracy | cosine | CPU time |",
        "|---|---|---|---|---|",
    ]
    by_row: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_row.setdefault((row["choice"], row["value"]), []).append(row)
    for (name, value), some in by_row.items():
        right = [100 * row["accuracy"] for row in some]
        cosine, spent = (np.mean([row[key] for row in some]) for key in ("cosine", "seconds"))
        said = "float" if name and value is None else value
        lines.append(
            f"| {f'`{name}`' if name else 'as compiled'} | {said if name else ''} "
            f"| {np.mean(right):.1f} % ({min(right):.1f} to {max(right):.1f}) "
            f"| {cosine:.2f} | {spent:.0f} s |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study; see the module's docstring."""
    parser = argparse.ArgumentParser(description="which choices matter to spikes that learn")
    parser.add_argument("--network", default="zoo:digits_dense", help="spec in YAML, or zoo:NAME")
    parser.add_argument("--only", action="append", default=[], choices=list(CHOICES))
    parser.add_argument("--samples", type=int, default=SAMPLES)
    given, workers = read_words(parser, arguments)
    spec, data = open_model(given.network).network.spec, datasets.load("digits")
    inputs = {"network": spec.to_yaml(), "data": data.digest}
    kept = Kept(given.directory / JOBS, "learning choices", inputs)
    todo = jobs(given.seeds, given.samples, given.only)
    found = run_shown("learning", compute, (spec, data), todo, workers=workers, kept=kept)
    rows = [row for some in found for row in some or ()]
    write_numbers(given.directory, {"samples": given.samples, "rows": rows}, "rows")
    write_file(given.directory / TABLE, table(rows).encode(), ConfigError, marker=b"| choice |")
    print(table(rows), end="")


if __name__ == "__main__":
    from ep_neuro.cli.ending import exit_code

    sys.exit(exit_code(main, debug=False))
