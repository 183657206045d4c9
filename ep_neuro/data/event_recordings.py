"""Recordings of events, one folder a class, summed into frames."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ep_neuro.data import class_folders, nir_recordings
from ep_neuro.data.class_folders import Kind
from ep_neuro.data.npz_file import readable
from ep_neuro.data.packed_images import Pixels
from ep_neuro.errors import DataError
from ep_neuro.storage.value_checks import refuse_swollen

RECORDINGS = Kind("recording", (".npz", ".npy", nir_recordings.SUFFIX))
"""Files that count as recordings."""

FARTHEST = 1 << 16
"""Columns or rows that no camera has: what is there is no place."""

FIELDS = ("x", "y", "p")
"""What is read of an event: its place and its polarity; when it came does not matter to a sum."""

Events = dict[str, np.ndarray]
"""Columns, rows and polarities of the events of one recording, each (events,)."""


def count(events: np.ndarray) -> np.ndarray:
    """Events of each pixel, of 255 at most."""
    return np.minimum(events, 255).astype(np.uint8)


def peak(events: np.ndarray) -> np.ndarray:
    """Events of each pixel, scaled so that the busiest one of the recording has 255."""
    return np.rint(events * 255 / max(1, int(events.max()))).astype(np.uint8)


RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"events-count": count, "events-peak": peak}
"""How the events of a pixel and polarity, over the whole recording, become a byte."""


def read(
    folders: Sequence[Path], rule: str, shape: Sequence[int] | None = None
) -> tuple[list[Pixels], list[str]]:
    """Frames and labels of each of `folders`, parts of one data set, and the names of its classes.

    A recording is what `numpy.save` makes of the structured array that tonic gives, with fields
    ``x``, ``y``, ``t`` and ``p``, or an npz file with such an array ``events``, or with arrays of
    these names. Polarities are 0 and 1, -1 and 1, or truth values; channel 1 of a frame has those
    above 0. A file of NIRData holds many recordings, of the input of a network
    (`nir_recordings.counts`).

    Parameters
    ----------
    folders : sequence of Path
        See `class_folders.listings`.
    rule : str
        One of `RULES`.
    shape : (2, height, width), or of any input for NIRData, optional
        Of a frame; by default as far as events reach in all recordings, for NIRData flat.

    Returns
    -------
    parts : list of (x, y)
        ``x`` (N, *shape) uint8, ``y`` (N,) int64.
    classes : list of str

    Raises
    ------
    DataError
        If a class has no recordings or is not in the first folder, or a recording is damaged, has
        a field missing or of another kind, or events outside of a frame.
    """
    listings, classes = class_folders.listings(folders, RECORDINGS)
    parts = [class_folders.labelled(listing, classes) for listing in listings]
    every = [path for part in parts for path, _ in part]
    if any(path.suffix == nir_recordings.SUFFIX for path in every):
        return [nir_recordings.frames(part, RULES[rule], shape) for part in parts], classes
    if shape is None or len(shape) != 3 or shape[0] != 2:
        # Read twice, as all events of a data set may not fit into the memory.
        ends = [
            [int(events[key].max(initial=0)) + 1 for key in "yx"] for events in map(_events, every)
        ]
        shape = (2, *np.max(ends, axis=0).tolist())
    unpacked, packed = len(every) * math.prod(shape), sum(path.stat().st_size for path in every)
    refuse_swollen(f"folder {folders[0]}", unpacked, packed, "correct x and y, or crop them")
    return [
        (
            np.stack([RULES[rule](_frame(path, shape)) for path, _ in part]),
            np.array([label for _, label in part], dtype=np.int64),
        )
        for part in parts
    ], classes


def _frame(path: Path, shape: Sequence[int]) -> np.ndarray:
    """How many events each polarity and pixel has, (2, height, width)."""
    events, (_, height, width) = _events(path), shape
    for key, limit in (("x", width), ("y", height)):
        if len(events[key]) and int(events[key].max()) >= limit:
            raise DataError(
                f"recording {path}",
                f"{key} is up to {events[key].max()}, the network takes {limit} of them, from 0",
                "give the network's input the shape [2, height, width] of the camera",
            )
    place = (events["p"] * height + events["y"]) * width + events["x"]
    return np.bincount(place, minlength=2 * height * width).reshape(2, height, width)


def _events(path: Path) -> Events:
    """Places and polarities of the events in `path`."""
    subject = f"recording {path}"
    with readable(subject), contextlib.ExitStack() as opened:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return _checked(subject, found, found.dtype.names)
        file = opened.enter_context(found)
        unpacked, packed = sum(i.file_size for i in file.zip.infolist()), path.stat().st_size
        refuse_swollen(subject, unpacked, packed, "write it again with numpy.savez")
        if "events" not in file:
            return _checked(subject, file, file.files)
        events = file["events"]
        return _checked(subject, events, events.dtype.names)


def _checked(subject: str, arrays: Any, names: Collection[str] | None) -> Events:
    """The `FIELDS` of `arrays`, which has those called `names`, as whole numbers."""
    for key in FIELDS:
        if key not in (names or ()):
            raise DataError(
                subject,
                f"its events have no '{key}', but {', '.join(names or ()) or 'no fields'}",
                "store a structured array with the fields x, y, t and p",
            )
    found = {key: arrays[key] for key in FIELDS}
    (x, y, p), shapes = found.values(), {a.shape for a in found.values()}
    kinds = x.dtype.kind + y.dtype.kind in ("ii", "iu", "ui", "uu") and p.dtype.kind in "biu"
    if not kinds or len(shapes) > 1 or x.ndim != 1:
        raise DataError(
            subject,
            ", ".join(f"{key} is {a.dtype} {list(a.shape)}" for key, a in found.items()),
            "give columns, rows and polarities as whole numbers, (events,) each",
        )
    for key in "xy":
        if len(x) and not 0 <= int(found[key].min()) <= int(found[key].max()) < FARTHEST:
            low, high = int(found[key].min()), int(found[key].max())
            problem = f"{key} is {low} to {high}, not in 0 to {FARTHEST - 1}"
            raise DataError(subject, problem, "count columns and rows from 0")
    return {"x": x.astype(np.int64), "y": y.astype(np.int64), "p": p > 0}
