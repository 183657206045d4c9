"""Estimators from two real phases: one-sided, of random sign, and centered."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ep_neuro.energy.costs import Nudge
from ep_neuro.estimators.base import Estimator, register_estimator
from ep_neuro.estimators.contrast import Estimate, contrast, readout_gradient
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import Schedule, SettleResult, settle

Beta = Annotated[float, Field(gt=0, lt=1)]
Parted = tuple[SettleResult, State, State, float | Tensor]
"""The nudged phases, two states, and by how much their nudging factors differ, one or (N,)."""


class TwoPhase(Estimator):
    """An estimator that contrasts states that a nudge parts, found from the free equilibrium."""

    beta: Beta = 0.1
    """Nudging factor."""
    free: Schedule = Schedule()
    nudged: Schedule = Schedule(sweeps=50)

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        with torch.no_grad():
            landscape = Landscape(network, x)
            free = settle(landscape, self.free, start)
            nudged, far, near, width = self._nudged(landscape, free.state, x, y)
        gradient = contrast(landscape, far, near, width)
        return Estimate(gradient | readout_gradient(network, free.state, y), free, nudged)

    def _nudged(self, landscape: Landscape, free: State, x: Tensor, y: Tensor) -> Parted:
        """One nudged phase against the free one."""
        network = landscape.network
        beta = self._factors(network, x, y)
        nudge = Nudge(beta.view(-1, *[1] * (y.dim() - 1)), y, network.cost)
        nudged = settle(landscape, self.nudged, free, nudge)
        return nudged, nudged.state, free, beta

    def _factors(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """The nudging factor of each sample, (N,)."""
        return y.new_full((len(y),), self.beta)


@register_estimator("one-sided")
class OneSided(TwoPhase):
    """One-sided EP (Scellier & Bengio 2017): free phase, then nudged by ``+beta``.

    ``dC/dtheta = (dE/dtheta at z(beta) - dE/dtheta at z(0)) / beta``, with an error of order
    ``beta``, which is a bias of the same sign in every step.
    """

    kind: Literal["one-sided"] = "one-sided"


@register_estimator("random-sign")
class RandomSign(TwoPhase):
    """One-sided EP with a sign of beta drawn for each sample (Laborieux 2021).

    The error of order ``beta`` changes its sign with beta, so it is noise and no bias.

    Attributes
    ----------
    seed : int
        The signs follow from it, the inputs and the output bias alone: a resumed run draws the
        same ones, with no state to keep.
    """

    kind: Literal["random-sign"] = "random-sign"
    seed: int = 0

    def _factors(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        return self.beta * self.signs(network, x).to(y)

    def signs(self, network: Network, x: Tensor) -> Tensor:
        """+1 or -1 for each sample, (N,)."""
        # The bias moves with every step, so that the same batch meets other signs next time.
        digest = hashlib.blake2b(str(self.seed).encode(), digest_size=7)
        for tensor in (network.biases[network.spec.output], x):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little"))
        return 2 * torch.randint(2, (len(x),), generator=generator) - 1


@register_estimator("centered")
class Centered(TwoPhase):
    """Centered EP (Laborieux 2021, eq. 11): free phase, then nudged by ``+beta`` and ``-beta``.

    ``dC/dtheta = (dE/dtheta at z(+beta) - dE/dtheta at z(-beta)) / (2 beta)``, with an error of
    order ``beta ** 2``. Both nudged phases start from the free equilibrium.
    """

    kind: Literal["centered"] = "centered"
    beta: Beta = 0.2

    def _nudged(self, landscape: Landscape, free: State, x: Tensor, y: Tensor) -> Parted:
        nudge = Nudge.both(self.beta, y, landscape.network.cost)
        return *both_phases(landscape, free, nudge, self.nudged), 2 * self.beta


def both_phases(
    landscape: Landscape, free: State, nudge: Nudge, schedule: Schedule
) -> tuple[SettleResult, State, State]:
    """The phases under ``+beta`` and ``-beta`` (`Nudge.both`) from `free`: together, and each."""
    size = landscape.size
    # They settle as one batch of twice the size.
    start = {p: torch.cat([v, v]) for p, v in free.items()}
    nudged = settle(landscape.repeated(2), schedule, start, nudge)
    plus, minus = (
        {p: v[part] for p, v in nudged.state.items()}
        for part in (slice(None, size), slice(size, None))
    )
    return nudged, plus, minus
