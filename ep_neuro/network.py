"""The energy of a spec in torch: parameters, and the landscape of one clamped batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ep_neuro.errors import DataError
from ep_neuro.spec import INPUT, CouplingSpec, NetworkSpec

State = dict[str, Tensor]
"""States by population name, each (N, *population shape)."""


class Network(nn.Module):
    """Weights and biases of a `NetworkSpec`.

    Parameters
    ----------
    spec : NetworkSpec
        What to build.
    seed : int
        Seed of the initial weights: normal, standard deviation ``gain / sqrt(fan_in)``.

    Attributes
    ----------
    weights : mapping of Parameter
        By coupling name ``pre->post``; shapes as in `NetworkSpec.weight_shapes`.
    biases : mapping of Parameter
        By population name; one value a channel.
    """

    def __init__(self, spec: NetworkSpec, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.ParameterDict()
        for c in spec.couplings:
            shape = spec.weight_shapes[c.name]
            std = c.gain / math.sqrt(math.prod(shape[1:]))
            self.weights[c.name] = nn.Parameter(torch.randn(shape, generator=generator) * std)
        self.biases = nn.ParameterDict(
            {p.name: nn.Parameter(torch.zeros(p.shape[0])) for p in spec.populations}
        )

    def normalise(self, x: Tensor) -> Tensor:
        """Clamped input of raw pixels `x` (N, *input shape); `DataError` if the shape differs."""
        expected = self.spec.input.shape
        if tuple(x.shape[1:]) != expected:
            raise DataError(
                f"input of '{self.spec.name}'",
                f"samples are {list(x.shape[1:])}, the network takes {list(expected)}",
                "choose a data set or a network that fits",
            )
        x = x.to(next(self.parameters()))
        if self.spec.input.mean is not None:
            x = x - _per_channel(x.new_tensor(self.spec.input.mean), x.dim() - 1)
        if self.spec.input.std is not None:
            x = x / _per_channel(x.new_tensor(self.spec.input.std), x.dim() - 1)
        return x


class Landscape:
    """The energy of `network` with a batch `x` clamped: all that settling needs.

    The drive of the clamped input never changes, so it is computed once.

    Parameters
    ----------
    network : Network
        Its parameters are read, not copied; gradients flow to them unless under ``no_grad``.
    x : Tensor, (N, *input shape)
        Raw input.

    Raises
    ------
    DataError
        If `x` does not fit the network.
    """

    def __init__(self, network: Network, x: Tensor) -> None:
        self.network, self.spec = network, network.spec
        self._adjoints: dict[str, Tensor] = {}
        self.boxes = self.spec.boxes
        self.shapes = self.spec.shapes
        self.into: dict[str, list[CouplingSpec]] = {p: [] for p in self.boxes}
        self.out_of: dict[str, list[CouplingSpec]] = {p: [] for p in self.boxes}
        self.size = len(x)
        clamped = network.normalise(x)
        self.constant = {p: self._bias(p) for p in self.boxes}
        for c in self.spec.couplings:
            if c.pre == INPUT:
                self.constant[c.post] = self.constant[c.post] + self._forward(c, clamped)
            else:
                self.into[c.post].append(c)
                self.out_of[c.pre].append(c)

    def _bias(self, name: str) -> Tensor:
        shape = self.shapes[name]
        return _per_channel(self.network.biases[name], len(shape)).expand(self.size, *shape)

    def _forward(self, c: CouplingSpec, z: Tensor) -> Tensor:
        return forward(c, self.network.weights[c.name], z, self.shapes[c.post])

    def _adjoint(self, c: CouplingSpec, z: Tensor) -> Tensor:
        weight = self.network.weights[c.name]
        if not flips(c, weight):
            return adjoint(c, weight, z, self.shapes[c.pre])
        if c.name not in self._adjoints:
            self._adjoints[c.name] = flipped(weight)
        return F.conv2d(z, self._adjoints[c.name], padding=weight.shape[-1] - 1 - c.padding)

    def rest(self) -> State:
        """Every population at zero, or at the end of its box that is nearest to zero."""
        like = next(iter(self.constant.values()))
        return {p: self.clip(p, like.new_zeros(self.size, *self.shapes[p])) for p in self.boxes}

    def clip(self, name: str, value: Tensor) -> Tensor:
        """`value` held in the box of population `name`."""
        box = self.boxes[name]
        return value if box is None else value.clamp(*box)

    def drive(self, z: State, name: str) -> Tensor:
        """``I = sum_in W * z_pre + sum_out W^T * z_post + b`` of population `name`."""
        total = self.constant[name]
        for c in self.into[name]:
            total = total + self._forward(c, z[c.pre])
        for c in self.out_of[name]:
            total = total + self._adjoint(c, z[c.post])
        return total

    def doubled(self) -> Landscape:
        """The landscape of the batch twice over, as both nudged phases in one need it."""
        twice = copy.copy(self)
        twice.size = 2 * self.size
        twice.constant = {p: torch.cat([v, v]) for p, v in self.constant.items()}
        return twice

    def energy(self, z: State) -> Tensor:
        """``E = sum_l (|z_l|^2 / 2 - <b_l, z_l>) - sum_(i->j) <z_j, W * z_i>``, (N,)."""
        total = torch.zeros_like(next(iter(z.values())).flatten(1)[:, 0])
        for p, value in z.items():
            force = value / 2 - self.constant[p]
            for c in self.into[p]:
                force = force - self._forward(c, z[c.pre])
            total = total + (value * force).flatten(1).sum(1)
        return total


def forward(c: CouplingSpec, weight: Tensor, z: Tensor, post: tuple[int, ...]) -> Tensor:
    """``W * z_pre``, (N, *post)."""
    if c.kind == "conv":
        return F.conv2d(z, weight, stride=c.stride, padding=c.padding)
    return F.linear(z.flatten(1), weight).unflatten(1, post)


def adjoint(c: CouplingSpec, weight: Tensor, z: Tensor, pre: tuple[int, ...]) -> Tensor:
    """``W^T * z_post``, (N, *pre): the transposed convolution is the *same* weight."""
    if c.kind == "dense":
        return F.linear(z.flatten(1), weight.t()).unflatten(1, pre)
    rows, cols = (
        n - ((m - 1) * c.stride - 2 * c.padding + weight.shape[-1])
        for n, m in zip(pre[1:], z.shape[2:], strict=True)
    )
    return F.conv_transpose2d(
        z, weight, stride=c.stride, padding=c.padding, output_padding=(rows, cols)
    )


def flips(c: CouplingSpec, weight: Tensor) -> bool:
    """Whether the adjoint is a plain convolution with the flipped kernel, which is faster."""
    return c.kind == "conv" and c.stride == 1 and c.padding < weight.shape[-1]


def flipped(weight: Tensor) -> Tensor:
    """Kernel of the adjoint at stride 1, (pre channels, post channels, kernel, kernel)."""
    return weight.flip(2, 3).transpose(0, 1).contiguous()


def _per_channel(values: Tensor, dims: int) -> Tensor:
    return values.view(-1, *[1] * (dims - 1))


def parameter_names(network: Network) -> Mapping[str, nn.Parameter]:
    """Parameters by the ids of the model file: ``weight/pre->post`` and ``bias/population``."""
    return {
        **{f"weight/{name}": w for name, w in network.weights.items()},
        **{f"bias/{name}": b for name, b in network.biases.items()},
    }
