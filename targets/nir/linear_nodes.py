"""What the linear nodes of a NIR graph add up to: matrices and a bias into each neuron."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import nir
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from compilers.execution.maps import Apply
from ep_neuro.errors import SpecError

NEURONS = (nir.LI, nir.CubaLI, nir.LIF, nir.CubaLIF, nir.IF, nir.I)
ENDS = (nir.Input, *NEURONS)
POOLS = (nir.AvgPool2d, nir.SumPool2d)
CONVOLVED = (nir.Conv1d, nir.Conv2d, *POOLS)
LINEAR = (nir.Affine, nir.Linear, *CONVOLVED, nir.Flatten, nir.Scale)

LARGEST = 1 << 14
"""Most neurons of a population: its square of float64 takes 2 GiB."""


@dataclass(frozen=True)
class Drive:
    """``I = sum_pre weights[pre] x_pre + bias``, all flat: matrices (post, pre) and (post,)."""

    weights: Mapping[str, np.ndarray]
    bias: np.ndarray


def drives(net: nir.NIRGraph) -> dict[str, Drive]:
    """The current into each neuron and output of `net`, by node, in the order of their distance
    from the input.

    Raises
    ------
    SpecError
        If a node is not linear, linear nodes form a loop without a neuron in it, or a population
        is too large.
    """
    before: dict[str, list[str]] = {}
    for pre, post in net.edges:
        before.setdefault(post, []).append(pre)
    for name, node in net.nodes.items():
        size = math.prod(node.output_type["output"]) if isinstance(node, ENDS) else 0
        if size > LARGEST:
            problem = f"{size} neurons exceed the {LARGEST} of a coupling as a dense matrix"
            remedy = "give the model that the file was made of, or narrow the layer"
            raise SpecError(f"node '{name}'", problem, remedy)
    ends = [n for n in _by_distance(net) if isinstance(net.nodes[n], (*NEURONS, nir.Output))]
    return {name: _sum(net, before, name, ()) for name in ends}


def _by_distance(net: nir.NIRGraph) -> list[str]:
    after: dict[str, list[str]] = {}
    for pre, post in net.edges:
        after.setdefault(pre, []).append(post)
    order = [name for name, node in net.nodes.items() if isinstance(node, nir.Input)]
    for name in order:
        order += [n for n in dict.fromkeys(after.get(name, ())) if n not in order]
    return [*order, *(name for name in net.nodes if name not in order)]


def _sum(
    net: nir.NIRGraph, before: Mapping[str, list[str]], name: str, behind: tuple[str, ...]
) -> Drive:
    """The sum of all that enters node `name`."""
    size = int(np.prod(net.nodes[name].input_type["input"]))
    weights: dict[str, np.ndarray] = {}
    bias = np.zeros(size)
    for pre in before.get(name, ()):
        part = _out_of(net, before, pre, behind)
        bias = bias + part.bias
        for key, weight in part.weights.items():
            weights[key] = weights[key] + weight if key in weights else weight
    return Drive(weights, bias)


def _out_of(
    net: nir.NIRGraph, before: Mapping[str, list[str]], name: str, behind: tuple[str, ...]
) -> Drive:
    """What node `name` gives, in terms of inputs and neurons."""
    node = net.nodes[name]
    if isinstance(node, ENDS):
        size = int(np.prod(node.output_type["output"]))
        return Drive({name: np.eye(size)}, np.zeros(size))
    if not isinstance(node, LINEAR):
        problem = f"{type(node).__name__} is neither a neuron nor linear"
        raise SpecError(f"node '{name}'", problem, "leave it out")
    if name in behind:
        raise SpecError(
            f"node '{name}'", "linear nodes feed each other without a neuron", "break the loop"
        )
    into = _sum(net, before, name, (*behind, name))
    keys = list(into.weights)
    # Columns are samples here: an operator maps the images of all unit vectors at once.
    columns = np.concatenate([*(into.weights[k] for k in keys), into.bias[:, None]], axis=1)
    try:
        images = linear_map(node)(torch.from_numpy(columns.T)).numpy().T
        images[:, -1] += np.asarray(bias_of(node))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        problem = f"this {type(node).__name__} is not supported ({reason})"
        raise SpecError(f"node '{name}'", problem, "write it as Affine") from None
    splits = np.cumsum([into.weights[k].shape[1] for k in keys])
    *parts, bias = np.split(images, splits, axis=1)
    return Drive(dict(zip(keys, parts, strict=True)), bias[:, 0])


def linear_map(node: nir.NIRNode) -> Apply:
    """What `node` makes of flat samples (N, size), float64, its bias apart.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        Now, or when it is called: what torch raises on numbers that do not fit.
    """
    if isinstance(node, nir.Affine | nir.Linear) and node.weight.ndim == 2:
        return partial(F.linear, weight=_tensor(node.weight))
    if isinstance(node, nir.Scale):
        return partial(torch.mul, _tensor(node.scale).flatten())
    if isinstance(node, nir.Flatten):
        return lambda x: x
    if not isinstance(node, CONVOLVED):
        raise TypeError("no matrix and no map of planes")
    shape = tuple(map(int, node.input_type["input"]))
    convolve = image_map(node, shape)
    return lambda x: convolve(x.reshape(-1, *shape)).flatten(1)


def image_map(node: nir.NIRNode, shape: tuple[int, ...], device: str = "cpu") -> Apply:
    """What the convolution or pool `node` makes of samples (N, *shape), float64, its bias apart.

    On the device ``meta`` it makes shapes alone.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        Now, or when it is called: what torch raises on numbers that do not fit.
    """
    sides = len(shape) - 1
    padding = node.padding if isinstance(node.padding, str) else _spread(node.padding, sides)
    how: dict[str, Any] = {"stride": _spread(node.stride, sides), "padding": padding}
    if isinstance(node, POOLS):
        # Sum or mean of the patches of each plane, over zeros beyond the border.
        window = _spread(node.kernel_size, sides)
        kernel = torch.ones(shape[0], 1, *window, dtype=torch.float64, device=device)
        kernel /= kernel[0].numel() if isinstance(node, nir.AvgPool2d) else 1
        how |= {"groups": shape[0]}
    else:
        kernel, groups = _tensor(node.weight).to(device), int(node.groups)
        if device != "meta":
            kernel, groups = _without_zeros(kernel, groups)
        how |= {"dilation": _spread(node.dilation, sides), "groups": groups}
    convolve = F.conv1d if isinstance(node, nir.Conv1d) else F.conv2d
    return partial(convolve, weight=kernel, **how)


def _without_zeros(kernel: Tensor, groups: int) -> tuple[Tensor, int]:
    """The same kernel and groups, or cheaper ones where each channel goes into itself alone."""
    out, channels = kernel.shape[:2]
    own = kernel.diagonal().movedim(-1, 0)[:, None]
    if groups > 1 or out != channels or own.count_nonzero() < kernel.count_nonzero():
        return kernel, groups
    return own, channels


def bias_of(node: nir.NIRNode) -> Tensor | float:
    """What `node` adds to samples (N, size)."""
    if isinstance(node, nir.Affine):
        return _tensor(node.bias)
    if isinstance(node, nir.Conv1d | nir.Conv2d) and node.bias is not None:
        places = int(np.prod(node.output_type["output"][1:]))
        return _tensor(node.bias).repeat_interleave(places)
    return 0.0


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))


def _spread(values: Any, sides: int) -> tuple[int, ...]:
    """One value for each of `sides`, as a node may give one for all."""
    return tuple(map(int, np.broadcast_to(np.ravel(values), sides)))
