"""Images on disk, one folder a class (torchvision's ImageFolder layout), as arrays."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ep_neuro.errors import DataError
from ep_neuro.storage.value_checks import refuse_swollen

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the files that count as images, in any case."""

_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


SPLITS = ("train", "val", "test")

_LIKE_SPLITS = {*SPLITS, "training", "valid", "validation", "dev", "testing", "eval"}
"""Names, in any case, under which folders of class folders are splits."""

Listing = dict[str, list[Path]]
"""Images by class."""


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits in `folder`, by name; itself as ``train`` if it holds classes.

    Warns of folders with images that are left out.

    Raises
    ------
    DataError
        If it has folders of class folders that are called like splits, but no train or no test.
    """
    found = {d.name: d for d in _folders(folder)}
    if {"train", "test"} <= found.keys():
        for name in sorted(found.keys() - set(SPLITS)):
            if any(map(_is_image, found[name].rglob("*"))):
                _warn(folder, f"the folder {name} is none of {', '.join(SPLITS)}")
        return {split: found[split] for split in SPLITS if split in found}
    like = [n for n, d in found.items() if n.lower() in _LIKE_SPLITS and _holds_folders_alone(d)]
    if like:
        missing = [split for split in ("train", "test") if split not in found]
        raise DataError(
            f"folder {folder}",
            f"it has {' and '.join(like)}, but no {' and no '.join(missing)}",
            "call its splits train, test and, if there is one, val (else some of train is held "
            f"out), or give one of them alone, {folder / like[0]}, which is then split",
        )
    return {"train": folder}


def read(
    folders: Sequence[Path], shape: Sequence[int] | None = None
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """Pixels and labels of each of `folders`, and the names of their classes.

    Folders are parts of one data set: they share classes, channels and size. Classes are the
    subfolders of the first; they and the files are in the order of their names. Warns of files that
    are left out.

    Parameters
    ----------
    shape : (channels, height, width), optional
        Convert and resize every image to this; without it images are grey only if all of them
        are, and their sizes must agree.

    Returns
    -------
    parts : list of (x, y)
        ``x`` (N, channels, height, width) uint8, ``y`` (N,) int64.
    classes : list of str

    Raises
    ------
    DataError
        If a class has no images or is not in the first folder, or an image is damaged or of
        another size.
    """
    listings = [_listed(folder) for folder in folders]
    classes = list(listings[0])
    for folder, listing in zip(folders, listings, strict=True):
        for name in listing.keys() - set(classes):
            raise DataError(
                f"class folder {folder / name}",
                "training has no class of this name",
                f"choose from {', '.join(classes)}",
            )
    if shape is None:
        every = [p for listing in listings for paths in listing.values() for p in paths]
        shape = _common_shape(every)
        unpacked, packed = math.prod((len(every), *shape)), sum(p.stat().st_size for p in every)
        refuse_swollen(f"folder {folders[0]}", unpacked, packed, "store smaller images")
    channels, height, width = _checked_shape(shape)
    parts = []
    for listing in listings:
        labelled = [(p, label) for label, c in enumerate(classes) for p in listing.get(c, ())]
        x = np.stack([_pixels(path, channels, (width, height)) for path, _ in labelled])
        parts.append((x, np.array([label for _, label in labelled], dtype=np.int64)))
    return parts, classes


def _listed(folder: Path) -> Listing:
    """The images of each class folder in `folder`, sorted; warns of files that are left out."""
    found: Listing = {}
    left_out: list[Path] = []
    for inside in _folders(folder):
        files = sorted(p for p in inside.rglob("*") if p.is_file())
        found[inside.name] = [p for p in files if _is_image(p)]
        left_out += [p for p in files if not (_is_image(p) or _hidden(p))]
    empty = [name for name, paths in found.items() if not paths]
    if len(empty) == len(found):
        raise DataError(
            f"folder {folder}",
            "it holds no class folders with images",
            f"put the images of each class in a folder of its own: {folder}/CLASS/IMAGE.png",
        )
    if empty:
        raise DataError(
            f"class folder {folder / empty[0]}",
            f"it holds no images ({', '.join(SUFFIXES)})",
            "add some, or remove the folder",
        )
    if left_out:
        endings = ", ".join(sorted({p.suffix.lower() or "no ending" for p in left_out}))
        _warn(folder, f"{_count(len(left_out), 'file')} no images that are read ({endings})")
    if beside := sum(map(_is_image, folder.iterdir())):
        _warn(folder, f"{_count(beside, 'image')} in no class folder")
    return found


def _folders(folder: Path) -> list[Path]:
    return [d for d in sorted(folder.iterdir()) if d.is_dir() and not _hidden(d)]


def _holds_folders_alone(folder: Path) -> bool:
    return bool(_folders(folder)) and not any(map(_is_image, folder.iterdir()))


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _count(number: int, what: str) -> str:
    return f"1 {what} is" if number == 1 else f"{number} {what}s are"


def _warn(folder: Path, left_out: str) -> None:
    warnings.warn(f"folder {folder}: {left_out}; left out", stacklevel=4)


def _checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise DataError(
            f"image shape {list(shape)}",
            "images are [channels, height, width] with 1 or 3 channels",
            "give such a shape",
        )
    return shape[0], shape[1], shape[2]


def _common_shape(paths: Sequence[Path]) -> tuple[int, int, int]:
    """Shape that all images have; only their headers are read."""
    sizes: dict[tuple[int, int], Path] = {}
    modes = set()
    for path in paths:
        with _opened(path) as image:
            sizes.setdefault(image.size, path)
            modes.add(image.mode)
    (size, first), *others = sizes.items()
    if others:
        (width, height), path = others[0]
        raise DataError(
            f"image {path}",
            f"it is {width} x {height} pixels, {first} is {size[0]} x {size[1]}",
            "resize them to one size, or take a network whose input is [channels, height, "
            "width]: they are then brought to that",
        )
    return 1 if modes <= set(_GREY) else 3, size[1], size[0]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        file = Image.open(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    with file as image:
        unpacked, packed = 3 * image.width * image.height, path.stat().st_size
        refuse_swollen(f"image {path}", unpacked, packed, "store it smaller")
        if image.mode not in (*_GREY, *_COLOUR):
            problem = f"pixels of mode {image.mode} are not 8 bits"
            raise DataError(f"image {path}", problem, "save it with 8 bits")
        yield image


def _pixels(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """One image as (channels, height, width) bytes; `size` is (width, height)."""
    with _opened(path) as file:
        try:
            image = file.convert("L" if channels == 1 else "RGB")
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise _unreadable(path, error) from error
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    raw = np.asarray(image, dtype=np.uint8)
    return raw[None] if raw.ndim == 2 else raw.transpose(2, 0, 1)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"image {path}", f"cannot be read ({error})", "replace or delete it")
