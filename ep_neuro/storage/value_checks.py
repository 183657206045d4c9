"""What the numbers in a file must be, whoever wrote it: models, programs and NIR ask here."""

from __future__ import annotations

import os

import numpy as np

from ep_neuro.errors import DataError

FACTOR, FREE = 100, 256 << 20
"""How many times its own size a file may unpack to, and how many bytes any file may."""

_KINDS = {"f": "floating point", "fiu": "a number"}


def fault(values: np.ndarray, kinds: str = "f") -> str | None:
    """What keeps `values` from being computed with in float32; None if nothing does.

    Parameters
    ----------
    values : ndarray
        As read.
    kinds : {"f", "fiu"}
        Kinds of NumPy types to take: weights are floating point, and other tools also write whole
        numbers.

    Returns
    -------
    str or None
        What to say behind the name of the array, ``holds NaN or infinity`` for instance.
    """
    if values.dtype.kind not in kinds:
        return f"is {values.dtype}, not {_KINDS[kinds]}"
    with np.errstate(over="ignore"):
        single = values.astype(np.float32, copy=False)
    if np.isfinite(single).all():
        return None
    if np.isfinite(values).all():
        return f"holds {np.abs(values).max():.3g}, beyond float32"
    return "holds NaN or infinity"


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def swollen(unpacked: int, packed: int) -> str | None:
    """What makes content a decompression bomb, before it is unpacked; None if nothing does.

    Parameters
    ----------
    unpacked, packed : int
        Bytes of the content in memory, and in its file.

    Returns
    -------
    str or None
        What to say behind the name of the file.
    """
    if unpacked <= max(FREE, FACTOR * packed):
        return None
    return (
        f"unpacks from {packed / 1e6:,.3g} MB to {unpacked / 1e6:,.0f}, over {FACTOR} times as much"
    )


def refuse_swollen(subject: str, unpacked: int, packed: int, remedy: str) -> None:
    """Raise `DataError` about `subject` if it is `swollen`."""
    problem = swollen(unpacked, packed)
    if problem is not None:
        raise DataError(subject, problem, remedy)
