"""The contrast of two states: from a pair of phases to a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ep_neuro.energy.spec import INPUT
from ep_neuro.network.network import Landscape, Network, State, parameter_names
from ep_neuro.network.settling import SettleResult

Gradient = dict[str, Tensor]
"""Gradients by parameter id, ``weight/pre->post`` and ``bias/population``."""


@dataclass(frozen=True)
class Estimate:
    """A gradient of the mean cost over a batch, with the phases that it came from.

    ``nudged`` holds every nudged phase in one batch; None where there was none.
    """

    gradient: Gradient
    free: SettleResult
    nudged: SettleResult | None


def contrast(landscape: Landscape, plus: State, minus: State, width: float | Tensor) -> Gradient:
    """``(dE/dtheta at plus - dE/dtheta at minus) / width``, averaged over the batch.

    `width` is one for all samples or one for each, (N,).
    """
    with torch.no_grad():
        if isinstance(width, Tensor):
            width = width.to(plus[landscape.spec.output])
        scale = 1 / (landscape.size * width)
        up, down = _scaled(plus, scale), _scaled(minus, -scale)
        change = {p: v + down[p] for p, v in up.items()}
        return _hebbian(
            landscape,
            change,
            lambda post, pre: [(up[post], plus[pre]), (down[post], minus[pre])],
        )


def response(landscape: Landscape, mean: State, half: State, scale: float | Tensor) -> Gradient:
    """Derivative of ``sum_n scale_n dE_n/dtheta`` along `half` at `mean`; `scale` is (N,) or one.

    Equals `contrast` of ``mean + half`` and ``mean - half``, but the products of ``mean`` with
    itself cancel analytically, not numerically.
    """
    with torch.no_grad():
        if not isinstance(scale, Tensor):
            # One factor for all samples: on the gradient it is less work than on the states.
            whole = _hebbian(landscape, half, Ways(half, mean))
            return {k: g.mul_(scale) for k, g in whole.items()}
        change = _scaled(half, scale)
        return _hebbian(landscape, change, Ways(change, mean))


class Ways:
    """``change x mean`` and ``mean x change`` of a synapse, without what is lost to rounding.

    Where feedback is weak, the pre-synaptic end moves so much less than the post-synaptic one that
    its product is below half a unit in the last place of the other, in the type of the states.
    """

    def __init__(self, change: State, mean: State) -> None:
        self._change, self._mean = change, mean
        self._moved, self._stood = _sizes(change), _sizes(mean)
        self._roundoff = torch.finfo(next(iter(mean.values())).dtype).eps / 2

    def __call__(self, post: str, pre: str) -> list[tuple[Tensor, Tensor]]:
        """Pairs of what the two ends, populations `post` and `pre`, did."""
        sizes = [self._moved[post] * self._stood[pre], self._stood[post] * self._moved[pre]]
        ends = [
            (self._change[post], self._mean[pre]),
            (self._mean[post], self._change[pre]),
        ]
        least = self._roundoff * max(sizes)
        return [e for e, size in zip(ends, sizes, strict=True) if not size < least]


def _sizes(z: State) -> dict[str, float]:
    """Sum of the magnitudes of each population, which does not underflow as squares would."""
    sums = [
        torch.linalg.vector_norm(v, 1, dtype=torch.promote_types(v.dtype, torch.float32))
        for v in z.values()
    ]
    return dict(zip(z, torch.stack(sums).tolist(), strict=True))


def _hebbian(
    landscape: Landscape,
    change: State,
    pairs: Callable[[str, str], list[tuple[Tensor, Tensor]]],
) -> Gradient:
    """Minus the products of what both ends of each synapse did: ``pairs(post, pre)``.

    At a synapse from the clamped input, and at a bias, `change` is the post-synaptic end.
    """
    network, operators = landscape.network, landscape.operators
    parameters = parameter_names(network)
    gradient: Gradient = {}
    for c in network.spec.couplings:
        name = f"weight/{c.name}"
        if c.whiten:
            continue
        if c.pre == INPUT:
            ends = [(change[c.post], landscape.clamped.to(change[c.post]))]
        else:
            ends = pairs(c.post, c.pre)
        products = [operators.pairings(c, post, pre).to(parameters[name]) for post, pre in ends]
        gradient[name] = -sum(products[1:], start=products[0])
    for p, value in change.items():
        name = f"bias/{p}"
        total = value.sum([0, *range(2, value.dim())], dtype=parameters[name].dtype)
        gradient[name] = -total
    for name, parameter in parameters.items():
        gradient.setdefault(name, torch.zeros_like(parameter))
    return network.pulled_back(gradient) | _both_ways(network, gradient)


def _scaled(z: State, scale: float | Tensor) -> State:
    if not isinstance(scale, Tensor):
        return {p: v * scale for p, v in z.items()}
    return {p: v * scale.to(v).view(-1, *[1] * (v.dim() - 1)) for p, v in z.items()}


def energy_gradient(network: Network, scalar: Tensor) -> Gradient:
    """Gradient of `scalar`, made of energies, with respect to what the energy depends on.

    By automatic differentiation; `contrast` and `response` are the same by local products.
    """
    gradient = differentiated(network, scalar)
    return gradient | _both_ways(network, gradient)


def differentiated(network: Network, scalar: Tensor) -> Gradient:
    """Gradient of `scalar` by automatic differentiation; zero for what it does not depend on."""
    parameters = parameter_names(network)
    moving = {name: p for name, p in parameters.items() if p.requires_grad}
    values = torch.autograd.grad(scalar, list(moving.values()), allow_unused=True)
    found = dict(zip(moving, values, strict=True))
    return {
        name: torch.zeros_like(parameter) if (value := found.get(name)) is None else value
        for name, parameter in parameters.items()
    }


def _both_ways(network: Network, gradient: Gradient) -> Gradient:
    """Gradient of the ways back of untied couplings.

    They see the same pre and post states as the ways there, and so have the same gradient (Kolen &
    Pollack 1994): with weight decay the two align.
    """
    return {f"feedback/{c}": gradient[f"weight/{c}"].clone() for c in network.feedback}


def readout_gradient(network: Network, free: State, y: Tensor) -> Gradient:
    """Gradient of the readout layer by itself, at the free state; empty if there is none."""
    if network.readout is None:
        return {}
    loss = network.cost.value(free[network.spec.output].to(y.dtype), y).mean()
    weight, bias = torch.autograd.grad(loss, [network.readout.weight, network.readout.bias])
    return {"readout/weight": weight, "readout/bias": bias}
