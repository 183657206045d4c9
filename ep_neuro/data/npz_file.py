"""Samples in npz files: arrays ``x``, ``y`` and ``classes``, or packed JPEG images; all checked."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ep_neuro.data import packed_images
from ep_neuro.data.packed_images import Pixels
from ep_neuro.errors import DataError
from ep_neuro.storage.value_checks import refuse_swollen

ALL = "all"
"""The part in which samples come that are not split."""

_UNREADABLE = (
    *(OSError, ValueError, EOFError, AttributeError, TypeError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
)
"""What NumPy and zipfile raise on a file that is cut, is no npz, is encrypted or packed in a way
that Python does not know, or holds pickled objects or an unreadable header."""


def read(name: str, path: Path) -> tuple[dict[str, Pixels], list[str]]:
    """Samples and labels by split, or as one part `ALL`, and the names of the classes.

    Without an array ``classes`` they are called by their numbers. Errors call the data `name`.

    Raises
    ------
    DataError
        If the file cannot be read, an array is missing or of another kind or shape, or labels
        leave most classes without samples.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            unpacked, packed = sum(i.file_size for i in file.zip.infolist()), path.stat().st_size
            refuse_swollen(f"data '{name}'", unpacked, packed, "write it again with numpy.savez")
            if "train_jpeg" in file:
                parts, classes = packed_images.read(path)
            else:
                arrays = {k: file[k] for k in ("x", "y", "classes") if k in file}
                parts, classes = {ALL: _plain(name, arrays)}, arrays.get("classes")
    except MemoryError:
        problem = "its arrays do not fit into the memory of this machine"
        raise DataError(f"data '{name}'", problem, "store fewer samples") from None
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or "it is not an npz file of plain arrays, or cut"
        raise DataError(
            f"data '{name}'", f"cannot be read ({reason})", "write it again with numpy.savez"
        ) from error
    return parts, _class_names(name, [y for _, y in parts.values()], classes)


def _plain(name: str, arrays: Mapping[str, np.ndarray]) -> Pixels:
    for key in ("x", "y"):
        if key not in arrays:
            raise DataError(f"data '{name}'", f"it holds no array '{key}'", "store x and y in it")
    x, y = arrays["x"], arrays["y"]
    numbers = x.dtype.kind in "buif" and y.dtype.kind in "iu"
    if not numbers or not 2 <= x.ndim <= 4 or 0 in x.shape[1:] or y.shape != x.shape[:1]:
        raise DataError(
            f"data '{name}'",
            f"x is {x.dtype} {list(x.shape)}, y is {y.dtype} {list(y.shape)}",
            "give x (N, channels, height, width) of numbers and y (N,) of integers",
        )
    return x.reshape(len(x), *(1,) * (4 - x.ndim), *x.shape[1:]), y


def _class_names(name: str, labels: Sequence[np.ndarray], given: np.ndarray | None) -> list[str]:
    """Names of the classes: those that are `given`, else a number for each up to the largest."""
    if given is not None:
        if given.ndim != 1:
            raise DataError(
                f"data '{name}'",
                f"classes is {given.dtype} {list(given.shape)}",
                "give a list with the name of each class, or leave it out",
            )
        return [str(c) for c in given]
    found = np.unique(np.concatenate(labels))
    count = int(found[-1]) + 1 if len(found) else 0
    # Before anything is built for each class: one stray label may be large.
    if count > 2 * len(found) and count > sum(map(len, labels)):
        raise DataError(
            f"data '{name}'",
            f"labels {found[0]} to {found[-1]}, but most of these classes have no samples",
            "number the classes 0 to n-1, or name each in an array 'classes'",
        )
    return [str(c) for c in range(count)]
