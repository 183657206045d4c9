"""2x2 pooling in an energy ``<z_post, P(W * z_pre)>``: the pool, and its adjoint."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ep_neuro.energy.spec import POOL


def average(u: Tensor) -> Tensor:
    """Mean of each 2x2 patch of `u` (N, C, H, W); an odd last row or column has no part in it."""
    return F.avg_pool2d(u, POOL)


def choose(u: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum of each 2x2 patch, and its place in the flattened image."""
    return F.max_pool2d(u, POOL, return_indices=True)


def pick(u: Tensor, places: Tensor) -> Tensor:
    """The entries of `u` at `places`: a max-pool whose choice was made before."""
    return u.flatten(2).gather(2, places.flatten(2)).view_as(places)


def spread(z: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Adjoint of `average`: a quarter of `z` to each pixel of an image of `sides`."""
    wide = (z / POOL**2).repeat_interleave(POOL, 2).repeat_interleave(POOL, 3)
    return F.pad(wide, (0, sides[1] - wide.shape[3], 0, sides[0] - wide.shape[2]))


def place(z: Tensor, places: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Adjoint of `pick`: `z` at `places` of an image of `sides`, zero elsewhere."""
    image = z.new_zeros(*z.shape[:2], sides[0] * sides[1])
    return image.scatter(2, places.flatten(2), z.flatten(2)).unflatten(2, sides)
