"""Stories told with several seeds, a job each: what examples 09 to 11 are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import targets
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset
from ep_neuro.errors import ConfigError
from targets.experiments.onchip.recovery import Recovery, told
from targets.experiments.studies.jobs import Job, Workers, run

Tell = Callable[[Dataset, str, int, int], dict[str, Recovery]]
"""Stories by name from digits, a target, a number of samples to learn, and a seed."""


def over_seeds(tell: Tell) -> None:
    """Be a script that tells stories on Lava, or on the reference where there is no Lava.

    Its words are ``[DIRECTORY] [SAMPLES] [SEEDS] [JOBS]``. It draws a figure of each story into
    DIRECTORY, and prints what came of it; of several seeds the means, too.
    `tell` stands at the top of a module, as other processes want it.
    """
    from ep_neuro.cli.ending import exit_code

    sys.exit(exit_code(partial(_over_seeds, tell), debug=False))


def _over_seeds(tell: Tell) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path, nargs="?", default=Path("runs/examples"))
    parser.add_argument("samples", type=int, nargs="?", default=3000)
    parser.add_argument("seeds", type=int, nargs="?", default=1)
    parser.add_argument("jobs", type=int, nargs="?", default=1)
    given = parser.parse_args()
    if given.seeds < 1:
        raise ConfigError(f"SEEDS {given.seeds}", "fewer than 1 seed", "give 1 or more")
    shared = (tell, datasets.load("digits"), targets.or_reference("lava", print), given.samples)
    jobs = [Job(f"seed {seed}", {"seed": seed}) for seed in range(given.seeds)]
    rows = run(_told_once, shared, jobs, workers=Workers(given.jobs))
    found = [one for some in rows for one in some or ()]
    for name in found[0]:
        figure = given.directory / f"recovery_{name}.svg"
        print("\n".join(told([by[name] for by in found], figure)))


def _told_once(
    shared: tuple[Tell, Dataset, str, int], job: Job, tell: Callable[[Any], None]
) -> list[dict[str, Recovery]]:
    stories, digits, target, samples = shared
    row = stories(digits, target, samples, job.facts["seed"])
    tell(row)
    return [row]
