"""Costs that nudge the output: their value, their drive, and the exact nudged update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Nudge:
    """``beta * C`` with the squared error ``C = |y - z_out|^2 / 2`` added to the energy.

    Parameters
    ----------
    beta : float
        Nudging factor, of either sign, above -1 (below it the nudged energy has no minimum).
    y : Tensor, (N, *output shape)
        Target, in the units of the output state.
    """

    beta: float
    y: Tensor

    def minimise(self, drive: Tensor) -> Tensor:
        """Output state that minimises ``E + beta C`` under `drive`: ``(I + beta y) / (1 + beta)``."""
        return (drive + self.beta * self.y) / (1 + self.beta)


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    """``|y - z|^2 / 2``, (N,)."""
    return (y - z).flatten(1).square().sum(1) / 2


def one_hot(labels: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Targets (N, *shape) of class `labels` (N,)."""
    size = 1
    for n in shape:
        size *= n
    return F.one_hot(labels, size).to(dtype).unflatten(1, shape)
