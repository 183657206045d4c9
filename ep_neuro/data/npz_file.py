"""Samples in npz files: ``x`` and ``y``, Keras's ``x_train`` and so on, or packed JPEG images."""

from __future__ import annotations

import contextlib
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ep_neuro.data import packed_images
from ep_neuro.data.packed_images import Pixels
from ep_neuro.errors import DataError
from ep_neuro.storage.value_checks import refuse_swollen

ALL = "all"
"""The part in which samples come that are not split."""

LAYOUTS = ("NCHW", "NHWC")
"""What an array ``layout`` may say: channels first, or last."""

MOST_CHANNELS = 4
"""Sides up to this may be the channels of an image, where nothing says which one they are."""

_UNREADABLE = (
    *(OSError, ValueError, EOFError, AttributeError, TypeError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
)
"""What NumPy and zipfile raise on a file that is cut, is no npz, is encrypted or packed in a way
that Python does not know, or holds pickled objects or an unreadable header."""


def read(name: str, path: Path) -> tuple[dict[str, Pixels], list[str]]:
    """Samples and labels by split, or as one part `ALL`, and the names of the classes.

    Of ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, if they are there,
    ``x_val`` and ``y_val`` (or ``x_valid``, ``y_valid``). Labels are integers, (N,) or (N, 1), or
    one-hot rows. An array ``layout``, ``"NHWC"`` or ``"NCHW"``, says where channels stand; without
    it they come first in ``x``, and in Keras's arrays where a side is as short as they are. Without
    an array ``classes`` they are called by their numbers. Errors call the data `name`.

    Raises
    ------
    DataError
        If the file cannot be read, an array is missing or of another kind or shape, it cannot be
        told where channels stand, or labels leave most classes without samples.
    """
    with readable(f"data '{name}'"), np.load(path, allow_pickle=False) as file:
        unpacked, packed = sum(i.file_size for i in file.zip.infolist()), path.stat().st_size
        refuse_swollen(f"data '{name}'", unpacked, packed, "write it again with numpy.savez")
        if "train_jpeg" in file:
            parts, classes = packed_images.read(path)
            return parts, _class_names(name, [y for _, y in parts.values()], classes)
        found = {k: _labelled(name, file, *keys) for k, keys in _keys(name, file).items()}
        classes = file.get("classes")
    widths = [y.shape[1] for _, y in found.values() if y.ndim == 2]
    if widths and classes is None:
        classes = np.arange(max(widths))
    parts = {k: (x, y.argmax(1) if y.ndim == 2 else y) for k, (x, y) in found.items()}
    return parts, _class_names(name, [y for _, y in parts.values()], classes)


@contextlib.contextmanager
def readable(subject: str) -> Iterator[None]:
    """Raise `DataError` about `subject` where a file of NumPy turns out to be none, or damaged."""
    try:
        yield
    except MemoryError:
        problem = "its arrays do not fit into the memory of this machine"
        raise DataError(subject, problem, "store fewer samples") from None
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or "it is not an npz file of plain arrays, or cut"
        remedy = "write it again with numpy.savez"
        if isinstance(error, FileNotFoundError):
            remedy = "give the path of an npz file"
        raise DataError(subject, f"cannot be read ({reason})", remedy) from error


def _keys(name: str, file: Collection[str]) -> dict[str, tuple[str, str]]:
    """Names of the arrays with the samples and the labels of each split."""
    if "x_train" not in file or "x" in file:
        return {ALL: ("x", "y")}
    held_out = [key for key in ("val", "valid") if f"x_{key}" in file]
    if len(held_out) > 1:
        raise DataError(f"data '{name}'", "it holds x_val and x_valid", "store one of them")
    keys = ("train", *held_out, "test")
    return {"val" if key == "valid" else key: (f"x_{key}", f"y_{key}") for key in keys}


def _labelled(name: str, file: Mapping[str, np.ndarray], *keys: str) -> Pixels:
    """Images (N, channels, height, width), and labels (N,) or one-hot rows."""
    for key in keys:
        if key not in file:
            what = "x and y" if keys == ("x", "y") else "x_train, y_train, x_test and y_test"
            raise DataError(f"data '{name}'", f"it holds no array '{key}'", f"store {what} in it")
    arrays = {key: file[key] for key in keys}
    x, y = arrays.values()
    numbers = x.dtype.kind in "buif" and 2 <= x.ndim <= 4 and 0 not in x.shape[1:]
    if not numbers or y.ndim == 0 or len(y) != len(x) or not _are_labels(y):
        raise DataError(
            f"data '{name}'",
            ", ".join(f"{key} is {a.dtype} {list(a.shape)}" for key, a in arrays.items()),
            f"give {keys[0]} (N, channels, height, width) of numbers and {keys[1]} (N,) of "
            "integers, or one-hot rows",
        )
    layout = str(file["layout"]) if "layout" in file else None
    if x.ndim == 4 and _channels_last(name, keys[0], x.shape[1:], layout):
        x = x.transpose(0, 3, 1, 2)
    x = x.reshape(len(x), *(1,) * (4 - x.ndim), *x.shape[1:])
    return x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _are_labels(y: np.ndarray) -> bool:
    """Whether `y` is (N,) or (N, 1) of integers, or one-hot rows."""
    if y.ndim == 1 or y.shape[1:] == (1,):
        return y.dtype.kind in "iu"
    if y.ndim != 2 or y.dtype.kind not in "buif":
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _channels_last(name: str, key: str, shape: Sequence[int], layout: str | None) -> bool:
    """Whether samples of `shape` are (height, width, channels)."""
    if layout not in (None, *LAYOUTS):
        problem = f"layout is '{layout}'"
        raise DataError(f"data '{name}'", problem, f"give it as {' or '.join(LAYOUTS)}")
    if layout or key == "x":
        return layout == "NHWC"
    first, last = shape[0] <= MOST_CHANNELS, shape[2] <= MOST_CHANNELS
    if first == last:
        raise DataError(
            f"data '{name}'",
            f"{key} is {[*shape]} a sample, whose channels may come first or last",
            "store an array layout beside it: 'NHWC' if they come last, else 'NCHW'",
        )
    return last


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
