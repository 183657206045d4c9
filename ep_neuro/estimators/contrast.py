"""The contrast of two states: from a pair of phases to a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ep_neuro.costs import cost
from ep_neuro.network import Landscape, Network, State, parameter_names
from ep_neuro.settle import SettleResult

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


def contrast(
    network: Network, x: Tensor, plus: State, minus: State, width: float | Tensor
) -> Gradient:
    """``(dE/dtheta at plus - dE/dtheta at minus) / width``, averaged over the batch.

    `width` is one for all samples or one for each, (N,).
    """
    landscape = Landscape(network, x)
    difference = (landscape.energy(plus) - landscape.energy(minus)) / width
    return energy_gradient(network, difference.mean())


def energy_gradient(network: Network, scalar: Tensor) -> Gradient:
    """Gradient of `scalar`, made of energies, with respect to what the energy depends on.

    The way back of an untied coupling sees the same pre and post states as the way there, and so
    has the same gradient (Kolen & Pollack 1994): with weight decay the two align.
    """
    parameters = parameter_names(network)
    values = torch.autograd.grad(scalar, list(parameters.values()), allow_unused=True)
    gradient = {
        name: torch.zeros_like(parameter) if value is None else value
        for (name, parameter), value in zip(parameters.items(), values, strict=True)
    }
    feedback = {f"feedback/{c}": gradient[f"weight/{c}"].clone() for c in network.feedback}
    return gradient | feedback


def readout_gradient(network: Network, free: State, y: Tensor) -> Gradient:
    """Gradient of the readout layer by itself, at the free state; empty if there is none."""
    if network.readout is None:
        return {}
    loss = cost(free[network.spec.output], y, network.readout).mean()
    weight, bias = torch.autograd.grad(loss, [network.readout.weight, network.readout.bias])
    return {"readout/weight": weight, "readout/bias": bias}
