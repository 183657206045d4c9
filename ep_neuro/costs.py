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
    beta : float or Tensor, (N, 1, ...)
        Nudging factor, of either sign, above -1 (below it the nudged energy has no minimum); one
        for all samples, or one for each.
    y : Tensor, (N, *output shape)
        Target, in the units of the output state.
    """

    beta: float | Tensor
    y: Tensor

    @classmethod
    def both(cls, beta: float, y: Tensor) -> Nudge:
        """``+beta`` for the first half and ``-beta`` for the second half of a doubled batch."""
        signs = torch.ones_like(y[:, :1])
        return cls(beta * torch.cat([signs, -signs]), torch.cat([y, y]))

    def minimise(self, drive: Tensor) -> Tensor:
        """Output state that minimises ``E + beta C`` under `drive`: ``(I + beta y) / (1 + beta)``."""
        return (drive + self.beta * self.y) / (1 + self.beta)

    def cost(self, z: Tensor) -> Tensor:
        """``beta C`` of each sample, (N,)."""
        beta = self.beta.flatten() if isinstance(self.beta, Tensor) else self.beta
        return beta * squared_error(z, self.y)


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    """``|y - z|^2 / 2``, (N,)."""
    return (y - z).flatten(1).square().sum(1) / 2


def one_hot(labels: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Targets (N, *shape) of class `labels` (N,)."""
    size = 1
    for n in shape:
        size *= n
    return F.one_hot(labels, size).to(dtype).unflatten(1, shape)
