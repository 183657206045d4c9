"""Costs that nudge the output: their value, their slope, and the nudged drive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ep_neuro.activations import Activation, Clip


@dataclass(frozen=True)
class Nudge:
    """``beta * C`` added to the energy.

    Parameters
    ----------
    beta : float or Tensor, (N, 1, ...)
        Nudging factor, of either sign, above -1 (below it the nudged energy has no minimum); one
        for all samples, or one for each.
    y : Tensor, (N, *target shape)
        Target, in the units of the output state; class probabilities under a readout.
    readout : Linear, optional
        A layer outside the dynamics (see `cost`).
    """

    beta: float | Tensor
    y: Tensor
    readout: nn.Linear | None = None

    @classmethod
    def both(cls, beta: float, y: Tensor, readout: nn.Linear | None = None) -> Nudge:
        """``+beta`` for the first half and ``-beta`` for the second half of a doubled batch."""
        signs = y.new_ones(len(y), *[1] * (y.dim() - 1))
        return cls(beta * torch.cat([signs, -signs]), torch.cat([y, y]), readout)

    def select(self, index: Tensor) -> Nudge:
        """The nudge of the samples at `index`."""
        beta = self.beta[index] if isinstance(self.beta, Tensor) else self.beta
        return Nudge(beta, self.y[index], self.readout)

    def minimise(self, drive: Tensor, z: Tensor, activation: Activation) -> Tensor:
        """Drive of the nudged output, from its own `drive` and its present state `z`.

        Under the squared error in a box, the very minimum of ``E + beta C``,
        ``(I + beta y) / (1 + beta)``; otherwise ``I - beta dC/dz`` at `z`.
        """
        if self.readout is None and isinstance(activation, Clip):
            beta = _like(self.beta, z)
            return (drive + beta * self.y) / (1 + beta)
        return self.step(drive, z)

    def step(self, drive: Tensor, z: Tensor) -> Tensor:
        """Drive of the nudged output, ``I - beta dC/dz`` at its present state `z`."""
        return drive - _like(self.beta, z) * slope(z, self.y, self.readout)

    def cost(self, z: Tensor) -> Tensor:
        """``beta C`` of each sample, (N,)."""
        beta = self.beta.flatten() if isinstance(self.beta, Tensor) else self.beta
        return beta * cost(z, self.y, self.readout)


def cost(z: Tensor, y: Tensor, readout: nn.Linear | None = None) -> Tensor:
    """``C`` of each sample, (N,).

    The squared error ``|y - z|^2 / 2``; with a readout the cross-entropy of ``softmax(W z + b)``
    (Laborieux 2021), whose layer takes no part in the dynamics.
    """
    if readout is None:
        return squared_error(z, y)
    return -(y.flatten(1) * F.log_softmax(readout(z.flatten(1)), 1)).sum(1)


def slope(z: Tensor, y: Tensor, readout: nn.Linear | None = None) -> Tensor:
    """``dC/dz``, (N, *output shape): ``z - y``, or ``W^T (softmax(W z + b) - y)``."""
    if readout is None:
        return z - y
    error = torch.softmax(readout(z.flatten(1)), 1) - y.flatten(1)
    return (error @ readout.weight).view_as(z)


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    """``|y - z|^2 / 2``, (N,)."""
    return (y - z).flatten(1).square().sum(1) / 2


def one_hot(labels: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Targets (N, *shape) of class `labels` (N,)."""
    size = 1
    for n in shape:
        size *= n
    return F.one_hot(labels, size).to(dtype).unflatten(1, shape)


def _like(beta: float | Tensor, z: Tensor) -> float | Tensor:
    return beta.view(-1, *[1] * (z.dim() - 1)) if isinstance(beta, Tensor) else beta
