"""The directory of a training run: what may stand there, who writes there, what it is called."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from ep_neuro.errors import ConfigError
from ep_neuro.storage.atomic import is_free, refuse_foreign, remove_directory

MARKER = "last/spec.yaml"
"""File that every run has from its first moment on."""

WRITTEN = ("best", "config.yaml", "metrics.jsonl", "curves.svg", "tensorboard", "last")
"""All that a run writes into its directory; what tells that it is one goes last."""


def check_run_place(
    place: Path, marker: str = MARKER, *, resume: bool = False, force: bool = False
) -> None:
    """Refuse a place where a run would replace what it was not told to replace.

    Parameters
    ----------
    place : path
        A run directory, an empty one, or one to be made.
    marker : str
        File of every run of this kind.
    resume, force : bool
        Whether the run that stands there goes on, or is replaced.

    Raises
    ------
    ConfigError
        If it holds something else than a run, or a run and neither is said, or both are.
    """
    if resume and force:
        raise ConfigError(
            "--resume with --force", "one goes on with a run, one replaces it", "choose one"
        )
    refuse_foreign(place, marker, ConfigError)
    if (place / marker).is_file() and not (resume or force):
        raise ConfigError(
            f"run directory '{place}'",
            "holds a run already",
            "go on with it (--resume), replace it (--force), or choose another place (--out)",
        )


def keep_start(start: str | None, place: Path) -> None:
    """Raise `ConfigError` if to replace `place` would take the run away that weights come from."""
    if start is None:
        return
    if place.resolve() in (Path(start).resolve(), Path(start).resolve().parent):
        raise ConfigError(
            f"start: {start}",
            f"is in the run directory '{place}', which is to be replaced",
            "choose another place (--out)",
        )


@contextlib.contextmanager
def claimed(
    place: Path | None, marker: str = MARKER, *, resume: bool = False, force: bool = False
) -> Iterator[None]:
    """Hold `place` for one run as long as the block lasts; None holds nothing.

    The directory is made, and goes again if nothing was written there.

    Raises
    ------
    ConfigError
        As `check_run_place`; if another run is going on there; or if it cannot be made.
    """
    if place is None:
        yield
        return
    check_run_place(place, marker, resume=resume, force=force)
    made = [p for p in (place, *place.parents) if not p.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise ConfigError(f"run directory '{place}'", problem, "choose another place") from None
    try:
        _lock(descriptor, place)
        # What another run wrote until it let go.
        check_run_place(place, marker, resume=resume, force=force)
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def _lock(descriptor: int, place: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"run directory '{place}'",
            "another run is going on there",
            "wait for its end, or choose another place (--out)",
        ) from None
    except OSError:
        # Some network file systems lock no directories; a run there is nobody's fault.
        return


def clear(place: Path) -> None:
    """Remove what an earlier run wrote into `place`, and nothing else."""
    for name in WRITTEN:
        path = place / name
        if path.is_dir() and not path.is_symlink():
            remove_directory(path)
        else:
            path.unlink(missing_ok=True)


def default_place(wanted: Path, *, resume: bool = False, force: bool = False) -> Path:
    """Where a run goes that was given no place.

    `wanted` itself to replace what is there; to begin, that or the first of ``wanted-2``,
    ``wanted-3``, ... that is free; to go on, the one of them that holds a run.

    Raises
    ------
    ConfigError
        If there are several to go on with.
    """
    if force:
        return wanted
    numbered = (wanted.with_name(f"{wanted.name}-{n}") for n in itertools.count(2))
    places = itertools.chain([wanted], numbered)
    taken = list(itertools.takewhile(lambda place: not is_free(place), places))
    if not resume:
        return wanted if not taken else wanted.with_name(f"{wanted.name}-{len(taken) + 1}")
    runs = [place for place in taken if (place / MARKER).is_file()]
    if len(runs) > 1:
        raise ConfigError(
            "--resume", f"there are runs at {', '.join(map(str, runs))}", "name one with --out"
        )
    return runs[0] if runs else wanted
