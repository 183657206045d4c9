"""The 8x8 digits that scikit-learn brings, as its file has them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ep_neuro.data.packed_images import Pixels
from ep_neuro.data.splitting import split_indices


@cache
def _rows() -> np.ndarray:
    found = find_spec("sklearn")
    assert found is not None, "a dependency of ep-neuro"
    place = Path(str(found.origin)).parent / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(place, delimiter=",", dtype=np.float32)


def splits() -> list[Pixels]:
    """Train, val and test. A row of the file is 64 pixels from 0 to 16, and the label.

    It is read as it lies there: to import scikit-learn takes longer than to train.
    """
    rows = _rows()
    x, y = (rows[:, :-1] / 16).reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64)
    return [(x[i], y[i]) for i in split_indices(y, val=180, test=360)]
