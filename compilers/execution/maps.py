"""The linear operators of the IR on torch tensors, in the cheapest numbers that are exact.

Inside the executor images lie channels-last, (N, H, W, C), which convolutions like best. Sums of
integers are exact in any order while they stay below 2**53 in float64, and below 2**24 in float32.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compilers.execution.octets import WIDTH, OctetMap, Octets, exact
from compilers.ir import Conv, ConvTranspose, Dense, DenseTranspose, Operator, Shape

SINGLE = float(1 << 24)
"""Integers up to it, and sums of them in any order, are exact in float32."""

SMALL = 4096
"""Messages so few that looking for zeros among them costs as much as passing them on."""

WORTH = 1 << 20
"""Products of a batch from which convolving bytes pays for looking the kernel up."""


def inside(shape: Shape) -> Shape:
    """Shape of a population as the executor lays it out."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def inward(values: np.ndarray) -> Tensor:
    """A batch (N, *shape) as the executor lays it out, float64."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float64))
    return tensor.permute(0, 2, 3, 1).contiguous() if tensor.ndim == 4 else tensor


def outward(values: Tensor) -> np.ndarray:
    """The same batch as a view in the order of the graph, (N, *shape)."""
    return np.asarray(values.permute(0, 3, 1, 2) if values.ndim == 4 else values)


class Messages:
    """What a population tells its receivers in one step, (N, *shape).

    Parameters
    ----------
    values : Tensor
    bound : float
        What no message exceeds in size.
    signed : bool
        Messages may be negative.
    integers : bool
        They are whole numbers, of which samples that say nothing can be left out to the bit.

    Attributes
    ----------
    largest : float
        Size of the largest message, or a bound of it.
    rows : Tensor or None
        Samples that say something, None for all of them.
    told : Tensor
        The messages of these samples.
    """

    def __init__(self, values: Tensor, bound: float, signed: bool, integers: bool) -> None:
        self.values, self._signed = values, signed
        self.largest, self.told = bound, values
        self.rows: Tensor | None = None
        self._octets: Octets | None = None
        if values.numel() >= SMALL:
            self._scan(integers)

    def _scan(self, integers: bool) -> None:
        flat = self.values if self.values.ndim == 2 else self.values.flatten(1)
        peaks = (flat.abs() if self._signed else flat).amax(1).tolist()
        self.largest = max(peaks)
        if not self.largest or (integers and not all(peaks)):
            self.rows = torch.tensor([n for n, peak in enumerate(peaks) if peak]).long()
            self.told = self.values[self.rows]

    @property
    def silent(self) -> bool:
        """Whether nobody says anything."""
        return not self.largest

    def octets(self) -> Octets | None:
        """`told` as bytes, if they fit."""
        if self._octets is None and self.told.dtype == torch.float32:
            self._octets = Octets.of(self.told, self.largest, self._signed)
        return self._octets


class LinearMap:
    """``op(W, x)`` of one projection on batches; its weight is laid out once.

    Parameters
    ----------
    operator : Operator
    weight : ndarray, float64
        ``W``; in a graph of integers shifted by the exponents of its channels.
    pre, post : tuple of int
        Shapes of the populations.
    integers : bool
        Weight and messages are whole numbers: narrower types where they are as exact.
    """

    def __init__(
        self, operator: Operator, weight: np.ndarray, pre: Shape, post: Shape, integers: bool
    ) -> None:
        self.operator, self.pre, self.post = operator, pre, post
        self._weight, self._integers = weight, integers
        receiving = 0 if isinstance(operator, Dense | Conv) else 1
        others = tuple(axis for axis in range(weight.ndim) if axis != receiving)
        self._norm = float(np.abs(weight).sum(others).max())
        self._laid: dict[torch.dtype, Tensor] = {}
        self._octets: dict[int, OctetMap] = {}

    def __call__(self, messages: Messages) -> Tensor:
        """The result (n, *post) for the n samples in ``messages.rows``.

        float32 if that is exact for whole numbers, else float64.
        """
        x = messages.told
        narrow = x.dtype == torch.float32 and self.is_single(messages.largest)
        if not narrow and x.dtype != torch.float64:
            x = x.double()
        if isinstance(self.operator, Dense | DenseTranspose):
            found = F.linear(x if x.ndim == 2 else x.flatten(1), self._matrix(x.dtype))
            return found if len(self.post) == 1 else found.reshape(-1, *inside(self.post))
        octets = messages.octets() if self._takes_octets(x.shape[0]) else None
        if octets is not None:
            return self._octet_map(octets.zero)(octets.images)
        return self._convolve(self.operator, x)

    def is_single(self, largest: float) -> bool:
        """Whether float32 holds the sums of messages up to `largest` exactly."""
        return self._integers and self._norm * largest < SINGLE

    def _matrix(self, dtype: torch.dtype) -> Tensor:
        """The matrix (post, pre) between flat populations as they are laid out here."""
        if dtype not in self._laid:
            transposed = isinstance(self.operator, DenseTranspose)
            matrix = self._weight.T if transposed else self._weight
            matrix = matrix[_order(self.post)][:, _order(self.pre)]
            self._laid[dtype] = torch.from_numpy(np.ascontiguousarray(matrix)).to(dtype)
        return self._laid[dtype]

    def _convolve(self, operator: Conv | ConvTranspose, x: Tensor) -> Tensor:
        if x.dtype not in self._laid:
            kernel = torch.from_numpy(self._weight)
            self._laid[x.dtype] = kernel.to(x.dtype, memory_format=torch.channels_last)
        images, kernel = x.permute(0, 3, 1, 2), self._laid[x.dtype]
        stride, padding = operator.stride, operator.padding
        if isinstance(operator, Conv):
            found = F.conv2d(images, kernel, stride=stride, padding=padding)
        else:
            rows, columns = (
                n - ((m - 1) * stride - 2 * padding + k)
                for n, m, k in zip(self.post[1:], self.pre[1:], kernel.shape[2:], strict=True)
            )
            found = F.conv_transpose2d(
                images, kernel, stride=stride, padding=padding, output_padding=(rows, columns)
            )
        return found.permute(0, 2, 3, 1).contiguous()

    # --- bytes ---------------------------------------------------------------------------------

    @cached_property
    def _fits_octets(self) -> bool:
        whole = self._integers and not any(n % WIDTH for n in self._weight.shape[:2])
        fits = float(np.abs(self._weight).max()) < 128 and 255 * self._norm < SINGLE
        return whole and fits and exact()

    def _takes_octets(self, samples: int) -> bool:
        coarse = self.post if isinstance(self.operator, Conv) else self.pre
        products = samples * self._weight.size * math.prod(coarse[1:])
        return products >= WORTH and self._fits_octets

    def _octet_map(self, zero: int) -> OctetMap:
        assert isinstance(self.operator, Conv | ConvTranspose)
        if zero not in self._octets:
            self._octets[zero] = OctetMap(self.operator, self._weight, self.pre, self.post, zero)
        return self._octets[zero]


def _order(shape: Shape) -> np.ndarray:
    """Place in the graph's order of each neuron of a population as it is laid out here."""
    places = np.arange(math.prod(shape)).reshape(shape)
    return (np.moveaxis(places, 0, -1) if len(shape) == 3 else places).ravel()
