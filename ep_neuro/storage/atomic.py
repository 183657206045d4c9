"""Atomic writes: a reader finds the old file or directory, or the whole new one."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import mmap
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
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
    try:
        with _locked_sibling(path, _new_file) as temporary:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync(path.parent)
    except OSError as error:
        # What fails behind an open file, as on a full disk, does not say where.
        error.filename = str(path)
        raise


def write_file(
    path: str | Path, data: bytes, error: type[EPNeuroError], *, marker: bytes, subject: str = ""
) -> Path:
    """`write_atomic` into a folder that is made if there is none; the file written.

    Raises
    ------
    EPNeuroError
        Of class `error`, about `subject` (by default `path`), if the disk refuses, or what stands
        there is not ours: `refuse_foreign`.
    """
    path = Path(path)
    try:
        refuse_foreign(path, marker, error)
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
    try:
        refuse_foreign(path, marker, error)
        # A link stays a link: what it leads to is replaced.
        place = path.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked_sibling(place, Path.mkdir) as temporary:
            yield temporary
            for file in sorted(temporary.rglob("*"), reverse=True):
                _sync(file)
            _sync(temporary)
            _take_place(temporary, place)
            _sync(place.parent)
    except OSError as problem:
        raise _refused(str(path), problem, error) from problem


def remove_directory(path: Path) -> None:
    """Remove a directory at once: what remains if the process is killed meanwhile is a leftover."""
    gone = _sibling(path)
    os.rename(path, gone)
    _remove(gone)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left in `folder` when they wrote `name`, a glob pattern.

    What a living process writes is locked, and stays; so does everything where there are no locks.
    """
    for path in _leftovers(folder, name):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(descriptor)


def _leftovers(folder: Path, name: str = "*") -> set[Path]:
    return set(folder.glob(f".{name}.{'[0-9a-f]' * 8}.tmp"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_free(path: Path) -> bool:
    """Whether there is nothing at `path`, or a directory of leftovers and empty folders only."""
    if not path.is_dir():
        return not os.path.lexists(path)
    try:
        inside = set(path.iterdir()) - _leftovers(path)
    except OSError:
        return False
    return all(p.is_dir() and not p.is_symlink() and is_free(p) for p in inside)


def refuse_foreign(path: Path, marker: str | bytes, error: type[EPNeuroError]) -> None:
    """Raise `error` if something stands at `path` that we did not write.

    Parameters
    ----------
    path : Path
        A place that is to be written.
    marker : str or bytes
        What tells ours: a file of this name in a directory, or these bytes in a file.
    error : type
        Class of the error to raise.
    """
    if isinstance(marker, str):
        kind, right, ours = "directory", path.is_dir(), (path / marker).is_file()
    else:
        kind, right, ours = "file", path.is_file(), _holds(path, marker)
    if ours or is_free(path):
        return
    problem = f"exists and is no {kind}"
    if right:
        shown = marker if isinstance(marker, str) else f"'{marker.decode()}'"
        problem = f"is a {kind} with other content (no {shown} in it)"
    raise error(str(path), problem, "choose another path, or remove it yourself")


def _holds(path: Path, marker: bytes) -> bool:
    """Whether `path` is a file with `marker` in it, or an empty one, which is nobody's."""
    with contextlib.suppress(OSError):
        if not path.is_file() or not path.stat().st_size:
            return path.is_file()
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return bool(marker) and content.find(marker) >= 0
    return False


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


def _new_file(path: Path) -> None:
    path.touch(exist_ok=False)


@contextlib.contextmanager
def _locked_sibling(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A temporary sibling of `path` that `make` makes; it vanishes with the block.

    It is locked, so that nobody takes it for a leftover. Leftovers of `path` go when the block ends
    well, and not before: one of them may be all that is there of the old content.
    """
    temporary, descriptor = _made(path, make)
    try:
        yield temporary
        remove_leftovers(path.parent, glob.escape(path.name))
    finally:
        _remove(temporary)
        os.close(descriptor)


def _made(path: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    """A new sibling of `path`, and the descriptor that holds its lock."""
    while True:
        temporary = _sibling(path)
        make(temporary)
        # Until it is locked, another process may take it for a leftover.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(temporary, os.O_RDONLY)
            # Some network file systems have no locks, and then nobody removes leftovers.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if temporary.exists():
                return temporary, descriptor
            os.close(descriptor)


def _refused(subject: str, problem: OSError, error: type[EPNeuroError]) -> EPNeuroError:
    reason = problem.strerror or str(problem)
    return error(subject, f"cannot be written ({reason})", "choose another place")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
