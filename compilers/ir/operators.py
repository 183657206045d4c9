"""The linear operators of the IR, and on batched NumPy arrays: apply, adjoint, fan-out, check."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Dense:
    """``y = W x`` on flattened populations; ``W`` is (post, pre)."""


@dataclass(frozen=True)
class DenseTranspose:
    """``y = W^T x``: the adjoint of `Dense`; ``W`` is (pre, post) of *this* projection."""


@dataclass(frozen=True)
class Conv:
    """``y[o, i, j] = sum_(c,k,l) W[o, c, k, l] x[c, S i + k - P, S j + l - P]``, ``S`` the stride.

    ``P`` is the padding, with zeros.
    ``W`` is (post channels, pre channels, kernel, kernel).
    """

    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class ConvTranspose:
    """The exact adjoint of `Conv` with the same weight, for any size of the post population.

    ``W`` is (pre channels, post channels, kernel, kernel) of *this* projection.
    """

    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Partial:
    """``y[i, k] = sum_(j in share k) W[i, j] x[j]``: the terms of `of`, added up by share.

    Share ``k`` is the neurons from ``k * share`` on, as many as `share`, of the flattened pre
    population; ``W`` is that of `of`, and the post population is (neurons of `of`, shares, 1).
    """

    of: Dense | DenseTranspose
    share: int


@dataclass(frozen=True)
class Total:
    """``y[i] = sum_k W[0, k] x[i, k]``: every neuron hears its own partial sums alone."""


Operator = Dense | DenseTranspose | Conv | ConvTranspose | Partial | Total


def apply(operator: Operator, weight: np.ndarray, x: np.ndarray, post_shape: Shape) -> np.ndarray:
    """``op(W, x)`` of a batch, in the dtype of `x`.

    Parameters
    ----------
    operator : Operator
        What the weight means; see the docstrings above.
    weight : ndarray
        ``W``; converted to the dtype of `x`, so convert it once where many steps follow.
    x : ndarray, (N, *pre shape)
        float32 or float64. Integers passed as float64 give exact results while every partial sum
        stays below 2**53.
    post_shape : tuple of int
        Shape of the receiving population.

    Returns
    -------
    ndarray, (N, *post_shape)
        Convolutions return a view whose memory is channels-last: sums of such views and the next
        convolution are fastest in this layout, so it is passed on instead of copied.
    """
    w = weight.astype(x.dtype, copy=False)
    if isinstance(operator, Conv):
        return _conv(w, x, operator.stride, operator.padding)
    if isinstance(operator, ConvTranspose):
        return _conv_transpose(w, x, operator.stride, operator.padding, post_shape)
    flat = x.reshape(len(x), -1) @ matrix(operator, w, math.prod(post_shape)).T
    return flat.reshape(len(x), *post_shape)


def matrix(operator: Operator, weight: np.ndarray, post_size: int) -> np.ndarray:
    """Weights of an operator that is no convolution as (post neurons, pre neurons)."""
    if isinstance(operator, Partial):
        whole = matrix(operator.of, weight, post_size)
        share_of = np.arange(whole.shape[1]) // operator.share
        own = share_of == np.arange(share_of[-1] + 1)[:, None]
        return (whole[:, None] * own).reshape(post_size, -1)
    if isinstance(operator, Total):
        return np.kron(np.eye(post_size, dtype=weight.dtype), weight)
    return weight.T if isinstance(operator, DenseTranspose) else weight


def _conv(w: np.ndarray, x: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """im2col and one matrix product; (N, C, H, W) -> (N, O, A, B)."""
    o, c, k, m = w.shape
    patches, (rows, columns) = _patches(x, (k, m), stride, padding)
    y = patches @ w.transpose(2, 3, 1, 0).reshape(k * m * c, o)
    return y.reshape(len(x), rows, columns, o).transpose(0, 3, 1, 2)


def _patches(
    x: np.ndarray, kernel: tuple[int, int], stride: int, padding: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """What each position of a kernel sees, (N * rows * columns, k * m * C), and rows, columns."""
    (n, c, h, b), (k, m) = x.shape, kernel
    padded = np.zeros((n, h + 2 * padding, b + 2 * padding, c), x.dtype)
    padded[:, padding : padding + h, padding : padding + b] = x.transpose(0, 2, 3, 1)
    windows = sliding_window_view(padded, (k, m), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    rows, columns = windows.shape[1:3]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(n * rows * columns, k * m * c)
    return patches, (rows, columns)


def _conv_transpose(
    w: np.ndarray, x: np.ndarray, stride: int, padding: int, post_shape: Shape
) -> np.ndarray:
    """One matrix product and col2im over the kernel positions; (N, O, A, B) -> (N, C, H, W)."""
    (n, o, rows, columns), (_, c, k, m) = x.shape, w.shape
    _, h, b = post_shape
    flat = x.transpose(0, 2, 3, 1).reshape(n * rows * columns, o)
    patches = flat @ w.transpose(0, 2, 3, 1).reshape(o, k * m * c)
    patches = patches.reshape(n, rows, columns, k, m, c)
    padded = np.zeros((n, h + 2 * padding, b + 2 * padding, c), x.dtype)
    down, across = stride * (rows - 1) + 1, stride * (columns - 1) + 1
    for i in range(k):
        for j in range(m):
            padded[:, i : i + down : stride, j : j + across : stride] += patches[:, :, :, i, j]
    return padded[:, padding : padding + h, padding : padding + b].transpose(0, 3, 1, 2)


def pairings(
    operator: Dense | Conv, weight_shape: Shape, pre: np.ndarray, post: np.ndarray
) -> np.ndarray:
    """``sum post x pre`` over the samples and places of each weight, of shape `weight_shape`.

    The derivative of ``sum <post, op(W, pre)>`` with respect to ``W``.

    Parameters
    ----------
    operator : Dense or Conv
        A forward operator.
    weight_shape : tuple of int
    pre, post : ndarray, (N, *population shape)
        Of one float dtype; integers in float64 give exact results while sums stay below 2**53.
    """
    if isinstance(operator, Dense):
        return post.reshape(len(post), -1).T @ pre.reshape(len(pre), -1)
    o, c, k, m = weight_shape
    patches, _ = _patches(pre, (k, m), operator.stride, operator.padding)
    seen = post.transpose(0, 2, 3, 1).reshape(-1, o)
    return (patches.T @ seen).reshape(k, m, c, o).transpose(3, 2, 0, 1)


def unsplit(operator: Operator) -> Operator:
    """The operator whose sums `operator` makes by share, or itself."""
    return operator.of if isinstance(operator, Partial) else operator


def receiving_axis(operator: Operator) -> int:
    """Axis of the weight that counts receiving neurons, or channels."""
    return 1 if isinstance(unsplit(operator), DenseTranspose | ConvTranspose) else 0


def adjoint(operator: Operator) -> Operator:
    """The operator of the opposite direction, with the same weight; of whole sums only."""
    match operator:
        case Dense():
            return DenseTranspose()
        case DenseTranspose():
            return Dense()
        case Conv(stride, padding):
            return ConvTranspose(stride, padding)
        case ConvTranspose(stride, padding):
            return Conv(stride, padding)
        case Partial() | Total():
            raise TypeError(f"{operator} leads one way")


def fanout(
    operator: Operator, weight_shape: Shape, pre_shape: Shape, post_shape: Shape
) -> np.ndarray:
    """Synapses that one event of each pre neuron meets, int64 of shape `pre_shape`.

    The count is structural: windows that fall off the border do not count, weights that happen
    to be zero do.
    """
    if not isinstance(operator, Conv | ConvTranspose):
        met = {Partial: post_shape[0], Total: 1}.get(type(operator), math.prod(post_shape))
        return np.full(pre_shape, met, np.int64)
    kernel = np.ones((1, 1, *weight_shape[2:]))
    field = np.ones((1, 1, *post_shape[1:]))
    per_channel = apply(adjoint(operator), kernel, field, (1, *pre_shape[1:]))[0, 0]
    counts = np.rint(per_channel * post_shape[0]).astype(np.int64)
    return np.ascontiguousarray(np.broadcast_to(counts, pre_shape))


def nonzero_fanout(
    operator: Operator, weight: np.ndarray, pre_shape: Shape, post_shape: Shape
) -> np.ndarray:
    """`fanout` without the synapses whose weight is zero."""
    if weight.all():
        return fanout(operator, weight.shape, pre_shape, post_shape)
    held = (weight != 0).astype(np.float64)
    if isinstance(operator, Conv | ConvTranspose):
        met = apply(adjoint(operator), held, np.ones((1, *post_shape)), pre_shape)
    else:
        met = matrix(operator, held, math.prod(post_shape)).sum(0).reshape(pre_shape)
    return np.rint(met.reshape(pre_shape)).astype(np.int64)


def misfit(
    operator: Operator, weight_shape: Shape, pre_shape: Shape, post_shape: Shape
) -> str | None:
    """Why the operator cannot join populations of these shapes; None if it can."""
    if isinstance(operator, Partial):
        if operator.share < 1:
            return f"a share of {operator.share} neurons is below 1"
        shares = -(-math.prod(pre_shape) // operator.share)
        if post_shape[1:] != (shares, 1):
            return f"partial sums of {shares} shares are {post_shape}, not (neurons, {shares}, 1)"
        return misfit(operator.of, weight_shape, pre_shape, post_shape[:1])
    if isinstance(operator, Total):
        sums = (math.prod(post_shape), weight_shape[-1], 1)
        if pre_shape != sums:
            return f"partial sums are {pre_shape}, not {sums}"
        return None if weight_shape[:-1] == (1,) else f"weight {weight_shape} is not (1, shares)"
    if isinstance(operator, DenseTranspose | ConvTranspose):
        return misfit(adjoint(operator), weight_shape, post_shape, pre_shape)
    if isinstance(operator, Dense):
        wanted = (math.prod(post_shape), math.prod(pre_shape))
        return None if weight_shape == wanted else f"weight {weight_shape} is not {wanted}"
    if len(pre_shape) != 3 or len(post_shape) != 3:
        return f"a convolution joins {pre_shape} to {post_shape}, not (C, H, W) to (C, H, W)"
    if len(weight_shape) != 4 or weight_shape[:2] != (post_shape[0], pre_shape[0]):
        return f"weight {weight_shape} is not ({post_shape[0]}, {pre_shape[0]}, k, k)"
    s, p = operator.stride, operator.padding
    sides = tuple(
        (n + 2 * p - k) // s + 1 for n, k in zip(pre_shape[1:], weight_shape[2:], strict=True)
    )
    if min(sides) < 1 or sides != tuple(post_shape[1:]):
        return f"{operator} of {pre_shape} gives sides {sides}, not {tuple(post_shape[1:])}"
    return None


def shift_channels(weight: np.ndarray, exponent: np.ndarray | None) -> np.ndarray:
    """Integer weight ``w << e``, as int64, with one shift per output channel (axis 0) or none."""
    if exponent is None:
        return weight.astype(np.int64)
    return weight.astype(np.int64) << exponent.reshape(-1, *[1] * (weight.ndim - 1))
