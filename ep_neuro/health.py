"""Settling health: the recurrent spectral radius, and more sweeps for an unsettled batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ep_neuro.network import Landscape, Network, State
from ep_neuro.settle import Schedule, settle

PATIENCE = (2, 4)
"""Factors on the sweeps, one after the other, under ``on_unsettled: more-sweeps``."""


def spectral_radius(
    network: Network, x: Tensor, schedule: Schedule, *, iterations: int = 30
) -> float:
    """Largest absolute eigenvalue of the recurrent Jacobian at the free equilibria of `x`.

    The Jacobian is that of the synchronous update ``z -> clip(I(z))``, in which saturated neurons
    take no part. Power iteration approaches the radius from below. Below 1 every order of updates
    settles; far above 1 the network has many equilibria, or none that it reaches.

    Parameters
    ----------
    network : Network
    x : Tensor, (N, *input shape)
        The samples over which the largest is taken.
    schedule : Schedule
        Of the free phase.
    iterations : int
        Products with the Jacobian.
    """
    with torch.no_grad():
        landscape = Landscape(network, x)
        z = settle(landscape, schedule).state
        landscape = landscape.pinned(z)
        slope = {p: landscape.activations[p].slope(value) for p, value in z.items()}
        generator = torch.Generator().manual_seed(0)
        v = {p: torch.randn(s.shape, generator=generator).to(s) for p, s in z.items()}
        radius = torch.zeros(len(x))
        for _ in range(iterations):
            length = _norm(v)
            v = {
                p: s / length.clamp_min(1e-30).view(-1, *[1] * (s.dim() - 1)) for p, s in v.items()
            }
            v = {p: slope[p] * landscape.linear_drive(v, p) for p in v}
            radius = _norm(v)
    return float(radius.max())


def _norm(v: State) -> Tensor:
    return torch.stack([s.flatten(1).square().sum(1) for s in v.values()]).sum(0).sqrt()


def with_more_sweeps(estimator: Any, factor: int) -> Any:
    """`estimator` with `factor` times the sweeps in each of its phases."""
    longer = {
        name: schedule.model_copy(update={"sweeps": factor * schedule.sweeps})
        for name, schedule in estimator
        if isinstance(schedule, Schedule)
    }
    return estimator.model_copy(update=longer)
