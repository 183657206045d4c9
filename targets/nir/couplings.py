"""Linear maps between populations as couplings: convolutions where they are, else matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compilers.execution.maps import Apply
from compilers.ir.graph import Conv
from ep_neuro.energy.spec import Shape
from ep_neuro.errors import SpecError

LARGEST = 1 << 28
"""Most weights of a coupling as a matrix, which takes 2 GiB in float64."""

ROWS = 256
"""Unit vectors that go through a map at once."""

EXACT = 1e-9
"""Largest error of a convolution that stands for a map, in units of the largest value: both are
sums in float64."""

Ends = tuple[str, Shape]
"""What errors call a population, and its shape."""


@dataclass(frozen=True)
class Linked:
    """Weights between two populations, or from the input to one."""

    there: np.ndarray | None
    """Of the map from `pre` to `post`: (post, pre), or a kernel (post channels, pre channels,
    kernel, kernel); None: no way."""
    back: np.ndarray | None
    """The same of the transpose of the map that leads back."""
    conv: Conv | None = None
    """What kernels are for; None: these are matrices."""


def linked(pre: Ends, post: Ends, there: Apply | None, back: Apply | None) -> Linked:
    """The weights of `there`, from `pre` to `post`, and of `back`; flat samples (N, size).

    Raises
    ------
    SpecError
        If they are no convolution, and too many for a matrix.
    """
    (start, first), (end, last) = pre, post
    if len(first) == len(last) == 3:
        found = _convolution(first, last, there, back)
        if found is not None:
            return found
    inputs, outputs = math.prod(first), math.prod(last)
    if inputs * outputs > LARGEST:
        problem = f"{inputs} times {outputs} weights of no convolution exceed the {LARGEST} of one"
        remedy = "give the model that the file was made of, or narrow the layers"
        raise SpecError(f"nodes '{start}' and '{end}'", problem, remedy)
    matrices: list[np.ndarray | None] = [
        None if there is None else np.concatenate(list(_images(there, inputs))).T,
        None if back is None else np.concatenate(list(_images(back, outputs))),
    ]
    return Linked(matrices[0], matrices[1])


def _images(of: Apply, size: int) -> Iterator[np.ndarray]:
    """What a map makes of all unit vectors, some at a time."""
    for first in range(0, size, ROWS):
        units = torch.eye(min(ROWS, size - first), size, dtype=torch.float64).roll(first, 1)
        yield of(units).numpy()


def _convolution(pre: Shape, post: Shape, there: Apply | None, back: Apply | None) -> Linked | None:
    """Kernels of both ways if one convolution, and its transpose, do what they do."""
    rows, columns = (n - 1 for n in post[1:])
    # What a neuron amid the plane reads mostly is the whole kernel.
    middle = {(rows // 2, columns // 2)}
    for places in (middle, {(i, j) for i in (0, rows) for j in (0, columns)}):
        units = {place: _units_at(post, place) for place in places}
        ways = [
            None if there is None else {k: _transposed(there, u, pre) for k, u in units.items()},
            None if back is None else {k: back(u) for k, u in units.items()},
        ]
        most = max(-(-n // max(1, m)) for n, m in zip(pre[1:], post[1:], strict=True))
        for stride in range(1, most + 1):
            wide = [None if way is None else _offsets(way, pre, post, stride) for way in ways]
            found = _cropped(wide, pre, post, stride)
            if found is not None and _agrees(found, pre, post, there, back):
                return found
    return None


def _units_at(post: Shape, place: tuple[int, int]) -> Tensor:
    """One sample a channel with a 1 at `place` of it, (channels, size)."""
    units = torch.zeros(post[0], *post, dtype=torch.float64)
    units[range(post[0]), range(post[0]), place[0], place[1]] = 1
    return units.flatten(1)


def _transposed(of: Apply, y: Tensor, pre: Shape) -> Tensor:
    """What the transpose of the map `of` makes of `y` (N, post size)."""
    x = torch.zeros(len(y), math.prod(pre), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(of(x), x, y)
    return gradient


def _offsets(
    way: dict[tuple[int, int], Tensor], pre: Shape, post: Shape, stride: int
) -> np.ndarray:
    """Weights by how far they read from ``stride`` times their place, which itself stands at
    ``stride (post side - 1)`` of rows and columns.
    """
    zero = [stride * (n - 1) for n in post[1:]]
    sides = [n + z for n, z in zip(pre[1:], zero, strict=True)]
    wide = np.zeros((post[0], pre[0], *sides))
    for (i, j), read in way.items():
        down, right = zero[0] - stride * i, zero[1] - stride * j
        part = wide[:, :, down : down + pre[1], right : right + pre[2]]
        part[...] = read.numpy().reshape(part.shape)
    return wide


def _cropped(wide: list[np.ndarray | None], pre: Shape, post: Shape, stride: int) -> Linked | None:
    """The smallest square kernels, of one padding, that hold what is not zero in `wide`."""
    zero = [stride * (n - 1) for n in post[1:]]
    used = np.any([(w != 0).any((0, 1)) for w in wide if w is not None], axis=0)
    if not used.any():
        return None
    ends = [np.flatnonzero(used.any(axis))[[0, -1]] - z for axis, z in ((1, zero[0]), (0, zero[1]))]
    nearest = max(0, *(-int(low) for low, _ in ends))
    for padding in range(nearest, nearest + max(pre[1:])):
        reach = max(int(high) + padding + 1 for _, high in ends)
        room = [n + 2 * padding - z for n, z in zip(pre[1:], zero, strict=True)]
        kernel = max(1, reach, *(r - stride + 1 for r in room))
        if kernel > min(room):
            continue
        first = [z - padding for z in zero]
        edges = [(0, 0), (0, 0)] + [
            (max(0, -f), max(0, f + kernel - u)) for f, u in zip(first, used.shape, strict=True)
        ]
        rows, columns = (slice(max(0, f), max(0, f) + kernel) for f in first)
        there, back = (
            None if w is None else np.pad(w, edges)[:, :, rows, columns].copy() for w in wide
        )
        return Linked(there, back, Conv(stride, padding))
    return None


def _agrees(
    found: Linked, pre: Shape, post: Shape, there: Apply | None, back: Apply | None
) -> bool:
    """Whether the kernels do to random samples what the maps do."""
    assert found.conv is not None
    generator = torch.Generator().manual_seed(0)
    how: dict[str, Any] = {"stride": found.conv.stride, "padding": found.conv.padding}
    pairs = []
    if there is not None:
        x = torch.randn(2, *pre, generator=generator, dtype=torch.float64)
        pairs.append((there(x.flatten(1)), F.conv2d(x, torch.from_numpy(found.there), **how)))
    if back is not None:
        y = torch.randn(2, *post, generator=generator, dtype=torch.float64)
        kernel = torch.from_numpy(found.back)
        # Rows that the stride leaves out of reach of the last place's kernel.
        sides = zip(pre[1:], post[1:], strict=True)
        size = kernel.shape[-1] - 2 * found.conv.padding
        more = [n - found.conv.stride * (m - 1) - size for n, m in sides]
        reached = F.conv_transpose2d(y, kernel, output_padding=more, **how)
        pairs.append((back(y.flatten(1)), reached))
    return all(bool((a - b.flatten(1)).abs().max() <= EXACT * a.abs().max()) for a, b in pairs)
