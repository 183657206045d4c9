"""Activations: the box of the clipped ReLU and its smooth twin, each with its energy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ep_neuro.energy.spec import PopulationSpec


@dataclass(frozen=True)
class Clip:
    """``z = clip(I, lo, hi)``, the minimum of ``|z|^2 / 2 - <I, z>`` over the box, if any.

    ``unit`` is the height without a box.
    """

    box: tuple[float, float] | None
    unit: float = 1.0

    @property
    def height(self) -> float:
        """``hi - lo``; the unit without a box."""
        return self.unit if self.box is None else self.box[1] - self.box[0]

    def __call__(self, drive: Tensor) -> Tensor:
        """State at rest under `drive`, same shape."""
        return drive if self.box is None else drive.clamp(*self.box)

    def relax(self, z: Tensor, drive: Tensor, step: float) -> Tensor:
        """`z` moved towards rest; the energy falls for ``0 < step < 2``."""
        return self(drive if step == 1 else torch.lerp(z, drive, step))

    def potential(self, z: Tensor) -> Tensor:
        """``|z|^2 / 2``, elementwise."""
        return z.square() / 2

    def slope(self, z: Tensor) -> Tensor:
        """``dz/dI`` at rest: 1 inside the box, 0 at its ends."""
        if self.box is None:
            return torch.ones_like(z)
        return ((z > self.box[0]) & (z < self.box[1])).to(z.dtype)


@dataclass(frozen=True)
class _Curved:
    """What has a curved potential over the box ``[lo, hi]``."""

    box: tuple[float, float]

    @property
    def height(self) -> float:
        """``hi - lo``."""
        return self.box[1] - self.box[0]

    def __call__(self, drive: Tensor) -> Tensor:
        """State at rest under `drive`, same shape."""
        raise NotImplementedError

    def share(self, z: Tensor) -> Tensor:
        """``u = (z - lo) / h``."""
        return (z - self.box[0]) / self.height

    def relax(self, z: Tensor, drive: Tensor, step: float) -> Tensor:
        """`z` moved towards rest; beyond a full step the energy of a curved potential may rise."""
        return torch.lerp(z, self(drive), min(step, 1.0))


class Sigmoid(_Curved):
    """The smooth twin of the box ``[lo, hi]``: same ends, and slope 1 at its middle.

    ``z = lo + h sigma(4 (I - m) / h)`` with height ``h`` and middle ``m``; for ``[0, 1]`` that is
    ``1 / (1 + exp(2 - 4 I))``, the activation of Laborieux & Zenke (2022). It is the minimum of
    ``Phi(z) - I z`` with ``Phi'(z) = m + h/4 logit((z - lo) / h)``. Since ``Phi'' >= 1``, what
    settles with a box settles with this, too. `__call__` takes complex drives.
    """

    @property
    def middle(self) -> float:
        """``(lo + hi) / 2``."""
        return sum(self.box) / 2

    def __call__(self, drive: Tensor) -> Tensor:
        """State at rest under `drive`, same shape."""
        return self.box[0] + self.height * torch.sigmoid(4 / self.height * (drive - self.middle))

    def potential(self, z: Tensor) -> Tensor:
        """``Phi(z)``, elementwise: ``m z + h^2/4 (u log u + (1 - u) log(1 - u))``."""
        u = self.share(z)
        entropy = torch.xlogy(u, u) + torch.xlogy(1 - u, 1 - u)
        return self.middle * z + self.height**2 / 4 * entropy

    def slope(self, z: Tensor) -> Tensor:
        """``dz/dI`` at rest: ``4 u (1 - u)``."""
        u = self.share(z)
        return 4 * u * (1 - u)


class HardReset(_Curved):
    """The mean rate of spiking neurons with a hard reset, in the box ``[lo, hi]`` of height ``h``.

    Under a drive of ``i = (I - lo) / h`` a step a membrane that starts at 0 crosses 1 after
    ``ceil(1 / i)`` steps and loses what is above, evenly spread over ``[0, i)``: half a step's
    drive on average. So ``z (1 + i / 2) = i``, and ``z = lo + h 2 i / (2 + i)``, which bridges the
    stairs of ``1 / ceil(1 / i)``. It is the minimum of ``Phi(z) - I z`` with
    ``Phi'(z) = lo + h 2 u / (2 - u)``, ``u = (z - lo) / h``; ``Phi'' >= 1``, as of `Sigmoid`.
    """

    def __call__(self, drive: Tensor) -> Tensor:
        """State at rest under `drive`, same shape."""
        i = ((drive - self.box[0]) / self.height).clamp(0, 2)
        return self.box[0] + self.height * (2 * i / (2 + i))

    def potential(self, z: Tensor) -> Tensor:
        """``Phi(z)``, elementwise: ``lo z - 2 h^2 (u + 2 log(1 - u / 2))``."""
        u = self.share(z)
        return self.box[0] * z - 2 * self.height**2 * (u + 2 * torch.log1p(-u / 2))

    def slope(self, z: Tensor) -> Tensor:
        """``dz/dI`` at rest: ``(1 - u / 2)^2`` inside the box, 0 at its ends."""
        u = self.share(z)
        return (1 - u / 2).square() * ((u > 0) & (u < 1))


Activation = Clip | Sigmoid | HardReset


def distance(activation: Activation, a: Tensor, b: Tensor) -> Tensor:
    """Largest ``|a - b|`` of each sample (N,) in heights of the box, so that all boxes compare."""
    # Over the axes as they lie in memory: flattening an image that is channels-last copies it.
    return (a - b).abs().amax(tuple(range(1, a.dim()))) / activation.height


def activation(population: PopulationSpec) -> Activation:
    """The activation of `population`."""
    if population.activation == "sigmoid":
        assert population.bounds is not None
        return Sigmoid(population.bounds)
    return Clip(population.bounds, population.unit)
