"""Folders of class folders: their splits, their classes, and the files of each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ep_neuro.errors import DataError

SPLITS = ("train", "val", "test")

_LIKE_SPLITS = {*SPLITS, "training", "valid", "validation", "dev", "testing", "eval"}
"""Names, in any case, under which folders of class folders are splits."""

Listing = dict[str, list[Path]]
"""Files by class."""


@dataclass(frozen=True)
class Kind:
    """What counts as a sample: a `noun` for it, and the endings of its files, in any case."""

    noun: str
    suffixes: tuple[str, ...]

    def holds(self, path: Path) -> bool:
        """Whether `path` is a file of this kind."""
        return path.suffix.lower() in self.suffixes and path.is_file()


def listings(folders: Sequence[Path], kind: Kind) -> tuple[list[Listing], list[str]]:
    """The files of each of `folders`, and the names of their classes.

    Folders are parts of one data set. Classes are the subfolders of the first; they and the files
    are in the order of their names. Warns of files that are left out.

    Raises
    ------
    DataError
        If a class has no files, or is not in the first folder.
    """
    found = [_listed(folder, kind) for folder in folders]
    classes = list(found[0])
    for folder, listing in zip(folders, found, strict=True):
        for name in listing.keys() - set(classes):
            raise DataError(
                f"class folder {folder / name}",
                "training has no class of this name",
                f"choose from {', '.join(classes)}",
            )
    return found, classes


def labelled(listing: Listing, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Every file of `listing` with the number of its class."""
    return [(p, label) for label, c in enumerate(classes) for p in listing.get(c, ())]


def split_folders(folder: Path, kind: Kind) -> dict[str, Path]:
    """The folders of the splits in `folder`, by name; itself as ``train`` if it holds classes.

    ``valid`` is another name of ``val``. Warns of folders with samples that are left out.

    Raises
    ------
    DataError
        If it has folders of class folders that are called like splits, but no train or no test.
    """
    found = {d.name: d for d in _folders(folder)}
    if {"train", "test", "valid"} <= found.keys() and "val" not in found:
        found["val"] = found.pop("valid")
    if {"train", "test"} <= found.keys():
        for name in sorted(found.keys() - set(SPLITS)):
            if any(map(kind.holds, found[name].rglob("*"))):
                _warn(folder, f"the folder {name} is none of {', '.join(SPLITS)}")
        return {split: found[split] for split in SPLITS if split in found}
    like = [
        n for n, d in found.items() if n.lower() in _LIKE_SPLITS and _holds_folders_alone(d, kind)
    ]
    if like:
        missing = [split for split in ("train", "test") if split not in found]
        raise DataError(
            f"folder {folder}",
            f"it has {' and '.join(like)}, but no {' and no '.join(missing)}",
            "call its splits train, test and, if there is one, val (else some of train is held "
            f"out), or give one of them alone, {folder / like[0]}, which is then split",
        )
    return {"train": folder}


def _listed(folder: Path, kind: Kind) -> Listing:
    """The samples of each class folder in `folder`, sorted; warns of files that are left out."""
    found: Listing = {}
    left_out: list[Path] = []
    for inside in _folders(folder):
        files = sorted(p for p in inside.rglob("*") if p.is_file())
        found[inside.name] = [p for p in files if kind.holds(p)]
        left_out += [p for p in files if not (kind.holds(p) or _hidden(p))]
    empty = [name for name, paths in found.items() if not paths]
    if len(empty) == len(found):
        raise DataError(
            f"folder {folder}",
            f"it holds no class folders with {kind.noun}s",
            f"put the {kind.noun}s of each class in a folder of its own: "
            f"{folder}/CLASS/{kind.noun.upper()}{kind.suffixes[-1]}",
        )
    if empty:
        raise DataError(
            f"class folder {folder / empty[0]}",
            f"it holds no {kind.noun}s ({', '.join(kind.suffixes)})",
            "add some, or remove the folder",
        )
    if left_out:
        endings = ", ".join(sorted({p.suffix.lower() or "no ending" for p in left_out}))
        _warn(folder, f"{_count(len(left_out), 'file')} no {kind.noun}s that are read ({endings})")
    if beside := sum(map(kind.holds, folder.iterdir())):
        _warn(folder, f"{_count(beside, kind.noun)} in no class folder")
    return found


def _folders(folder: Path) -> list[Path]:
    return [d for d in sorted(folder.iterdir()) if d.is_dir() and not _hidden(d)]


def _holds_folders_alone(folder: Path, kind: Kind) -> bool:
    return bool(_folders(folder)) and not any(map(kind.holds, folder.iterdir()))


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _count(number: int, what: str) -> str:
    return f"1 {what} is" if number == 1 else f"{number} {what}s are"


def _warn(folder: Path, left_out: str) -> None:
    warnings.warn(f"folder {folder}: {left_out}; left out", stacklevel=4)
