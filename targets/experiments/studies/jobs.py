"""Studies as independent jobs, each with a key of its own, whose results are kept one by one."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import ep_neuro
from ep_neuro.errors import ConfigError, DataError, RunError
from ep_neuro.storage.atomic import refuse_foreign, write_file
from targets.experiments.studies.workers import Job, Work, Workers

MANIFEST = "jobs.json"
"""What tells a folder of kept jobs: the study, and the inputs that all of its jobs share."""

NUMBERS = "study.json"
"""File of every study."""

JOBS = "jobs"
"""Folder in it of what is measured so far."""

FACTS, ROWS, ARRAY = "job", "rows", "array of this file"
"""What the file of a job says beside its arrays, and how its rows refer to those."""

Log = Callable[[str], None]


class Kept:
    """The rows of a study's jobs in `folder`, a file each, written whole.

    Parameters
    ----------
    folder : Path
        It is made if there is none.
    study : str
        What runs.
    inputs : mapping of str to str
        What all jobs share, by the name that an error gives it: digests of model and data.

    Raises
    ------
    ConfigError
        If `folder` holds anything but jobs of this study and these inputs, or the disk refuses.
    """

    def __init__(self, folder: Path, study: str, inputs: Mapping[str, str]) -> None:
        self.folder = folder
        asked = {"study": study, **inputs, "version of ep-neuro": ep_neuro.__version__}
        refuse_foreign(folder, MANIFEST, ConfigError)
        if (folder / MANIFEST).is_file():
            self._refuse_others(asked)
        text = json.dumps(asked, indent=1) + "\n"
        write_file(folder / MANIFEST, text.encode(), ConfigError, marker=b'"study"')

    def _refuse_others(self, asked: Mapping[str, str]) -> None:
        try:
            found = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            other = next((name for name in asked if found.get(name) != asked[name]), None)
        except (ValueError, AttributeError):
            other = "study"
        if other is not None:
            problem = f"holds jobs of other inputs ({other} differs)"
            raise ConfigError(str(self.folder), problem, "choose another folder, or remove it")

    def known(self, jobs: Sequence[Job]) -> dict[str, list[Any]]:
        """By key, the rows of those `jobs` that are there."""
        return {job.key: rows for job in jobs if (rows := self.load(job)) is not None}

    def load(self, job: Job) -> list[Any] | None:
        """The rows of `job`; None if they are not there."""
        path = self._path(job)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "numpy") as file:
                notes = file.metadata() or {}
                names = file.keys()
                arrays = {name: file.get_tensor(name) for name in names}
            if json.loads(notes[FACTS]) == job.facts:
                return list(_with_arrays(json.loads(notes[ROWS]), arrays))
            problem = "holds another job"
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            problem = f"cannot be read ({error})"
        raise DataError(str(path), problem, "remove it, and the job runs again")

    def save(self, job: Job, rows: Sequence[Any]) -> None:
        """Keep the rows of `job`: what JSON holds, and arrays."""
        arrays: dict[str, np.ndarray] = {}
        notes = {FACTS: json.dumps(job.facts), ROWS: json.dumps(_without_arrays(rows, arrays))}
        content = save(arrays, notes)
        write_file(self._path(job), content, ConfigError, marker=ROWS.encode())

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.key}.safetensors"


def _without_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """`value` in JSON's types; its arrays go into `arrays`."""
    if isinstance(value, np.ndarray):
        arrays[str(len(arrays))] = np.ascontiguousarray(value)
        return {ARRAY: str(len(arrays) - 1)}
    if isinstance(value, Mapping):
        return {name: _without_arrays(one, arrays) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(one, arrays) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `_without_arrays` was given, with lists for tuples."""
    if isinstance(value, list):
        return [_with_arrays(one, arrays) for one in value]
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return arrays[value[ARRAY]]
        return {name: _with_arrays(one, arrays) for name, one in value.items()}
    return value


def check_study(directory: Path) -> None:
    """Refuse a `directory` that can be no place of a study, with `ConfigError`.

    One that was stopped before its numbers were written is known by its jobs.
    """
    from ep_neuro.cli.console import check_place

    begun = f"{JOBS}/{MANIFEST}"
    check_place(directory, marker=begun if (directory / begun).is_file() else NUMBERS)


def read_words(
    parser: argparse.ArgumentParser, words: Sequence[str] | None
) -> tuple[argparse.Namespace, Workers]:
    """What a study's script is told: its directory, --seeds, and who does the jobs.

    `parser` knows what else it takes, --samples for instance. ``SystemExit`` if a count is below 1.

    Raises
    ------
    ConfigError
        If the directory holds something else, or as `Workers`.
    """
    parser.add_argument("directory", type=Path, help="where figures and numbers go")
    parser.add_argument("--seeds", type=int, default=3)
    Workers.add_options(parser)
    given = parser.parse_args(words)
    for name in ("seeds", "samples"):
        if (value := getattr(given, name, 1)) < 1:
            parser.error(f"--{name} {value}: give at least 1")
    workers = Workers(given.jobs, given.dask)
    check_study(given.directory)
    return given, workers


def write_numbers(directory: Path, found: Mapping[str, Any], marker: str) -> None:
    """Write `NUMBERS`, known by its field `marker`; `ConfigError` if another file stands there."""
    text = json.dumps(found, indent=1).encode()
    write_file(directory / NUMBERS, text, ConfigError, marker=f'"{marker}"'.encode())


def run(
    work: Work,
    shared: Any,
    jobs: Sequence[Job],
    *,
    workers: Workers | None = None,
    kept: Kept | None = None,
    tell: Callable[[Job, Any], None] = lambda job, row: None,
    lost: list[str] | None = None,
    log: Log | None = None,
) -> list[list[Any] | None]:
    """The rows of every job, in the order of `jobs`, whoever computes them and whenever.

    Parameters
    ----------
    work : callable
        ``work(shared, job, tell)`` gives the rows of a job, and may tell of each as it comes. For
        other processes it stands at the top of a module.
    shared : Any
        What all jobs take; it can be pickled.
    jobs : sequence of Job
        With different facts.
    workers : Workers, optional
        Where they run; one after another in this process by default.
    kept : Kept, optional
        Where rows are kept as they come. Jobs that are there do not run.
    tell : callable, optional
        Told of each row: of those kept at once, in this process as they come, else job by job.
    lost : list of str, optional
        Takes the names of jobs that killed their workers, whose rows are None.
    log : callable, optional
        Told how many jobs are kept.

    Raises
    ------
    RunError
        Without `lost`, at the end, if jobs killed their workers; or if a cluster goes away.
    """
    workers, gone = workers or Workers(), [] if lost is None else lost
    found = {} if kept is None else kept.known(jobs)
    if kept is not None and found and log is not None:
        log(f"{len(found)} of {len(jobs)} jobs are in {kept.folder}, and do not run again")
    for job in jobs:
        for row in found.get(job.key, ()):
            tell(job, row)
    missing = [job for job in jobs if job.key not in found]
    with contextlib.closing(workers.each(work, shared, missing, tell)) as ended:
        for job, rows in ended:
            if rows is None:
                gone.append(job.name)
                continue
            found[job.key] = rows
            if kept is not None:
                kept.save(job, rows)
    if lost is None:
        refuse_lost(gone, None if kept is None else kept.folder)
    return [found.get(job.key) for job in jobs]


def run_shown(
    what: str,
    work: Work,
    shared: Any,
    jobs: Sequence[Job],
    *,
    workers: Workers,
    kept: Kept,
    said: Callable[[Any], str] | None = None,
    lost: list[str] | None = None,
) -> list[list[Any] | None]:
    """`run` for a script: progress at `what` on stderr; on stdout, what is `said` of each new row.

    Raises
    ------
    RunError
        As `run` does.
    """
    from ep_neuro.cli.console import log, progress

    known, done = kept.known(jobs), itertools.count(1)
    with progress(what) as advance:

        def tell(job: Job, row: Any) -> None:
            n = next(done)
            advance(n, len(jobs), job.name)
            if said is not None and job.key not in known:
                print(f"{n}/{len(jobs)} {job.name}: {said(row)}", flush=True)

        return run(work, shared, jobs, workers=workers, kept=kept, tell=tell, lost=lost, log=log)


def refuse_lost(lost: Sequence[str], folder: Path | None) -> None:
    """Raise `RunError` if jobs are `lost`; `folder` is where the others are kept."""
    if lost:
        names = ", ".join(f"'{name}'" for name in lost)
        kept = "call again" if folder is None else f"call again: the others are in {folder}"
        raise RunError(
            f"job{'s' * (len(lost) > 1)} {names}",
            "killed every worker that took it, the last time alone",
            f"take fewer samples or workers if memory ran out, and {kept}",
        )
