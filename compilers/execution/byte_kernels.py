"""Sums of spikes by weights of a byte, exact, in the byte arithmetic of the processor.

It multiplies four times as many bytes at a time as numbers of float32. torch offers that to its own
compiler only, so it is tried before it is trusted; without it, float32 gives the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compilers.execution.constants import SINGLE
from compilers.execution.exact_parts import common_factors
from compilers.ir.graph import Conv, ConvTranspose, Shape

BYTE = 127
"""Largest size of an element of a kernel."""

FEW = 32
"""Receiving channels that oneDNN always is fast for."""


class ByteConv:
    """``op(W, x)`` of a convolution, or of the adjoint of one, on spikes.

    The adjoint with stride ``S`` is a convolution of stride 1 that has ``S * S`` results a place,
    one for each place that a receiver of a stride apart from it has; they are put in order after.

    Parameters
    ----------
    operator : Conv or ConvTranspose
    weight : ndarray
        Whole numbers of at most 7 bits, times a factor of each receiving channel.
    pre, post : tuple of int
        Shapes of the populations, channels first.
    gain : float
        Power of two that sums are multiplied by.
    """

    def __init__(
        self,
        operator: Conv | ConvTranspose,
        weight: np.ndarray,
        pre: Shape,
        post: Shape,
        gain: float = 1.0,
    ) -> None:
        self._shape = (operator, weight.shape, pre, post)
        self._whole = torch.from_numpy(weight * gain).float()
        self._size, self._stride, self._start = post[1:], 1, (0, 0)
        kernel, stride, padding = weight, operator.stride, (operator.padding,) * 2
        if isinstance(operator, ConvTranspose):
            kernel, padding, self._start = _by_place(operator, weight, pre, post)
            self._stride, stride = stride, 1
        self._channels = len(kernel)
        kernel = np.pad(kernel, ((0, _spare(len(kernel))), (0, 0), (0, 0), (0, 0)))
        factors = common_factors(kernel, 0)
        self._factors = torch.from_numpy(factors * gain).float()
        self._zeros = torch.zeros(len(factors), dtype=torch.int32)
        short = torch.from_numpy(np.ascontiguousarray(kernel / factors[:, None, None, None]))
        self._how = ([stride, stride], list(padding), [1, 1], 1)
        self._kernel = torch.ops.onednn.qconv_prepack(
            short.to(torch.int8), self._factors, 1.0, 0, *self._how
        )

    def __call__(self, spikes: Tensor) -> Tensor:
        """Sums (N, rows, columns, channels), float32, for `spikes` laid out like them.

        In some shapes oneDNN's are wrong, mostly of strides that come to one column: each is tried
        once for each number of samples, and summed in float32 where it errs.
        """
        right = _right(*self._shape, len(spikes))
        return self.in_bytes(spikes) if right else self.in_floats(spikes)

    def in_floats(self, spikes: Tensor) -> Tensor:
        """The sums as torch's own convolution has them."""
        operator, _, pre, post = self._shape
        run = convolution(operator, self._whole.shape[2:], pre, post)
        return run(spikes.permute(0, 3, 1, 2), self._whole).permute(0, 2, 3, 1)

    def in_bytes(self, spikes: Tensor) -> Tensor:
        """The sums as the processor's byte arithmetic has them, right or wrong."""
        sent = torch.from_numpy(np.greater(spikes.numpy(), 0).view(np.uint8))
        found = _convolved(
            sent.permute(0, 3, 1, 2), self._kernel, self._factors, self._zeros, self._how
        ).permute(0, 2, 3, 1)[..., : self._channels]
        s, (top, left), (rows, columns) = self._stride, self._start, self._size
        if s > 1:
            n, high, wide, channels = found.shape
            found = found.reshape(n, high, wide, s, s, channels // (s * s)).transpose(2, 3)
            found = found.reshape(n, high * s, wide * s, -1)
        return found[:, top : top + rows, left : left + columns]


class ByteDense:
    """``x @ matrix`` on spikes.

    Parameters
    ----------
    matrix : ndarray, (pre, post)
        Whole numbers of at most 7 bits, times a factor of each receiving neuron.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        factors = None if np.abs(matrix).max(initial=0) <= BYTE else common_factors(matrix, 1)
        short = matrix if factors is None else matrix / factors
        self._matrix = torch.from_numpy(np.ascontiguousarray(short)).to(torch.int8)
        self._factors = None if factors is None else torch.from_numpy(factors).to(torch.int32)

    def __call__(self, spikes: Tensor) -> Tensor:
        """Sums (N, post), int32, for `spikes` (N, pre)."""
        found = torch._int_mm(spikes.to(torch.int8), self._matrix)
        return found if self._factors is None else found.mul_(self._factors)


def _convolved(
    sent: Tensor, kernel: Tensor, factors: Tensor, zeros: Tensor, how: tuple[object, ...]
) -> Tensor:
    return torch.ops.onednn.qconv2d_pointwise(
        sent, 1.0, 0, kernel, factors, zeros, None, *how, 1.0, 0, torch.float32, "none", [], ""
    )


@cache
def _right(
    operator: Conv | ConvTranspose, shape: tuple[int, ...], pre: Shape, post: Shape, samples: int
) -> bool:
    """Whether bytes come to the right sums, of random spikes and a random kernel."""
    dice = np.random.default_rng(0)
    weight = dice.integers(-BYTE, BYTE + 1, shape).astype(np.float64)
    sent = dice.integers(0, 2, (samples, *pre[1:], pre[0]), np.uint8)
    tried, spikes = ByteConv(operator, weight, pre, post), torch.from_numpy(sent).float()
    return torch.equal(tried.in_bytes(spikes), tried.in_floats(spikes))


def convolution(
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


def _by_place(
    operator: ConvTranspose, weight: np.ndarray, pre: Shape, post: Shape
) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """Kernel (S * S * channels, pre channels, ...) and padding of the adjoint; where it starts."""
    s, p, (sending, channels, k, _) = operator.stride, operator.padding, weight.shape
    taps = -(-k // s)
    whole = np.zeros((sending, channels, taps * s, taps * s))
    whole[:, :, :k, :k] = weight
    # Receiver i hears sender (i + P) // S - j through W[(i + P) % S + S j].
    split = whole.reshape(sending, channels, taps, s, taps, s)[:, :, ::-1, :, ::-1]
    kernel = split.transpose(3, 5, 1, 0, 2, 4).reshape(s * s * channels, sending, taps, taps)
    padding, start = [], []
    for n, m in zip(post[1:], pre[1:], strict=True):
        pad = max(taps - 1 - p // s, (n - 1 + p) // s - (m - 1), 0)
        padding.append(pad)
        start.append(p - s * (taps - 1 - pad))
    return kernel, (padding[0], padding[1]), (start[0], start[1])


def _spare(channels: int) -> int:
    """Channels to add: oneDNN takes twenty times as long for 33 to 48 of them, or 81 to 96."""
    return 0 if channels <= FEW else -channels % (2 * FEW)


def fits_bytes(weight: np.ndarray, receiving: int) -> bool:
    """Whether sums by `weight` of spikes are exact here, and this machine has bytes.

    `receiving` is the axis of receivers.
    """
    others = tuple(axis for axis in range(weight.ndim) if axis != receiving)
    sizes = np.abs(weight)
    largest = sizes.max(others)
    if largest.max() > BYTE:
        largest = largest / common_factors(weight, receiving)
    return bool(largest.max() <= BYTE and sizes.sum(others).max() < SINGLE) and trusted()


@cache
def trusted() -> bool:
    """Whether this processor and this torch convolve bytes, and rightly."""
    if not getattr(torch.cpu, "_is_vnni_supported", lambda: False)():
        return False
    dice = np.random.default_rng(0)
    kernel, sent = (
        dice.integers(-BYTE, BYTE + 1, (16, 16, 3, 3)),
        dice.integers(0, 2, (2, 5, 5, 16)),
    )
    spikes = torch.from_numpy(sent).float()
    right = F.conv2d(spikes.permute(0, 3, 1, 2), torch.from_numpy(kernel).float(), padding=1)
    matrix, said = dice.integers(-BYTE, BYTE + 1, (400, 24)), spikes.flatten(1)
    try:
        conv = ByteConv(Conv(1, 1), kernel.astype(np.float64), (16, 5, 5), (16, 5, 5))
        found = conv.in_bytes(spikes)
        summed = ByteDense(matrix.astype(np.float64))(said).numpy()
    except (AttributeError, RuntimeError, TypeError):
        return False
    summed_right = np.array_equal(summed, said.numpy().astype(np.int64) @ matrix)
    return summed_right and torch.equal(found, right.permute(0, 2, 3, 1))
