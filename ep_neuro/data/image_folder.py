"""Images on disk, one folder a class (torchvision's ImageFolder layout), as arrays."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from ep_neuro.data import class_folders
from ep_neuro.data.class_folders import Kind
from ep_neuro.data.packed_images import Pixels
from ep_neuro.errors import DataError
from ep_neuro.storage.value_checks import refuse_swollen

IMAGES = Kind("image", (".bmp", ".jpeg", ".jpg", ".pgm", ".ppm", ".tif", ".tiff", ".webp", ".png"))
"""Files that count as images."""

_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

_TURNS = dict(
    zip(
        range(2, 9),
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        strict=True,
    )
)
"""What sets an image upright, by the number of its EXIF orientation; from 5 on sides swap."""


def read(
    folders: Sequence[Path],
    shape: Sequence[int] | None = None,
    resize: tuple[int, int] | None = None,
) -> tuple[list[Pixels], list[str]]:
    """Pixels and labels of each of `folders`, parts of one data set, and the names of its classes.

    They share classes (`class_folders.listings`), channels and size. Images are set upright by
    their EXIF orientation, and those of 16 bits are scaled to 8.

    Parameters
    ----------
    shape : (channels, height, width), optional
        Convert and resize every image to this; without it images are grey only if all of them
        are, and their sizes must agree.
    resize : (height, width), optional
        Without a `shape`, resize every image to this.

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
    listings, classes = class_folders.listings(folders, IMAGES)
    if shape is None:
        every = [p for listing in listings for paths in listing.values() for p in paths]
        shape = _common_shape(every, resize)
        unpacked, packed = math.prod((len(every), *shape)), sum(p.stat().st_size for p in every)
        refuse_swollen(f"folder {folders[0]}", unpacked, packed, "store smaller images")
    channels, height, width = _checked_shape(shape)
    parts = []
    for listing in listings:
        labelled = class_folders.labelled(listing, classes)
        x = np.stack([_pixels(path, channels, (width, height)) for path, _ in labelled])
        parts.append((x, np.array([label for _, label in labelled], dtype=np.int64)))
    return parts, classes


def _checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise DataError(
            f"image shape {list(shape)}",
            "images are [channels, height, width] with 1 or 3 channels",
            "give such a shape",
        )
    return shape[0], shape[1], shape[2]


def _common_shape(paths: Sequence[Path], resize: tuple[int, int] | None) -> tuple[int, int, int]:
    """Shape that all images have, or get by `resize`; only their headers are read."""
    sizes: dict[tuple[int, int], Path] = {}
    modes = set()
    for path in paths:
        with _opened(path) as image:
            lying = _orientation(image) > 4
            sizes.setdefault((image.height, image.width) if lying else image.size, path)
            modes.add("L" if _deep(image) else image.mode)
    channels = 1 if modes <= set(_GREY) else 3
    if resize is not None:
        return channels, resize[0], resize[1]
    (size, first), *others = sizes.items()
    if others:
        (width, height), path = others[0]
        raise DataError(
            f"image {path}",
            f"it is {width} x {height} pixels, {first} is {size[0]} x {size[1]}",
            f"train with resize: [{size[1]}, {size[0]}] (height, width), or take a network whose "
            "input is [channels, height, width]: they are then brought to that",
        )
    return channels, size[1], size[0]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        file = Image.open(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    with file as image:
        unpacked, packed = 3 * image.width * image.height, path.stat().st_size
        refuse_swollen(f"image {path}", unpacked, packed, "store it smaller")
        if image.mode not in (*_GREY, *_COLOUR) and not _deep(image):
            problem = f"pixels of mode {image.mode} are neither 8 nor 16 bits"
            raise DataError(f"image {path}", problem, "save it with 8 or 16 bits")
        yield image


def _deep(image: Image.Image) -> bool:
    """Whether pixels are grey of 16 bits; some readers of Pillow say 32 of them."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation as it stands in front of the pixels, or 1, which is upright."""
    if "exif" not in image.info:
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, struct.error, OSError, EOFError):
        return 1  # The pixels may be whole where their EXIF is not.
    return found if found in _TURNS else 1


def _pixels(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """One image as (channels, height, width) bytes; `size` is (width, height)."""
    with _opened(path) as file:
        orientation, mode = _orientation(file), "L" if channels == 1 else "RGB"
        try:
            image = (_in_bytes(file) if _deep(file) else file).convert(mode)
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise _unreadable(path, error) from error
    if orientation != 1:
        image = image.transpose(_TURNS[orientation])
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    raw = np.asarray(image, dtype=np.uint8)
    return raw[None] if raw.ndim == 2 else raw.transpose(2, 0, 1)


def _in_bytes(image: Image.Image) -> Image.Image:
    """An image of 16 bits scaled to 8: the nearest of 0 to 255."""
    return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"image {path}", f"cannot be read ({error})", "replace or delete it")
