"""How a coupling lies on a matrix of cells: what goes on the lines, and what comes off them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from compilers.ir.graph import Conv, Dense
from compilers.ir.operators import apply
from targets.crossbar.arrays.mapping import ArrayMapping


class Layout:
    """A coupling ``post = op(W, pre)`` as reads of one matrix (outputs, inputs).

    A population's states are (N, *shape); lines are (N * reads, lines), a row a read. This is the
    layout of a dense coupling: its weight is the matrix, a line a neuron, one read a step.
    """

    def __init__(self, mapping: ArrayMapping) -> None:
        self.pre, self.post, self.kernel = mapping.pre, mapping.post, mapping.kernel

    @property
    def formed(self) -> np.ndarray | None:
        """Where the matrix has devices, (outputs, inputs); None for everywhere."""
        return None

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The matrix of cells of a weight, or of a change of one."""
        return weight.reshape(len(weight), -1)

    def weight(self, matrix: np.ndarray) -> np.ndarray:
        """The weight of a matrix; where cells share one, their mean."""
        return matrix.reshape(self.kernel)

    def inputs(self, pre: Tensor) -> Tensor:
        """States of the pre population on the input lines."""
        return pre.reshape(len(pre), -1)

    def outputs(self, post: Tensor) -> Tensor:
        """States of the post population on the output lines."""
        return post.reshape(len(post), -1)

    def to_post(self, lines: Tensor) -> Tensor:
        """What a forward read leaves on the output lines, as drive of the post population."""
        return lines.reshape(-1, *self.post)

    def to_pre(self, lines: Tensor) -> Tensor:
        """What a transposed read leaves on the input lines, as drive of the pre population."""
        return lines.reshape(-1, *self.pre)


class Unrolled(Layout):
    """A convolution whose every synapse is a cell of its own; elsewhere no device is formed.

    Cells of one kernel weight are programmed apart, so their errors differ.
    """

    def __init__(self, mapping: ArrayMapping) -> None:
        super().__init__(mapping)
        size = math.prod(self.pre)
        # Kernel weights numbered from 1 and convolved with one neuron at a time: each entry is
        # the number of the weight that joins the two, or 0.
        numbers = np.arange(1.0, math.prod(self.kernel) + 1).reshape(self.kernel)
        single = np.eye(size).reshape(size, *self.pre)
        entries = apply(mapping.operator, numbers, single, self.post).reshape(size, -1).T
        self._entries = np.rint(entries).astype(np.int64)

    @property
    def formed(self) -> np.ndarray | None:
        return self._entries > 0

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], weight.ravel()])[self._entries]

    def weight(self, matrix: np.ndarray) -> np.ndarray:
        """The mean of each kernel weight's cells; zero for one that no position uses."""
        entries, length = self._entries.ravel(), math.prod(self.kernel) + 1
        total = np.bincount(entries, matrix.ravel(), length)
        count = np.bincount(entries, minlength=length)
        return (total / np.maximum(count, 1))[1:].reshape(self.kernel)


class Kernels(Layout):
    """The kernels of a convolution as one matrix, read for each patch of the input in turn."""

    def __init__(self, mapping: ArrayMapping) -> None:
        super().__init__(mapping)
        assert isinstance(mapping.operator, Conv)
        self._places = {"padding": mapping.operator.padding, "stride": mapping.operator.stride}

    def inputs(self, pre: Tensor) -> Tensor:
        patches = torch.nn.functional.unfold(pre, self.kernel[2:], **self._places)
        return patches.transpose(1, 2).reshape(-1, patches.shape[1])

    def outputs(self, post: Tensor) -> Tensor:
        return post.flatten(2).transpose(1, 2).reshape(-1, post.shape[1])

    def to_post(self, lines: Tensor) -> Tensor:
        channels, rows, columns = self.post
        apart = lines.reshape(-1, rows * columns, channels).transpose(1, 2)
        return apart.reshape(-1, channels, rows, columns)

    def to_pre(self, lines: Tensor) -> Tensor:
        """Patches added where they overlap: the adjoint of `inputs`."""
        patches = lines.reshape(-1, math.prod(self.post[1:]), lines.shape[1]).transpose(1, 2)
        return torch.nn.functional.fold(patches, self.pre[1:], self.kernel[2:], **self._places)


def layout(mapping: ArrayMapping) -> Layout:
    """The layout of a coupling as `mapping` says."""
    if isinstance(mapping.operator, Dense):
        return Layout(mapping)
    return (Unrolled if mapping.conv == "unrolled" else Kernels)(mapping)
