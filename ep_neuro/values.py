"""What the numbers in a file must be, whoever wrote it: models, programs and NIR ask here."""

from __future__ import annotations

import numpy as np

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
