"""Scaled weight standardisation: weights whose mean and size learning cannot touch, and its slope.

Of Brock, De & Smith (2021), "Characterizing signal propagation to close the performance gap in
unnormalized ResNets", eq. 2, with a gain that learns. All of it is local to the neuron.
"""

from __future__ import annotations

import math

from torch import Tensor


def standardised(v: Tensor, g: Tensor) -> Tensor:
    """``W_c = g_c (V_c - mean(V_c)) / (std(V_c) sqrt(fan_in))``, shape of `v`.

    Parameters
    ----------
    v : Tensor, (channels, ...)
        Mean and (biased) standard deviation are those of each channel's fan-in, all other axes.
    g : Tensor, (channels,)
        The size of a channel: its weights have the standard deviation ``g_c / sqrt(fan_in)``.
    """
    scaled, _ = _normal(v)
    return scaled * (g / math.sqrt(v[0].numel())).view(-1, *[1] * (v.dim() - 1))


def pull_back(v: Tensor, g: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient with respect to `v` and `g` of what has the gradient `dw` at `standardised`.

    With ``U = (V - mean) / std`` and the mean ``<.>`` over the fan-in ``n``:
    ``dg = sqrt(n) <dW U>`` and ``dV = g / (std sqrt(n)) (dW - <dW> - U <dW U>)``.
    """
    dims = list(range(1, v.dim()))
    u, std = _normal(v)
    root = math.sqrt(v[0].numel())
    along = (dw * u).mean(dims, keepdim=True)
    rest = dw - dw.mean(dims, keepdim=True) - u * along
    return rest * (g.view_as(along) / (std * root)), along.flatten() * root


def _normal(v: Tensor) -> tuple[Tensor, Tensor]:
    """`v` less its mean, over its standard deviation, and the latter, by channel."""
    dims = list(range(1, v.dim()))
    centred = v - v.mean(dims, keepdim=True)
    std = centred.square().mean(dims, keepdim=True).sqrt()
    return centred / std, std
