"""Which samples are held out: stratified, and the same on every machine."""

from __future__ import annotations

import numpy as np

SPLIT_SEED = 20221
"""Seed of every split; changing it changes which samples are held out."""


def split_indices(
    y: np.ndarray, val: int, test: int, seed: int = SPLIT_SEED
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of train, `val` and `test` samples; disjoint, stratified by `y`, shuffled.

    Samples are sorted by class, at random within a class, and every n-th is held out (systematic
    sampling), which gives exact sizes and each class its share to within one sample a step. The
    random numbers are raw words of PCG64, whose stream NumPy guarantees between versions.
    """
    key = np.random.PCG64(seed).random_raw(len(y))
    rest, test_indices = _every_nth(np.lexsort((key, y)), test)
    train, val_indices = _every_nth(rest, val)
    train, val_indices, test_indices = (
        i[np.argsort(key[i], kind="stable")] for i in (train, val_indices, test_indices)
    )
    return train, val_indices, test_indices


def _every_nth(order: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Part `order` into what stays and `count` evenly spaced elements."""
    dealt = np.arange(1, len(order) + 1) * count // max(1, len(order))
    out = np.diff(dealt, prepend=0) > 0
    return order[~out], order[out]
