"""Convolutions of the reference by torch: the sums of `compilers.operators`, three times as fast.

In float64 both are matrix products of patches; integers come out exact while sums stay below
2**53, floating point in another order of the terms. Between 16 channels of 14x14 and 32 of 7x7 with
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


class Convolver:
    """Applies operators to batches in float64, each weight laid out once."""

    def __init__(self) -> None:
        self._kernels: dict[str, tuple[np.ndarray, Tensor]] = {}

    def apply(
        self, operator: Operator, name: str, weight: np.ndarray, x: np.ndarray, post: Shape
    ) -> np.ndarray:
        """``op(W, x)``, as `compilers.operators.apply`; `name` identifies the weight.

        Parameters
        ----------
        operator : Operator
        name : str
        weight : ndarray, float64
        x : ndarray, (N, *pre shape), float64
        post : tuple of int
            Shape of the receiving population.

        Returns
        -------
        ndarray, (N, *post)
            Of convolutions, channels-last in memory.
        """
        if not isinstance(operator, Conv | ConvTranspose):
            return apply(operator, weight, x, post)
        import torch  # here: whoever asks what targets there are shall not wait for it
        import torch.nn.functional as F

        kernel = self._kernel(name, weight)
        images = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
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
            return found.contiguous(memory_format=torch.channels_last).numpy()

    def _kernel(self, name: str, weight: np.ndarray) -> Tensor:
        import torch

        known = self._kernels.get(name)
        if known is None or known[0] is not weight:
            laid = torch.from_numpy(weight).contiguous(memory_format=torch.channels_last)
            known = self._kernels[name] = (weight, laid)
        return known[1]
