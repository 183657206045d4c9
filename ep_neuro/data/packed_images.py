"""Images kept as JPEG files one after another in one npz: a split as bytes, offsets and labels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ep_neuro.errors import DataError
from ep_neuro.storage.value_checks import refuse_swollen

Pixels = tuple[np.ndarray, np.ndarray]
"""Images (N, channels, height, width) as bytes, and labels (N,)."""

KEYS = ("jpeg", "offsets", "labels")


def read(path: Path) -> tuple[dict[str, Pixels], np.ndarray | None]:
    """Every split of a packed file by name, and the names of its classes, if they are there.

    Arrays ``train_jpeg`` (bytes), ``train_offsets`` (N + 1) and ``train_labels`` (N), the same for
    ``test`` and, if it is there, ``val``; ``classes`` if it is there. Image ``i`` is
    ``jpeg[offsets[i]:offsets[i + 1]]``.

    Raises
    ------
    DataError
        If an array is missing, or an image cannot be decoded or has another size.
    """
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: Path, modified: int) -> tuple[dict[str, Pixels], np.ndarray | None]:
    # Decoding 60,000 images takes seconds, and a study trains on the same file again and again.
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    parts = {
        split: _split(path, split, arrays)
        for split in ("train", "val", "test")
        if f"{split}_jpeg" in arrays
    }
    if "test" not in parts:
        raise DataError(f"data 'npz:{path}'", "it holds no array 'test_jpeg'", "store a test set")
    return parts, arrays.get("classes")


def _split(path: Path, split: str, arrays: Mapping[str, np.ndarray]) -> Pixels:
    where = f"data 'npz:{path}:{split}'"
    for key in KEYS:
        if f"{split}_{key}" not in arrays:
            raise DataError(where, f"it holds no array '{split}_{key}'", "store all three arrays")
    packed, offsets, labels = (arrays[f"{split}_{key}"] for key in KEYS)
    rows = packed.dtype == np.uint8 and packed.ndim == offsets.ndim == labels.ndim == 1
    whole = rows and offsets.dtype.kind in "iu" and labels.dtype.kind in "iu"
    if not whole or len(offsets) != len(labels) + 1 or not _in_order(offsets, len(packed)):
        raise DataError(
            where,
            f"{labels.size} labels, {offsets.size} offsets, {packed.shape} {packed.dtype} of JPEG",
            "give N labels, N + 1 offsets from 0 to the end, and all files as bytes in a row",
        )
    images = _images(where, packed, offsets)
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(
            where, f"images have the shapes {sorted(shapes)}", "bring all to one size and mode"
        )
    stacked = np.stack(images)
    return stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2), labels


def _in_order(offsets: np.ndarray, end: int) -> bool:
    """Whether `offsets` rise from 0 to `end`, for one file at least."""
    rise = len(offsets) > 1 and bool((offsets[1:] > offsets[:-1]).all())
    return rise and offsets[0] == 0 and offsets[-1] == end


def _images(where: str, packed: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    images: list[np.ndarray] = []
    unpacked = 0
    for i, (start, end) in enumerate(pairwise(offsets)):
        images.append(_decoded(where, i, packed[start:end].tobytes()))
        unpacked += images[-1].nbytes
        refuse_swollen(where, unpacked, len(packed), "store smaller images")
    return images


def _decoded(where: str, index: int, data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            unpacked = 3 * image.width * image.height
            refuse_swollen(f"{where} image {index}", unpacked, len(data), "store smaller images")
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(
            where, f"image {index} cannot be decoded ({error})", "write the file again"
        ) from None
