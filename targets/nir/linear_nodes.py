"""What the linear nodes of a NIR graph add up to: matrices and a bias into each neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import nir
import numpy as np

from compilers.ir.graph import Conv
from compilers.ir.operators import apply
from ep_neuro.errors import SpecError

NEURONS = (nir.LI, nir.CubaLI, nir.LIF, nir.CubaLIF, nir.IF, nir.I)
POOLS = (nir.AvgPool2d, nir.SumPool2d)
LINEAR = (nir.Affine, nir.Linear, nir.Conv1d, nir.Conv2d, *POOLS, nir.Flatten, nir.Scale)

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
        If a node is not linear, or linear nodes form a loop without a neuron in it.
    """
    before: dict[str, list[str]] = {}
    for pre, post in net.edges:
        before.setdefault(post, []).append(pre)
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
    if isinstance(node, (nir.Input, *NEURONS)):
        size = int(np.prod(node.output_type["output"]))
        if size > LARGEST:
            problem = (
                f"{size} neurons exceed {LARGEST}, as couplings are imported as dense matrices"
            )
            raise SpecError(f"node '{name}'", problem, "narrow it")
        return Drive({name: np.eye(size)}, np.zeros(size))
    if not isinstance(node, LINEAR):
        problem = f"{type(node).__name__} is neither a neuron nor linear"
        raise SpecError(f"node '{name}'", problem, "leave it out, or inline nested graphs")
    if name in behind:
        raise SpecError(
            f"node '{name}'", "linear nodes feed each other without a neuron", "break the loop"
        )
    into = _sum(net, before, name, (*behind, name))
    keys = list(into.weights)
    # Columns are samples here: an operator maps the images of all unit vectors at once.
    columns = np.concatenate([*(into.weights[k] for k in keys), into.bias[:, None]], axis=1)
    images = _applied(node, name, columns.T).T
    splits = np.cumsum([into.weights[k].shape[1] for k in keys])
    *parts, bias = np.split(images, splits, axis=1)
    return Drive(dict(zip(keys, parts, strict=True)), bias[:, 0] + _bias(node))


def _applied(node: nir.NIRNode, name: str, x: np.ndarray) -> np.ndarray:
    """The linear part of `node` on flat samples `x` (N, size)."""
    if isinstance(node, nir.Affine | nir.Linear) and node.weight.ndim == 2:
        return x @ np.asarray(node.weight, np.float64).T
    if isinstance(node, nir.Scale):
        return x * np.asarray(node.scale, np.float64).ravel()
    if isinstance(node, nir.Flatten):
        return x
    if isinstance(node, POOLS):
        return _pooled(node, name, x)
    if isinstance(node, nir.Conv2d):
        operator, shape = _plain_conv(node, name), tuple(map(int, node.output_type["output"]))
        planes = x.reshape(len(x), *map(int, node.input_type["input"]))
        return apply(operator, node.weight, planes, shape).reshape(len(x), -1)
    problem = f"a {type(node).__name__} of this shape is not supported"
    raise SpecError(f"node '{name}'", problem, "write it as Affine")


def _pooled(node: nir.NIRNode, name: str, x: np.ndarray) -> np.ndarray:
    """Sum or mean of the patches of each plane, over zeros beyond the border: a convolution."""
    rows, cols = np.broadcast_to(np.ravel(node.kernel_size), 2)
    kernel = np.ones((1, 1, int(rows), int(cols)))
    if isinstance(node, nir.AvgPool2d):
        kernel /= kernel.size
    channels, *sides = map(int, node.input_type["input"])
    shape = (1, *map(int, node.output_type["output"][1:]))
    planes = x.reshape(len(x) * channels, 1, *sides)
    return apply(_operator(node, name), kernel, planes, shape).reshape(len(x), -1)


def _plain_conv(node: nir.Conv2d, name: str) -> Conv:
    if int(node.groups) != 1 or set(map(int, np.ravel(node.dilation))) != {1}:
        problem = "groups and dilation are not supported"
        raise SpecError(f"node '{name}'", problem, "write the convolution as Affine")
    return _operator(node, name)


def _operator(node: nir.NIRNode, name: str) -> Conv:
    """Stride and padding of a convolution or a pool, which are one number each."""
    numbers = not isinstance(node.padding, str)
    sides = [set(map(int, np.ravel(v))) for v in (node.stride, node.padding)] if numbers else []
    if [len(side) for side in sides] != [1, 1]:
        problem = f"named padding or unequal sides of a {type(node).__name__} are not supported"
        raise SpecError(f"node '{name}'", problem, "write it as Affine")
    stride, padding = (side.pop() for side in sides)
    return Conv(stride, padding)


def _bias(node: nir.NIRNode) -> np.ndarray | float:
    if isinstance(node, nir.Affine):
        return np.asarray(node.bias, np.float64)
    if isinstance(node, nir.Conv2d) and node.bias is not None:
        places = int(np.prod(node.output_type["output"][1:]))
        return np.repeat(np.asarray(node.bias, np.float64), places)
    return 0.0
