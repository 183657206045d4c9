"""Scaled weight standardisation: the weights of a neuron with mean 0, and a gain for their size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-30
"""Below the variance of any weights; keeps a neuron whose weights are all equal finite."""


def standardised(weight: Tensor, gain: Tensor) -> Tensor:
    """``g (V - mean V) / (std V sqrt(fan_in))``, row by row (Brock et al. 2021, eq. 1).

    Parameters
    ----------
    weight : Tensor, (channels, ...)
        ``V``; its scale and its mean have no effect.
    gain : Tensor, (channels,)
        ``g``: the length of each row of the result.
    """
    rows, length = _centered(weight)
    return (rows * (gain / length)[:, None]).view_as(weight)


def pull_back(weight: Tensor, gain: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient with respect to ``V`` and ``g``, from `slope`, that with respect to the result.

    A neuron needs nothing for it but its own weights and their changes.
    """
    rows, length = _centered(weight)
    direction = rows / length[:, None]
    slope = slope.flatten(1)
    along = (slope * direction).sum(1)
    across = slope - slope.mean(1, keepdim=True) - along[:, None] * direction
    return (across * (gain / length)[:, None]).view_as(weight), along


def _centered(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of `weight` less their mean, and the length of each, ``std sqrt(fan_in)``."""
    rows = weight.flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    return rows, torch.sqrt(rows.square().sum(1) + EPSILON * math.prod(weight.shape[1:]))
