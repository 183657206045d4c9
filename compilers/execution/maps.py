"""The linear operators of the IR on torch tensors, in the cheapest numbers that are exact.

Inside the executor images lie channels-last, (N, H, W, C), which convolutions like best. Sums of
integers are exact in any order while they stay below 2**53 in float64, and below 2**24 in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compilers.execution.arithmetic import Floating
from compilers.execution.constants import SINGLE
from compilers.execution.exact_parts import Split, exact_parts
from compilers.execution.reach import Reach, as_matrix, by_sender, reach
from compilers.ir.graph import Conv, ConvTranspose, Projection, Shape
from compilers.ir.operators import receiving_axis

FEW = 8
"""Samples so few that a call costs more than what it computes."""

Apply = Callable[[Tensor], Tensor]
"""A linear map from (N, *pre) to (N, *post), as the executor lays populations out."""


def inside(shape: Shape) -> Shape:
    """Shape of a population as the executor lays it out."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def channels_last(values: Tensor) -> Tensor:
    """A batch (N, *shape) as the executor lays it out."""
    return values.permute(0, 2, 3, 1).contiguous() if values.ndim == 4 else values


def channels_first(values: Tensor) -> Tensor:
    """The same batch in the order of the graph, (N, *shape)."""
    return values.permute(0, 3, 1, 2) if values.ndim == 4 else values


def inward(values: np.ndarray) -> Tensor:
    """`channels_last` of an array, float64."""
    return channels_last(torch.from_numpy(np.ascontiguousarray(values, np.float64)))


def outward(values: Tensor) -> np.ndarray:
    """`channels_first` as an array; on a CPU a view."""
    return np.asarray(channels_first(values).cpu())


class LinearMap:
    """``op(W, x)`` of one projection on batches, and the gain that it takes.

    Parameters
    ----------
    projection : Projection
    pre, post : tuple of int
        Shapes of the populations.
    numbers : Floating or Integer
    bound : float
        What no message exceeds in size.

    Attributes
    ----------
    weight : ndarray
        What it was last given.
    norm : float
        What the drive cannot exceed in size, for messages of size 1; infinite until it is asked.
    """

    def __init__(
        self, projection: Projection, pre: Shape, post: Shape, numbers: Floating, bound: float
    ) -> None:
        self.projection, self.pre, self.post = projection, pre, post
        self.numbers, self.bound = numbers, bound
        self.weight: np.ndarray = np.zeros(0)
        self._norm: float | None = None

    def load(self, weight: np.ndarray) -> None:
        """Go on with another `weight`, float64; in integers shifted by channel."""
        self.weight, self._norm = weight, None

    def reload(self) -> None:
        """Go on with the same weight in other numbers."""
        self.load(self.weight)

    def largest(self, sent: float) -> float:
        """What no sum exceeds in size, times its gain, for whole messages up to `sent`."""
        gain = self.projection.rescale
        assert gain is not None
        odd = abs(gain.multiplier) // max(1, gain.multiplier & -gain.multiplier)
        return self.norm * sent * max(1, odd) + 2.0 ** max(0, -gain.shift)

    @property
    def norm(self) -> float:
        """What no sum exceeds in size, for messages up to 1."""
        if self._norm is None:
            receiving = receiving_axis(self.projection.operator)
            others = tuple(axis for axis in range(self.weight.ndim) if axis != receiving)
            self._norm = float(np.abs(self.weight).sum(others).max())
        return self._norm

    def sums(self, samples: int) -> Tensor:
        """Zeros (samples, *post) to add results up in."""
        shape = (samples, *inside(self.post))
        return torch.zeros(shape, dtype=self.numbers.wide, device=self.numbers.device)

    def apply(self, x: Tensor, largest: float) -> Tensor:
        """The result (N, *post) for messages `x` up to `largest` in size."""
        raise NotImplementedError

    def reach(self) -> Reach:
        """Where what is sent arrives."""
        return reach(self.projection.operator, self.weight.shape, self.pre, self.post)

    def by_sender(self) -> np.ndarray:
        """The weights as the runs of `reach` take them."""
        return by_sender(self.projection.operator, self.weight, self.pre, self.post)

    def _wide(self, found: Tensor) -> Tensor:
        return found if found.dtype == self.numbers.wide else found.to(self.numbers.wide)

    def gained(self, found: Tensor) -> Tensor:
        """A result, or a sum of results, in the units of the receiving membrane."""
        return self.numbers.gain(self.projection, found)

    def drive(self, drive: Tensor, x: Tensor, largest: float) -> None:
        """Add what messages `x` drive the receiver with to `drive`."""
        drive.add_(self.gained(self.apply(x, largest)))


class GivenMap(LinearMap):
    """Some other linear map in place of the operator."""

    def __init__(self, apply: Apply, *rest: object) -> None:
        super().__init__(*rest)  # type: ignore[arg-type]
        self._apply = apply

    def load(self, weight: np.ndarray) -> None:
        """It knows its own weight."""

    def largest(self, sent: float) -> float:
        return math.inf

    def apply(self, x: Tensor, largest: float) -> Tensor:
        return self._apply(x)


