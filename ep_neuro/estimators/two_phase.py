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


@register_estimator("one-sided")
class OneSided(Estimator):
    """One-sided EP (Scellier & Bengio 2017): free phase, then nudged by ``+beta``.

    ``dC/dtheta = (dE/dtheta at z(beta) - dE/dtheta at z(0)) / beta``, with an error of order
    ``beta``, which is a bias of the same sign in every step.
    """

    kind: Literal["one-sided"] = "one-sided"
    beta: Beta = 0.1
    free: Schedule = Schedule()
    nudged: Schedule = Schedule(sweeps=50)

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        """Estimate the gradient for inputs `x` (N, ...) and targets `y` (N, *target shape).

        The free phase begins at `start`, at rest by default.
        """
        beta = y.new_full((len(y),), self.beta)
        return _against_free(self, network, x, y, beta, start)


@register_estimator("random-sign")
class RandomSign(Estimator):
    """One-sided EP with a sign of beta drawn for each sample (Laborieux 2021).

    The error of order ``beta`` changes its sign with beta, so it is noise and no bias.

    Attributes
    ----------
    seed : int
        The signs follow from it, the inputs and the output bias alone: a resumed run draws the
        same ones, with no state to keep.
    """

    kind: Literal["random-sign"] = "random-sign"
    beta: Beta = 0.1
    free: Schedule = Schedule()
    nudged: Schedule = Schedule(sweeps=50)
    seed: int = 0

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        """Estimate the gradient for inputs `x` (N, ...) and targets `y` (N, *target shape).

        The free phase begins at `start`, at rest by default.
        """
        beta = self.beta * self.signs(network, x).to(y)
        return _against_free(self, network, x, y, beta, start)

    def signs(self, network: Network, x: Tensor) -> Tensor:
        """+1 or -1 for each sample, (N,)."""
        # The bias moves with every step, so that the same batch meets other signs next time.
        digest = hashlib.blake2b(str(self.seed).encode(), digest_size=7)
        for tensor in (network.biases[network.spec.output], x):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little"))
        return 2 * torch.randint(2, (len(x),), generator=generator) - 1


@register_estimator("centered")
class Centered(Estimator):
    """Centered EP (Laborieux 2021, eq. 11): free phase, then nudged by ``+beta`` and ``-beta``.

    ``dC/dtheta = (dE/dtheta at z(+beta) - dE/dtheta at z(-beta)) / (2 beta)``, with an error of
    order ``beta ** 2``. Both nudged phases start from the free equilibrium.
    """

    kind: Literal["centered"] = "centered"
    beta: Beta = 0.2
    free: Schedule = Schedule()
    nudged: Schedule = Schedule(sweeps=50)

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        """Estimate the gradient for inputs `x` (N, ...) and targets `y` (N, *target shape).

        The free phase begins at `start`, at rest by default.
        """
        with torch.no_grad():
            landscape = Landscape(network, x)
            free = settle(landscape, self.free, start)
            nudge = Nudge.both(self.beta, y, network.cost)
            nudged, plus, minus = both_phases(landscape, free.state, nudge, self.nudged)
        gradient = contrast(landscape, plus, minus, 2 * self.beta)
        return Estimate(gradient | readout_gradient(network, free.state, y), free, nudged)


def both_phases(
    landscape: Landscape, free: State, nudge: Nudge, schedule: Schedule
) -> tuple[SettleResult, State, State]:
    """The phases under ``+beta`` and ``-beta`` (`Nudge.both`) from `free`: together, and each."""
    size = landscape.size
    # They settle as one batch of twice the size.
    start = {p: torch.cat([v, v]) for p, v in free.items()}
    nudged = settle(landscape.doubled(), schedule, start, nudge)
    plus, minus = (
        {p: v[part] for p, v in nudged.state.items()}
        for part in (slice(None, size), slice(size, None))
    )
    return nudged, plus, minus


def _against_free(
    phases: OneSided | RandomSign,
    network: Network,
    x: Tensor,
    y: Tensor,
    beta: Tensor,
    start: State | None,
) -> Estimate:
    """Contrast of the free phase and one nudged by `beta`, (N,)."""
    with torch.no_grad():
        landscape = Landscape(network, x)
        free = settle(landscape, phases.free, start)
        nudge = Nudge(beta.view(-1, *[1] * (y.dim() - 1)), y, network.cost)
        nudged = settle(landscape, phases.nudged, free.state, nudge)
    gradient = contrast(landscape, nudged.state, free.state, beta)
    return Estimate(gradient | readout_gradient(network, free.state, y), free, nudged)
