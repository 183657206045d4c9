"""Estimators of the loss gradient from settled states (equilibrium propagation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.costs import Nudge
from ep_neuro.network import Landscape, Network, State, parameter_names
from ep_neuro.settle import Schedule, SettleResult, settle

Gradient = dict[str, Tensor]
"""Gradients by parameter id, ``weight/pre->post`` and ``bias/population``."""


@dataclass(frozen=True)
class Estimate:
    """A gradient of the mean cost over a batch, with the phases that it came from."""

    gradient: Gradient
    free: SettleResult
    nudged: tuple[SettleResult, ...]


class Centered(BaseModel):
    """Centered EP (Laborieux 2021, eq. 11): free phase, then nudged by ``+beta`` and ``-beta``.

    ``dC/dtheta = (dE/dtheta at z(+beta) - dE/dtheta at z(-beta)) / (2 beta)``, with an error of
    order ``beta ** 2``. Both nudged phases start from the free equilibrium.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["centered"] = "centered"
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.2
    free: Schedule = Schedule()
    nudged: Schedule = Schedule(sweeps=50)

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        """Estimate the gradient for inputs `x` (N, ...) and targets `y` (N, *output shape)."""
        with torch.no_grad():
            landscape = Landscape(network, x)
            free = settle(landscape, self.free)
            plus, minus = (
                settle(landscape, self.nudged, free.state, Nudge(sign * self.beta, y))
                for sign in (1, -1)
            )
        gradient = contrast(network, x, plus.state, minus.state, 2 * self.beta)
        return Estimate(gradient, free, (plus, minus))


def contrast(network: Network, x: Tensor, plus: State, minus: State, width: float) -> Gradient:
    """``(dE/dtheta at plus - dE/dtheta at minus) / width``, averaged over the batch."""
    landscape = Landscape(network, x)
    parameters = parameter_names(network)
    difference = (landscape.energy(plus) - landscape.energy(minus)).mean() / width
    values = torch.autograd.grad(difference, list(parameters.values()))
    return dict(zip(parameters, values, strict=True))
