"""Convolutions of the reference by torch: the sums of `compilers.operators`, three times as fast.

In float64 both are matrix products of patches; integers come out exact while sums stay below
2**53, floating point in another order of the terms. Integers whose sums stay below 2**24 come out
exact in float32 too, at less than half the price: 8-bit weights and messages of 8 bits or spikes
are mostly such. Between 16 channels of 14x14 and 32 of 7x7 with
kernels of 3, 20 samples, one core: 0.22 ms forward and 0.27 ms back, where the NumPy ones take 0.61
and 0.94.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compilers.ir import Conv, ConvTranspose, Operator, Shape
from compilers.operators import apply

if TYPE_CHECKING:
    from torch import Tensor


SINGLE = float(1 << 24)
"""Integers up to it, and sums of them in any order, are exact in float32."""


class Convolver:
    """Applies operators to batches in float64, each weight laid out once.

    Parameters
    ----------
    integers : bool
        Weights and what they meet are integers: float32 where that is as exact.
    """

    def __init__(self, integers: bool = False) -> None:
        self._integers = integers
        self._kernels: dict[tuple[str, bool], tuple[np.ndarray, Tensor]] = {}
        self._sums: dict[str, tuple[np.ndarray, float, float]] = {}

    def apply(
        self, operator: Operator, name: str, weight: np.ndarray, x: np.ndarray, post: Shape
    ) -> np.ndarray:
        """``op(W, x)``, as `compilers.operators.apply`; `name` identifies the weight.

        Parameters
        ----------
        operator : Operator
        name : str
        weight : ndarray, float64
        x : ndarray, (N, *pre shape)
        post : tuple of int
            Shape of the receiving population.

        Returns
        -------
        ndarray, (N, *post), float64
            Of convolutions, channels-last in memory.
        """
        if not isinstance(operator, Conv | ConvTranspose):
            return apply(operator, weight, x.astype(np.float64, copy=False), post)
        import torch  # here: whoever asks what targets there are shall not wait for it
        import torch.nn.functional as F

        single = self._integers and self._largest(operator, name, weight, x) < SINGLE
        kernel = self._kernel(name, weight, single)
        images = torch.from_numpy(x).to(kernel.dtype, memory_format=torch.channels_last)
        stride, padding = operator.stride, operator.padding
        with torch.inference_mode():
            if isinstance(operator, Conv):
                found = F.conv2d(images, kernel, stride=stride, padding=padding)
            else:
                rows, columns = (
                    n - ((m - 1) * stride - 2 * padding + k)
                    for n, m, k in zip(post[1:], x.shape[2:], weight.shape[2:], strict=True)
                )
                found = F.conv_transpose2d(
                    images, kernel, stride=stride, padding=padding, output_padding=(rows, columns)
                )
            return found.to(torch.float64, memory_format=torch.channels_last).numpy()

    def _largest(self, operator: Operator, name: str, weight: np.ndarray, x: np.ndarray) -> float:
        """What no partial sum exceeds: the weights that meet in a neuron, times a message."""
        known = self._sums.get(name)
        if known is None or known[0] is not weight:
            size = np.abs(weight)
            known = (weight, float(size.sum((1, 2, 3)).max()), float(size.sum((0, 2, 3)).max()))
            self._sums[name] = known
        message = max(float(x.max(initial=0)), -float(x.min(initial=0)))
        return float(message * known[1 if isinstance(operator, Conv) else 2])

    def _kernel(self, name: str, weight: np.ndarray, single: bool) -> Tensor:
        import torch

        known = self._kernels.get((name, single))
        if known is None or known[0] is not weight:
            kind = torch.float32 if single else torch.float64
            laid = torch.from_numpy(weight).to(kind, memory_format=torch.channels_last)
            known = self._kernels[name, single] = (weight, laid)
        return known[1]
