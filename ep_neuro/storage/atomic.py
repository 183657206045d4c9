"""Atomic writes: a reader finds the old file or directory, or the whole new one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ep_neuro.errors import EPNeuroError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary sibling, fsync and rename.

    Raises
    ------
    OSError
        If the disk refuses, with `path` as its file name; the old file, if any, is then untouched.
    """
    path = Path(path)
    temporary = _sibling(path)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        # What fails behind an open file, as on a full disk, does not say where.
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: str | Path, data: bytes, error: type[EPNeuroError], subject: str = "") -> Path:
    """`write_atomic` into a folder that is made if there is none; the file written.

    Raises
    ------
    EPNeuroError
        Of class `error`, about `subject` (by default `path`), if the disk refuses.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as problem:
        raise _refused(subject or str(path), problem, error) from problem
    return path


@contextlib.contextmanager
def replace_directory(
    path: str | Path, *, marker: str, error: type[EPNeuroError]
) -> Iterator[Path]:
    """Fill a new directory that takes the place of `path` when the block ends well.

    Parameters
    ----------
    path : path
        Where the directory shall be; parents are made. What stands there is replaced only if it
        is an empty directory or holds a file called `marker`, that is, one of our own.
    marker : str
        File that every directory of this kind holds.
    error : type
        Class of the error to raise when `path` is something else, or the disk refuses.

    Yields
    ------
    Path
        A temporary sibling to write into; it vanishes if the block raises.
    """
    path = Path(path)
    refuse_foreign(path, marker, error)
    # A link stays a link: what it leads to is replaced.
    place = path.resolve()
    temporary = _sibling(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*"), reverse=True):
            _sync(file)
        _sync(temporary)
        _take_place(temporary, place)
        _sync(place.parent)
    except OSError as problem:
        raise _refused(str(path), problem, error) from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Remove a directory at once: what remains if the process is killed meanwhile is a leftover."""
    gone = _sibling(path)
    os.rename(path, gone)
    shutil.rmtree(gone)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what a process that was killed while it wrote left in `folder` under temporary names.

    For a folder into which one process writes at a time.
    """
    for path in _leftovers(Path(folder)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _leftovers(folder: Path) -> set[Path]:
    return set(folder.glob(f".*.{'[0-9a-f]' * 8}.tmp"))


def is_free(path: Path) -> bool:
    """Whether there is nothing at `path`, or a directory with nothing but leftovers in it."""
    if path.is_dir():
        return set(path.iterdir()) <= _leftovers(path)
    return not (path.exists() or path.is_symlink())


def refuse_foreign(path: Path, marker: str, error: type[EPNeuroError]) -> None:
    """Raise `error` if something stands at `path` that is no directory with a file `marker`."""
    if is_free(path) or (path / marker).is_file():
        return
    if path.is_dir():
        problem = f"is a directory with other content (no {marker} in it)"
    else:
        problem = "exists and is no directory"
    raise error(str(path), problem, "choose another path, or remove it yourself")


def _take_place(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`; an old `path` ends up at `temporary`."""
    if not path.exists():
        os.rename(temporary, path)
    elif not _exchange(temporary, path):
        # Without an exchange in the kernel the path is absent between the two renames, and
        # a crash just there leaves the old content beside it under its temporary name.
        aside = _sibling(path)
        os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except OSError:
            os.rename(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step (Linux ``renameat2``); False where that is not to be had."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(
        renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0
    )


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _refused(subject: str, problem: OSError, error: type[EPNeuroError]) -> EPNeuroError:
    reason = problem.strerror or str(problem)
    return error(subject, f"cannot be written ({reason})", "choose another place")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
