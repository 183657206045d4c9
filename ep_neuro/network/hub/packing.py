"""Weights as bytes: whole numbers of 8 bits with one scale a channel, a quarter of float32."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

TOP = 127
"""Largest whole number of a packed weight; the range is symmetric."""

SCALE = ".scale"
"""What the name of a packed tensor's scales, (channels,) in float32, has behind it."""


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of two and more axes as int8 with the scales of axis 0 beside; others as they are."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.dim() < 2:
            found[name] = value
            continue
        scale = value.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / TOP
        found[name] = (value / _beside(scale, value)).round().to(torch.int8)
        found[name + SCALE] = scale
    return found


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `packed`, to half a scale; what has no fitting scale beside it stays as it is."""
    found = dict(tensors)
    for name, value in tensors.items():
        scale = tensors.get(name + SCALE)
        if value.dtype == torch.int8 and scale is not None and scale.shape == value.shape[:1]:
            found[name] = value * _beside(found.pop(name + SCALE), value)
    return found


def _beside(scale: Tensor, value: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (value.dim() - 1))
