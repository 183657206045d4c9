"""Jobs for tests of studies, at the top of a module, as other processes want them.

``python -m tests.helpers.study_jobs FOLDER`` runs two that never end, each in a process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from targets.experiments.studies.jobs import Job, Workers, run

NUMBERS = [Job(f"number {n}", {"n": n}) for n in range(4)]


def powers(folder: Path, job: Job, tell: Callable[[Any], None]) -> list[Any]:
    """Two rows of a number; a line in a file of `folder` whenever it starts."""
    n = job.facts["n"]
    with (folder / str(n)).open("a") as starts:
        starts.write("x")
    if n == 3:
        warnings.warn("three is odd", stacklevel=2)
    rows = [{"n": n, "power": p, "all": np.arange(n, dtype=np.float64) ** p} for p in (2, 3)]
    for row in rows:
        tell(row)
    return rows


def dying_once(folder: Path, job: Job, tell: Callable[[Any], None]) -> list[Any]:
    """`powers`, whose worker is killed when number 2 starts for the first time."""
    rows = powers(folder, job, tell)
    if job.facts["n"] == 2 and starts(folder)[2] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return rows


def dying(folder: Path, job: Job, tell: Callable[[Any], None]) -> list[Any]:
    """`powers`, whose worker is killed whenever number 2 starts."""
    rows = powers(folder, job, tell)
    if job.facts["n"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return rows


def endless(folder: Path, job: Job, tell: Callable[[Any], None]) -> list[Any]:
    """Writes the id of its process, and sleeps."""
    (folder / f"pid{job.facts['n']}").write_text(str(os.getpid()))
    time.sleep(600)
    return []


def starts(folder: Path) -> list[int]:
    """How often each of `NUMBERS` has started."""
    files = [folder / str(job.facts["n"]) for job in NUMBERS]
    return [len(file.read_text()) if file.exists() else 0 for file in files]


if __name__ == "__main__":
    from ep_neuro.cli.ending import exit_code

    sys.exit(
        exit_code(
            lambda: run(endless, Path(sys.argv[1]), NUMBERS[:2], workers=Workers(jobs=2)),
            debug=False,
        )
    )
