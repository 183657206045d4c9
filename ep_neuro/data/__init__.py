"""Data sets as arrays with fixed splits, the files they come in, and augmentation."""

from ep_neuro.data.datasets import (
    LOCAL,
    NAMES,
    SPLITS,
    Dataset,
    Split,
    check_fits,
    fitted,
    identity,
    load,
    load_fitted,
    located,
    parse,
)
from ep_neuro.data.splitting import SPLIT_SEED, split_indices

__all__ = [
    "LOCAL",
    "NAMES",
    "SPLITS",
    "SPLIT_SEED",
    "Dataset",
    "Split",
    "check_fits",
    "fitted",
    "identity",
    "load",
    "load_fitted",
    "located",
    "parse",
    "split_indices",
]
