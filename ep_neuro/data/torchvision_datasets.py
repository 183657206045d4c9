"""MNIST, Fashion-MNIST and CIFAR in their public files, read and fetched by torchvision."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ep_neuro.data.packed_images import Pixels
from ep_neuro.errors import DataError

SOURCES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
"""Names of data sets, and of their classes in torchvision."""

DOWNLOAD_TIMEOUT = 30.0
"""Seconds without an answer after which a download has failed."""


def read(name: str, root: Path, download: bool) -> tuple[Pixels, Pixels, list[str]]:
    """Bytes and labels of the training and the test set, and the names of the classes.

    Raises
    ------
    DataError
        If files are missing or damaged, or cannot be downloaded.
    """
    from torchvision import datasets

    source = getattr(datasets, SOURCES[name])
    train, test = (_public_files(name, source, root, part, download) for part in (True, False))
    # MNIST calls its classes "0 - zero"; the digit is the name.
    classes = [c.partition(" - ")[0] for c in train.classes]
    arrays = []
    for part in (train, test):
        raw, y = np.asarray(part.data), np.asarray(part.targets, dtype=np.int64)
        if len(raw) != len(y):
            raise _damaged(name, root, f"{len(raw)} images, {len(y)} labels")
        stacked = raw[:, None] if raw.ndim == 3 else raw.transpose(0, 3, 1, 2)
        arrays.append((stacked, y))
    return arrays[0], arrays[1], classes


def _public_files(
    name: str, source: Callable[..., Any], root: Path, train: bool, download: bool
) -> Any:
    """Read one part with torchvision, which unpickles CIFAR only if its published MD5 agrees."""
    try:
        with _patience(DOWNLOAD_TIMEOUT), contextlib.redirect_stdout(sys.stderr):
            return source(str(root), train=train, download=download)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        if not download and "not found" in reason:
            raise DataError(
                f"data '{name}'",
                f"its files are not in {root}, or damaged",
                "allow the download, or name another data root",
            ) from error
        if isinstance(error, OSError) or "Error downloading" in str(error):
            raise DataError(
                f"data '{name}'",
                f"the download failed ({reason})",
                f"check the network and {root}, or put the public files there",
            ) from error
        raise _damaged(name, root, reason) from error
    except (AssertionError, EOFError, IndexError, KeyError, TypeError, ValueError) as error:
        # What torchvision's readers raise on a file that is too short or of another format.
        raise _damaged(name, root, str(error) or "a file has the wrong format") from error


def _damaged(name: str, root: Path, reason: str) -> DataError:
    remedy = "delete them and let them be downloaded again"
    return DataError(f"data '{name}'", f"its files in {root} are damaged ({reason})", remedy)


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let sockets that set no time limit of their own, as torchvision's, fail after `seconds`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