class DenseMap(LinearMap):
    """A matrix; in floating point, and in integers that float64 holds, times the gain.

    On a CPU NumPy multiplies all but few samples: by narrow matrices three times as fast as torch.
    """

    def load(self, weight: np.ndarray) -> None:
        super().load(weight)
        matrix = as_matrix(self.projection.operator, weight, self.pre, self.post)
        numbers, factor = self.numbers, self.numbers.factor(self.projection)
        integers = numbers.integers and numbers.wide != torch.float32
        self._kind = torch.float64 if integers else numbers.wide
        self._gained = factor is not None
        self._rounds = numbers.rounds(self.projection)
        # Both factors in one product: it is exact, for a power of two only moves the point.
        held = torch.from_numpy(matrix if factor in (None, 1.0) else matrix * factor)
        self._matrix = held.to(numbers.device, self._kind)
        self._array = self._matrix.numpy() if numbers.device.type == "cpu" else None

    def apply(self, x: Tensor, largest: float) -> Tensor:
        if len(x := self._flat(x)) < FEW or self._array is None:
            found = x @ self._matrix
        else:
            found = torch.from_numpy(x.numpy() @ self._array)
        found = self._wide(found)
        return found if len(self.post) == 1 else found.view(-1, *inside(self.post))

    def drive(self, drive: Tensor, x: Tensor, largest: float) -> None:
        if not self._gained or (self._array is not None and len(x) >= FEW):
            super().drive(drive, x, largest)
            return
        into = drive if drive.ndim == 2 else drive.view(len(drive), -1)
        if self._rounds:
            into.add_(torch.addmm(self.numbers.half, self._flat(x), self._matrix).floor_())
        else:
            into.addmm_(self._flat(x), self._matrix)

    def _flat(self, x: Tensor) -> Tensor:
        flat = x if x.ndim == 2 else x.reshape(len(x), -1)
        return flat if flat.dtype == self._kind else flat.to(self._kind)

    def gained(self, found: Tensor) -> Tensor:
        if not self._gained:
            return super().gained(found)
        return torch.add(self.numbers.half, found).floor_() if self._rounds else found


class ConvMap(LinearMap):
    """A convolution, or the adjoint of one; of integers in float32, whole or in exact parts."""

    def load(self, weight: np.ndarray) -> None:
        super().load(weight)
        self._kernels: dict[torch.dtype, Tensor] = {}
        self._splits: dict[float, Split | None] = {}
        operator = self.projection.operator
        assert isinstance(operator, Conv | ConvTranspose)
        self._run = _convolution(operator, weight.shape[2:], self.pre, self.post)

    def apply(self, x: Tensor, largest: float) -> Tensor:
        if not self.numbers.integers:
            return self._convolved(x, self._kernel(self.numbers.wide))
        if self.numbers.single and self.norm * largest < SINGLE:
            return self._convolved(x, self._kernel(torch.float32))
        if (split := self._in_parts(largest)) is None:
            return self._convolved(x, self._kernel(torch.float64))
        x, found = x.float(), self.sums(len(x))
        for part in split.parts:
            found.add_(self._convolved(x[..., part.channels], part.kernel), alpha=part.factor)
        return found.mul_(split.factors)

    def _convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        x = x if x.dtype == kernel.dtype else x.to(kernel.dtype)
        return self._wide(self._run(x.permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1))

    def _kernel(self, kind: torch.dtype) -> Tensor:
        if kind not in self._kernels:
            held = torch.from_numpy(self.weight).to(self.numbers.device)
            self._kernels[kind] = held.to(kind, memory_format=torch.channels_last)
        return self._kernels[kind]

    def _in_parts(self, largest: float) -> Split | None:
        """The weight in exact parts; None where it learns, and where float64 is as fast."""
        if self.numbers.learns or not self.numbers.single:
            return None
        bound = 2.0 ** math.ceil(math.log2(largest))
        if bound not in self._splits:
            receiving = receiving_axis(self.projection.operator)
            self._splits[bound] = exact_parts(self.weight, receiving, bound)
        return self._splits[bound]


def linear_map(
    projection: Projection, pre: Shape, post: Shape, numbers: Floating, bound: float
) -> LinearMap:
    """The map of `projection`'s own operator."""
    image = isinstance(projection.operator, Conv | ConvTranspose)
    return (ConvMap if image else DenseMap)(projection, pre, post, numbers, bound)


def _convolution(
    operator: Conv | ConvTranspose, kernel: Sequence[int], pre: Shape, post: Shape
) -> Callable[..., Tensor]:
    """torch's convolution, or the adjoint of one, (N, *pre) by a weight to (N, *post)."""
    stride, padding = operator.stride, operator.padding
    if isinstance(operator, Conv):
        return partial(F.conv2d, stride=stride, padding=padding)
    rows, columns = (
        n - ((m - 1) * stride - 2 * padding + k)
        for n, m, k in zip(post[1:], pre[1:], kernel, strict=True)
    )
    return partial(
        F.conv_transpose2d, stride=stride, padding=padding, output_padding=(rows, columns)
    )
