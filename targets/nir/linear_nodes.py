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


@dataclass(frozen=True)
class Drive:
    """``I = sum_pre maps[pre](x_pre) + bias``, all flat: (N, pre) to (N, post), and (post,)."""

    maps: Mapping[str, Apply]
    bias: np.ndarray


def drives(net: nir.NIRGraph) -> dict[str, Drive]:
    """The current into each neuron and output of `net`, by node, in the order of their distance
    from the input.

    Raises
    ------
    SpecError
        If a node is not linear, or linear nodes form a loop without a neuron in it.
    """
    flow = _Flow(net)
    ends = [n for n in _by_distance(net) if isinstance(net.nodes[n], (*NEURONS, nir.Output))]
    found = {}
    for name in ends:
        maps = {pre: partial(flow.into, name, pre) for pre in flow.sources(name)}
        found[name] = Drive(maps, flow.bias(name))
    return found


def _by_distance(net: nir.NIRGraph) -> list[str]:
    after: dict[str, list[str]] = {}
    for pre, post in net.edges:
        after.setdefault(pre, []).append(post)
    order = [name for name, node in net.nodes.items() if isinstance(node, nir.Input)]
    for name in order:
        order += [n for n in dict.fromkeys(after.get(name, ())) if n not in order]
    return [*order, *(name for name in net.nodes if name not in order)]


class _Flow:
    """What arrives at nodes of `net` through linear ones."""

    def __init__(self, net: nir.NIRGraph) -> None:
        self.net = net
        self.before: dict[str, list[str]] = {}
        for pre, post in net.edges:
            self.before.setdefault(post, []).append(pre)
        self.maps: dict[str, Apply] = {}

    def sources(self, name: str, behind: tuple[str, ...] = ()) -> list[str]:
        """Inputs and neurons from which something reaches node `name` without another between."""
        found: dict[str, None] = {}
        for pre in self.before.get(name, ()):
            node = self.net.nodes[pre]
            if isinstance(node, ENDS):
                found[pre] = None
                continue
            if not isinstance(node, LINEAR):
                problem = f"{type(node).__name__} is neither a neuron nor linear"
                raise SpecError(f"node '{pre}'", problem, "leave it out")
            if pre in behind:
                problem = "linear nodes feed each other without a neuron"
                raise SpecError(f"node '{pre}'", problem, "break the loop")
            found |= dict.fromkeys(self.sources(pre, (*behind, pre)))
        return list(found)

    def bias(self, name: str) -> np.ndarray:
        """What node `name` gets where all are silent, (size,)."""
        size = math.prod(map(int, self.net.nodes[name].input_type["input"]))
        found = self._sum(name, None, torch.zeros(1, 0, dtype=torch.float64), {})
        return np.zeros(size) if found is None else found[0].numpy()

    def into(self, name: str, source: str, x: Tensor) -> Tensor:
        """What node `name` gets of `x` (N, size) that `source` sends, biases apart."""
        found = self._sum(name, source, x, {})
        assert found is not None
        return found

    def _sum(
        self, name: str, source: str | None, x: Tensor, known: dict[str, Tensor | None]
    ) -> Tensor | None:
        parts = [self._out_of(pre, source, x, known) for pre in self.before.get(name, ())]
        found = [part for part in parts if part is not None]
        return sum(found[1:], found[0]) if found else None

    def _out_of(
        self, name: str, source: str | None, x: Tensor, known: dict[str, Tensor | None]
    ) -> Tensor | None:
        """What node `name` sends of `x` from `source`; of biases if there is none."""
        node = self.net.nodes[name]
        if isinstance(node, ENDS):
            return x if name == source else None
        if name not in known:
            into = self._sum(name, source, x, known)
            try:
                if name not in self.maps:
                    self.maps[name] = linear_map(node)
                out = None if into is None else self.maps[name](into)
                if source is None:
                    own = torch.as_tensor(bias_of(node), dtype=torch.float64)
                    size = math.prod(map(int, node.output_type["output"]))
                    out = own.expand(1, size) if out is None else out + own
            except (RuntimeError, TypeError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                problem = f"this {type(node).__name__} is not supported ({reason})"
                raise SpecError(f"node '{name}'", problem, "write it as Affine") from None
            known[name] = out
        return known[name]


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
