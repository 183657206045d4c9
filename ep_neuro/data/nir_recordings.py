"""Files of NIRData as recordings: what they put into a network, summed over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ep_neuro.data.packed_images import Pixels
from ep_neuro.errors import DataError
from ep_neuro.storage.value_checks import refuse_swollen

SUFFIX = ".nirdata"
"""How such files end."""

NODE = "input"
"""The node whose data count, where a file has those of several."""


def frames(
    files: Sequence[tuple[Path, int]],
    rule: Callable[[np.ndarray], np.ndarray],
    shape: Sequence[int] | None,
) -> Pixels:
    """A frame of each recording in labelled `files`, and its label.

    Parameters
    ----------
    files : sequence of (Path, int)
    rule : callable
        What makes bytes of the events of one recording.
    shape : tuple of int, optional
        Of a frame; flat by default.

    Returns
    -------
    x : ndarray, (N, *shape), uint8
    y : ndarray, (N,), int64

    Raises
    ------
    DataError
        If a file is something else (`counts`), or of another size.
    """
    x: list[np.ndarray] = []
    y: list[int] = []
    for path, label in files:
        found = counts(path)
        like = tuple(shape or x[0].shape if shape or x else found.shape[1:])
        if math.prod(like) != found.shape[1]:
            problem = f"it has {found.shape[1]} neurons, and a frame {math.prod(like)}"
            raise DataError(f"recording {path}", problem, "give recordings of the network's input")
        x += [rule(one.reshape(like)) for one in found]
        y += [label] * len(found)
    return np.stack(x), np.array(y, np.int64)


def counts(path: Path) -> np.ndarray:
    """How often each neuron of the input has an event in each recording of `path`.

    Events count as they come, values as what they are; a grid of times is summed over them.

    Returns
    -------
    ndarray, (N, neurons)
        Not below 0.

    Raises
    ------
    DataError
        If it is no plain file of NIRData, has several nodes and none called `NODE`, or several
        observables of it, neurons that are not there, or values below 0.
    """
    # Not for those whose data are others.
    import h5py

    from ep_neuro.storage.hdf5 import danger

    subject = f"recording {path}"
    try:
        if (threat := danger(path)) is not None:
            raise DataError(subject, threat, "write it again with nir.write_data")
        with h5py.File(path, "r") as file:
            nodes = file["nodes"]
            names = list(nodes)
            named = nodes[NODE if NODE in names or len(names) != 1 else names[0]]
            (held,) = named["observables"].values()
            summed = _summed(held, subject, path.stat().st_size)
    # What h5py raises depends on what it meets first.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:80]
        problem = f"is no NIRData with one observable of a node '{NODE}' ({reason})"
        raise DataError(subject, problem, "write what goes in with nir.write_data") from None
    if not (np.isfinite(summed).all() and (summed >= 0).all()):
        raise DataError(subject, "values are below 0 or not finite", "store events, or counts")
    return summed


def _summed(held: Any, subject: str, packed: int) -> np.ndarray:
    """One observable, as `nir.write_data` stores it, summed over time: (N, neurons)."""
    if "data" in held:
        if held["data"].ndim != 3:
            raise ValueError(f"its grid has {held['data'].ndim} axes, not 3")
        return np.asarray(held["data"], np.float64).sum(1)
    index, wide = held["idx"][()], int(held.attrs["n_neurons"])
    samples, _ = index.shape
    refuse_swollen(subject, samples * wide, packed, "give the input's own n_neurons")
    there = index != -1
    events = index[there]
    if events.size and not 0 <= events.min() <= events.max() < wide:
        problem = f"events of neurons {events.min()} to {events.max()}, not 0 to {wide - 1}"
        raise DataError(subject, problem, "count neurons from 0, and give n_neurons")
    value = held["value"][()][there] if "value" in held else None
    place = np.nonzero(there)[0] * wide + events
    found = np.bincount(place, value, minlength=samples * wide)
    return found.reshape(samples, wide).astype(np.float64)
