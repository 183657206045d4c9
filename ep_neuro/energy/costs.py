"""Costs that nudge the output: their value, their slope, and the nudged drive."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ep_neuro.energy.activations import Activation, Clip


class Cost(ABC):
    """``C`` of an output ``z`` (N, *output shape) and a target ``y`` (N, *target shape)."""

    @abstractmethod
    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """``C`` of each sample, (N,)."""

    @abstractmethod
    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``dC/dz``, like `z`."""

    def nudged(self, drive: Tensor, z: Tensor, y: Tensor, beta: float | Tensor) -> Tensor:
        """Where an output in a box, or a linear one, moves from `z` under its `drive` ``I``.

        ``I - beta dC/dz`` at `z`, unless the cost knows better; `beta` broadcasts to `z`.
        """
        return drive - beta * self.slope(z, y)


@dataclass(frozen=True)
class SquaredError(Cost):
    """``|y - z|^2 / 2``; its slope is ``z - y``."""

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """``C`` of each sample, (N,)."""
        return (y - z).flatten(1).square().sum(1) / 2

    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``z - y``."""
        return z - y

    def nudged(self, drive: Tensor, z: Tensor, y: Tensor, beta: float | Tensor) -> Tensor:
        """The very minimum of ``E + beta C`` over `z`: ``(I + beta y) / (1 + beta)``."""
        return (drive + beta * y) / (1 + beta)


@dataclass(frozen=True)
class CrossEntropy(Cost):
    """``- sum y log softmax(z)`` of the output population itself: no layer outside the dynamics.

    Its slope is ``softmax(z) - y``, for targets that add up to 1. Its Hessian ``diag(p) - p p^T``
    is a variance under ``p``, which is at most a quarter of the squared spread: so it lies
    between 0 and 1/2, and 1/2 is met where two classes share all of ``p``.

    Under a fixed drive, ``z <- I - beta dC/dz`` thus converges in a linear or boxed population for
    ``|beta| < 2``: the map shrinks distances by ``|beta| / 2``. Over-relaxed by ``w`` it would
    need ``w (1 + beta / 2) < 2``; `nudged` takes the bound into the step instead, and descends for
    every ``0 < w < 2``, as the squared error does.
    """

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """``C`` of each sample, (N,)."""
        return _cross_entropy(z.flatten(1), y)

    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``softmax(z) - y``, the softmax over all neurons of the output."""
        return torch.softmax(z.flatten(1), 1).view_as(z) - y

    def nudged(self, drive: Tensor, z: Tensor, y: Tensor, beta: float | Tensor) -> Tensor:
        """The minimum of a quadratic that is ``E + beta C`` at `z` and nowhere less.

        Its curvature is 1 + beta/2, or 1 where beta is negative and ``beta C`` concave.
        """
        ahead = beta.clamp_min(0) if isinstance(beta, Tensor) else max(beta, 0.0)
        return z + (drive - beta * self.slope(z, y) - z) / (1 + ahead / 2)


@dataclass(frozen=True)
class SoftmaxReadout(Cost):
    """Cross-entropy of ``softmax(W z + b)`` (Laborieux 2021).

    The `layer` takes no part in the dynamics; its slope is ``W^T (softmax(W z + b) - y)``.
    """

    layer: nn.Linear

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """``C`` of each sample, (N,)."""
        return _cross_entropy(self.layer(z.flatten(1)), y)

    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``W^T (softmax(W z + b) - y)``, like `z`."""
        error = torch.softmax(self.layer(z.flatten(1)), 1) - y.flatten(1)
        return (error @ self.layer.weight).view_as(z)


@dataclass(frozen=True)
class ByClass(Cost):
    """``w_c C``: the `cost` of each sample times the weight of its class, the largest of `y`.

    Its nudge is ``beta w_c C``, so that the gradient of every estimator that nudges by the cost
    carries the weight. ``beta w_c`` has to be a nudging factor, below 1.

    Parameters
    ----------
    cost : Cost
        ``C``.
    weights : Tensor, (classes,)
    """

    cost: Cost
    weights: Tensor

    def _weight(self, y: Tensor) -> Tensor:
        return self.weights[y.flatten(1).argmax(1)].to(y.dtype)

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        """``w_c C`` of each sample, (N,)."""
        return self._weight(y) * self.cost.value(z, y)

    def slope(self, z: Tensor, y: Tensor) -> Tensor:
        """``w_c dC/dz``, like `z`."""
        return _like(self._weight(y), z) * self.cost.slope(z, y)

    def nudged(self, drive: Tensor, z: Tensor, y: Tensor, beta: float | Tensor) -> Tensor:
        """That of the `cost` at ``beta w_c``."""
        return self.cost.nudged(drive, z, y, beta * _like(self._weight(y), z))


@dataclass(frozen=True)
class Nudge:
    """``beta * C`` added to the energy.

    Parameters
    ----------
    beta : float or Tensor, (N, 1, ...)
        Nudging factor, of either sign, above -1 (below it the energy nudged by a squared error has
        no minimum); one for all samples, or one for each.
    y : Tensor, (N, *target shape)
        Target, in the units of the output state; class probabilities under a cross-entropy.
    cost : Cost
        ``C``, by default the squared error; `Network.cost` is that of a network.
    """

    beta: float | Tensor
    y: Tensor
    cost: Cost = SquaredError()

    @classmethod
    def both(cls, beta: float, y: Tensor, cost: Cost = SquaredError()) -> Nudge:
        """``+beta`` for the first half and ``-beta`` for the second half of a doubled batch."""
        signs = y.new_ones(len(y), *[1] * (y.dim() - 1))
        return cls(beta * torch.cat([signs, -signs]), torch.cat([y, y]), cost)

    def select(self, index: Tensor) -> Nudge:
        """The nudge of the samples at `index`."""
        beta = self.beta[index] if isinstance(self.beta, Tensor) else self.beta
        return Nudge(beta, self.y[index], self.cost)

    def minimise(self, drive: Tensor, z: Tensor, activation: Activation) -> Tensor:
        """Drive of the nudged output, from its own `drive` and its present state `z`.

        In a box what the cost says (`Cost.nudged`); under a smooth activation, whose potential
        curves by itself, ``I - beta dC/dz`` at `z`.
        """
        if isinstance(activation, Clip):
            return self.cost.nudged(drive, z, self.y, _like(self.beta, z))
        return self.step(drive, z)

    def step(self, drive: Tensor, z: Tensor) -> Tensor:
        """Drive of the nudged output, ``I - beta dC/dz`` at its present state `z`."""
        return drive - _like(self.beta, z) * self.cost.slope(z, self.y)

    def value(self, z: Tensor) -> Tensor:
        """``beta C`` of each sample, (N,)."""
        beta = self.beta.flatten() if isinstance(self.beta, Tensor) else self.beta
        return beta * self.cost.value(z, self.y)


def one_hot(labels: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Targets (N, *shape) of class `labels` (N,)."""
    return F.one_hot(labels, math.prod(shape)).to(dtype).unflatten(1, shape)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return -(y.flatten(1) * F.log_softmax(logits, 1)).sum(1)


def _like(beta: float | Tensor, z: Tensor) -> float | Tensor:
    return beta.view(-1, *[1] * (z.dim() - 1)) if isinstance(beta, Tensor) else beta
