"""Weights of classes: what a configuration asks for, as a factor of the cost for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ep_neuro.data.datasets import Dataset
from ep_neuro.errors import ConfigError, nearest
from ep_neuro.estimators import Estimator

ClassWeights = Literal["balanced"] | Sequence[float] | Mapping[str, float]


def class_weights(
    asked: ClassWeights | None, dataset: Dataset, estimator: Estimator
) -> Tensor | None:
    """The weight of each class of `dataset`, (classes,); None if none are `asked` for.

    Parameters
    ----------
    asked : "balanced", sequence or mapping, optional
        ``"balanced"`` gives each of the ``K`` classes with training samples the same share of the
        cost: ``N / (K n_c)``, of mean 1 over the ``N`` samples. A sequence has one for each class;
        a mapping names some, and the others have 1.
    dataset : Dataset
    estimator : Estimator
        If it nudges, the largest weight times its ``beta`` has to be a nudging factor.

    Raises
    ------
    ConfigError
        If `asked` does not fit the classes, or the largest weight the nudge.
    """
    if asked is None:
        return None
    found = _by_class(asked, dataset)
    largest, beta = float(max(found)), getattr(estimator, "beta", 0.0)
    if largest * beta >= 1:
        raise ConfigError(
            "class_weights",
            f"the largest, {largest:.3g}, times beta {beta:g} of estimator '{estimator.kind}' is "
            "not below 1",
            f"set estimator.beta below {1 / largest:.2g}, or give smaller weights",
        )
    return torch.as_tensor(found, dtype=torch.float32)


def _by_class(asked: ClassWeights, dataset: Dataset) -> Sequence[float] | np.ndarray:
    names = dataset.classes
    if asked == "balanced":
        counts = np.bincount(dataset.train.y, minlength=len(names))
        share = len(dataset.train) / np.count_nonzero(counts)
        return np.where(counts > 0, share / np.maximum(counts, 1), 1.0)
    if isinstance(asked, Mapping):
        for key in asked.keys() - set(names):
            problem = f"data '{dataset.name}' has no class of this name"
            raise ConfigError(f"class_weights.{key}", problem, nearest(key, names))
        return [asked.get(name, 1.0) for name in names]
    if len(asked) != len(names):
        problem = f"{len(asked)} weights, data '{dataset.name}' has {len(names)} classes"
        raise ConfigError("class_weights", problem, "give one for each, or some by name")
    assert not isinstance(asked, str)
    return asked
