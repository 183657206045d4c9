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
    """A gradient of the mean cost over a batch, with the phases that it came from.

    ``nudged`` holds every nudged phase in one batch; None where there was none.
    """

    gradient: Gradient
    free: SettleResult
    nudged: SettleResult | None


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
            # Both nudged phases settle as one batch of twice the size.
            start = {p: torch.cat([v, v]) for p, v in free.state.items()}
            nudge = Nudge.both(self.beta, y)
            nudged = settle(landscape.doubled(), self.nudged, start, nudge)
            plus, minus = (
                {p: v[part] for p, v in nudged.state.items()}
                for part in (slice(None, len(x)), slice(len(x), None))
            )
        gradient = contrast(network, x, plus, minus, 2 * self.beta)
        return Estimate(gradient, free, nudged)


def contrast(network: Network, x: Tensor, plus: State, minus: State, width: float) -> Gradient:
    """``(dE/dtheta at plus - dE/dtheta at minus) / width``, averaged over the batch."""
    landscape = Landscape(network, x)
    parameters = parameter_names(network)
    difference = (landscape.energy(plus) - landscape.energy(minus)).mean() / width
    values = torch.autograd.grad(difference, list(parameters.values()))
    return dict(zip(parameters, values, strict=True))
