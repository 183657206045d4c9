"""Images on disk, one folder a class (torchvision's ImageFolder layout), as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ep_neuro.errors import DataError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the files that count as images, in any case."""

_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def class_names(folder: Path) -> list[str]:
    """Names of the class folders in `folder`, sorted; `DataError` if one holds no image."""
    found = [d for d in sorted(folder.iterdir()) if d.is_dir() and not d.name.startswith(".")]
    empty = [d for d in found if not _files(d)]
    if len(empty) == len(found):
        raise DataError(
            f"folder {folder}",
            "it holds no class folders with images",
            f"put the images of each class in a folder of its own: {folder}/CLASS/IMAGE.png",
        )
    if empty:
        raise DataError(
            f"class folder {empty[0]}",
            f"it holds no images ({', '.join(SUFFIXES)})",
            "add some, or remove the folder",
        )
    return [d.name for d in found]


def read(
    folders: Sequence[Path], classes: Sequence[str], shape: Sequence[int] | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixels and labels of each of `folders`, which hold subfolders named as in `classes`.

    Parameters
    ----------
    folders : sequence of path
        Parts of one data set: they share channels and size.
    classes : sequence of str
        Class names in the order of their labels.
    shape : (channels, height, width), optional
        Convert and resize every image to this; without it images are grey only if all of them
        are, and their sizes must agree.

    Returns
    -------
    list of (x, y)
        ``x`` (N, channels, height, width) uint8, ``y`` (N,) int64, files in the order of their
        names.

    Raises
    ------
    DataError
        If a folder has a class that is not in `classes`, or an image is damaged or of another size.
    """
    listed = [_labelled(folder, classes) for folder in folders]
    if shape is None:
        shape = _common_shape([path for part in listed for path, _ in part])
    channels, height, width = _checked_shape(shape)
    parts = []
    for part in listed:
        x = np.stack([_pixels(path, channels, (width, height)) for path, _ in part])
        parts.append((x, np.array([label for _, label in part], dtype=np.int64)))
    return parts


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def _labelled(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    for name in class_names(folder):
        if name not in classes:
            raise DataError(
                f"class folder {folder / name}",
                "training has no class of this name",
                f"choose from {', '.join(classes)}",
            )
    return [(p, label) for label, name in enumerate(classes) for p in _files(folder / name)]


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
    first: tuple[int, int] | None = None
    grey = True
    for path in paths:
        with _opened(path) as image:
            size, mode = image.size, image.mode
        first = first or size
        if size != first:
            raise DataError(
                f"image {path}",
                f"it is {size[0]} x {size[1]} pixels, {paths[0]} is {first[0]} x {first[1]}",
                "resize the images to one size, or give a shape to resize them to",
            )
        grey = grey and mode in _GREY
    assert first is not None
    return 1 if grey else 3, first[1], first[0]


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    if image.mode not in (*_GREY, *_COLOUR):
        image.close()
        raise DataError(
            f"image {path}", f"pixels of mode {image.mode} are not 8 bits", "save it with 8 bits"
        )
    return image


def _pixels(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """One image as (channels, height, width) bytes; `size` is (width, height)."""
    with _opened(path) as image:
        try:
            image = image.convert("L" if channels == 1 else "RGB")
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise _unreadable(path, error) from error
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    raw = np.asarray(image, dtype=np.uint8)
    return raw[None] if raw.ndim == 2 else raw.transpose(2, 0, 1)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"image {path}", f"cannot be read ({error})", "replace or delete it")
