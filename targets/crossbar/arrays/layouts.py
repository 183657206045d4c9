"""How a coupling lies on a matrix of cells: what goes on the lines, and what comes off them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from compilers.ir.graph import Conv, Dense, Shape
from compilers.ir.operators import apply


class Layout(Protocol):
    """A coupling ``post = op(W, pre)`` as reads of one matrix (outputs, inputs).

    A population's states are (N, *shape); lines are (N * reads, lines), a row a read.
    """

    @property
    def formed(self) -> np.ndarray | None:
        """Where the matrix has devices, (outputs, inputs); None for everywhere."""
        ...

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The matrix of cells of a weight, or of a change of one."""
        ...

    def weight(self, matrix: np.ndarray) -> np.ndarray:
        """The weight of a matrix; where cells share one, their mean."""
        ...

    def inputs(self, pre: Tensor) -> Tensor:
        """States of the pre population on the input lines."""
        ...

    def outputs(self, post: Tensor) -> Tensor:
        """States of the post population on the output lines."""
        ...

    def to_post(self, lines: Tensor) -> Tensor:
        """What a forward read leaves on the output lines, as drive of the post population."""
        ...

    def to_pre(self, lines: Tensor) -> Tensor:
        """What a transposed read leaves on the input lines, as drive of the pre population."""
        ...


class Matrix:
    """The weight of a dense coupling is the matrix; one read a step."""

    def __init__(self, pre: Shape, post: Shape) -> None:
        self.pre, self.post = pre, post

    @property
    def formed(self) -> np.ndarray | None:
        """Everywhere."""
        return None

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The weight itself."""
        return weight

    def weight(self, matrix: np.ndarray) -> np.ndarray:
        """The matrix itself."""
        return matrix

    def inputs(self, pre: Tensor) -> Tensor:
        """One line a neuron."""
        return pre.reshape(len(pre), -1)

    def outputs(self, post: Tensor) -> Tensor:
        """One line a neuron."""
        return post.reshape(len(post), -1)

    def to_post(self, lines: Tensor) -> Tensor:
        """One neuron a line."""
        return lines.reshape(-1, *self.post)

    def to_pre(self, lines: Tensor) -> Tensor:
        """One neuron a line."""
        return lines.reshape(-1, *self.pre)


class Unrolled(Matrix):
    """A convolution whose every synapse is a cell of its own; elsewhere no device is formed.

    Cells of one kernel weight are programmed apart, so their errors differ.
    """

    def __init__(self, operator: Conv, pre: Shape, post: Shape, kernel: Shape) -> None:
        super().__init__(pre, post)
        size = math.prod(pre)
        # Kernel weights numbered from 1 and convolved with one neuron at a time: each entry is
        # the number of the weight that joins the two, or 0.
        numbers = np.arange(1.0, math.prod(kernel) + 1).reshape(kernel)
        single = np.eye(size).reshape(size, *pre)
        entries = apply(operator, numbers, single, post).reshape(size, -1).T
        self._entries = np.rint(entries).astype(np.int64)
        self._kernel = kernel

    @property
    def formed(self) -> np.ndarray | None:
        """At the synapses."""
        return self._entries > 0

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """Every synapse where it stands."""
        return np.concatenate([[0.0], weight.ravel()])[self._entries]

    def weight(self, matrix: np.ndarray) -> np.ndarray:
        """The mean of each kernel weight's cells; zero for one that no position uses."""
        entries, kernel = self._entries.ravel(), self._kernel
        length = math.prod(kernel) + 1
        total = np.bincount(entries, matrix.ravel(), length)
        count = np.bincount(entries, minlength=length)
        return (total / np.maximum(count, 1))[1:].reshape(kernel)


@dataclass(frozen=True)
class Kernels:
    """The kernels of a convolution as one matrix, read for each patch of the input in turn."""

    operator: Conv
    pre: Shape
    post: Shape
    kernel: Shape

    @property
    def formed(self) -> np.ndarray | None:
        """Everywhere."""
        return None

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """A row an output channel."""
        return weight.reshape(len(weight), -1)

    def weight(self, matrix: np.ndarray) -> np.ndarray:
        """Kernels again."""
        return matrix.reshape(self.kernel)

    def inputs(self, pre: Tensor) -> Tensor:
        """A row a patch."""
        s, p = self.operator.stride, self.operator.padding
        patches = torch.nn.functional.unfold(pre, self.kernel[2:], padding=p, stride=s)
        return patches.transpose(1, 2).reshape(-1, patches.shape[1])

    def outputs(self, post: Tensor) -> Tensor:
        """A row a position of the post population."""
        return post.flatten(2).transpose(1, 2).reshape(-1, post.shape[1])

    def to_post(self, lines: Tensor) -> Tensor:
        """Positions next to each other again."""
        channels, rows, columns = self.post
        apart = lines.reshape(-1, rows * columns, channels).transpose(1, 2)
        return apart.reshape(-1, channels, rows, columns)

    def to_pre(self, lines: Tensor) -> Tensor:
        """Patches added where they overlap: the adjoint of `inputs`."""
        s, p = self.operator.stride, self.operator.padding
        patches = lines.reshape(-1, math.prod(self.post[1:]), lines.shape[1]).transpose(1, 2)
        return torch.nn.functional.fold(patches, self.pre[1:], self.kernel[2:], padding=p, stride=s)


def layout(operator: Dense | Conv, pre: Shape, post: Shape, kernel: Shape, conv: str) -> Layout:
    """The layout of a coupling; `conv` is ``shared`` or ``unrolled``."""
    if isinstance(operator, Dense):
        return Matrix(pre, post)
    return (Unrolled if conv == "unrolled" else Kernels)(operator, pre, post, kernel)
