"""Settling health: loop gains, the spectrum at an equilibrium, more sweeps where unsettled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ep_neuro.energy.operators import Operators
from ep_neuro.energy.spec import INPUT, CouplingSpec
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import Schedule, settle

BIFURCATION = 0.95
"""Eigenvalue of the recurrent drive from which an equilibrium counts as near a bifurcation."""

LANCZOS = 20
"""Products with the recurrent drive, from which its eigenvalues at rest are taken."""

TINY = 1e-6
"""Length, relative to an eigenvalue of 1, below which a vector is rounding noise."""

PATIENCE = (2, 4)
"""Factors on the sweeps, one after the other, under ``on_unsettled: more-sweeps``."""

WEAK = 0.8
"""Loop gain below which whole steps settle a network in a few sweeps."""

FAINT = 0.01
"""Share of a state that may still be on its way when a loop counts as settled."""


@dataclass(frozen=True)
class Loop:
    """The way there and back of one coupling, whatever else the network does.

    ``loop_gain`` is the largest share of a state that comes back through it: the largest singular
    value squared of its operator. With units that shrink by R it is about ``1 / R^2`` of what it
    would be without.
    """

    name: str
    loop_gain: float

    @property
    def sweeps(self) -> int | None:
        """Sweeps after which `FAINT` of a state is left in the loop; None if that never comes."""
        if not self.loop_gain < 1:
            return None
        if self.loop_gain <= FAINT:
            return 1
        return math.ceil(math.log(FAINT) / math.log(self.loop_gain))

    def facts(self) -> dict[str, Any]:
        """Plain data: name, loop_gain, sweeps."""
        return {"name": self.name, "loop_gain": self.loop_gain, "sweeps": self.sweeps}

    def __str__(self) -> str:
        sweeps = "may not settle" if self.sweeps is None else f"sweeps {self.sweeps}"
        return f"{self.name}: loop gain {self.loop_gain:.3g}, {sweeps}"


@torch.no_grad()
def loops(network: Network, *, iterations: int = 30) -> list[Loop]:
    """The loop of every coupling between free populations, before any pool.

    By power iteration from a fixed start, which approaches a loop gain from below.

    Parameters
    ----------
    network : Network
    iterations : int
        Ways there and back.
    """
    shapes, feedback = network.spec.shapes, dict(network.feedback.items())
    operators = Operators(network.effective(), shapes, feedback=feedback)
    found = []
    for c in network.spec.couplings:
        if c.pre != INPUT:
            bare = c.model_copy(update={"pool": None})
            start = network.weights[c.name].new_empty(1, *shapes[c.pre])
            found.append(Loop(c.name, _loop_gain(operators, bare, start, iterations)))
    return found


def calm_schedule(network: Network, sweeps: int) -> Schedule:
    """A schedule that settles `network`: over-relaxed if loops are strong and all units equal.

    Over-relaxation pays along slow modes; where there are none it rings, ten sweeps for one, and
    where units shrink its overshoot grows from population to population.
    """
    units = {p.unit for p in network.spec.populations}
    slow = len(units) == 1 and any(loop.loop_gain >= WEAK for loop in loops(network))
    return Schedule(sweeps=sweeps, relaxation="auto" if slow else 1.0)


def _loop_gain(operators: Operators, c: CouplingSpec, like: Tensor, iterations: int) -> float:
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(like.shape, generator=generator).to(like)
    for _ in range(iterations):
        v = operators.adjoint(c, operators.forward(c, v / v.norm().clamp_min(1e-30)))
    return float(v.norm())


@torch.no_grad()
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
    landscape, slope = _settled(network, x, schedule)
    v, radius = _random(slope), torch.zeros(len(x))
    for _ in range(iterations):
        v = _times(v, 1 / _norm(v).clamp_min(1e-30))
        v = {p: slope[p] * landscape.linear_drive(v, p) for p in v}
        radius = _norm(v)
    return float(radius.max())


def _settled(network: Network, x: Tensor, schedule: Schedule) -> tuple[Landscape, State]:
    """The landscape about the free equilibria of `x`, and the slopes of the activations there."""
    landscape = Landscape(network, x)
    z = settle(landscape, schedule).state
    landscape = landscape.pinned(z)
    return landscape, {p: landscape.activations[p].slope(value) for p, value in z.items()}


def _random(like: State) -> State:
    generator = torch.Generator().manual_seed(0)
    return {p: torch.randn(s.shape, generator=generator).to(s) for p, s in like.items()}


@torch.no_grad()
def eigenvalues_at_rest(network: Network, x: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Smallest and largest eigenvalue of the recurrent drive at each free equilibrium, both (N,).

    Neurons at an end of their box take no part, so this is what the network is like where it
    works, unlike a bound from the couplings alone. At 1 the equilibrium is about to split: it then
    amplifies every rounding, and the response to a nudge takes ever longer. Synchronous steps need
    a leak below ``2 / (1 - smallest)``.

    By Lanczos iteration, which approaches both ends from within.

    Parameters
    ----------
    network : Network
        Without untied couplings, so that the drive is symmetric.
    x : Tensor, (N, *input shape)
    schedule : Schedule
        Of the free phase.
    """
    landscape, slope = _settled(network, x, schedule)
    # A symmetric matrix with the spectrum of the Jacobian, for smooth activations, too.
    root = {p: s.sqrt() for p, s in slope.items()}
    v = {p: root[p] * value for p, value in _random(root).items()}
    v = _times(v, 1 / _norm(v).clamp_min(TINY))
    before, length = _times(v, 0), torch.zeros(len(x), device=x.device)
    diagonal, beside = [], []
    for _ in range(LANCZOS):
        heard = {p: root[p] * value for p, value in v.items()}
        image = {p: r * landscape.linear_drive(heard, p) for p, r in root.items()}
        diagonal.append(inner(image, v))
        pairs = (_times(v, diagonal[-1]), _times(before, length))
        image = {p: value - pairs[0][p] - pairs[1][p] for p, value in image.items()}
        length = _norm(image)
        # Nothing is left of a space that is used up, but noise that must not be scaled up.
        length = length * (length > TINY)
        beside.append(length)
        before, v = v, _times(image, (length > 0) / length.clamp_min(TINY))
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    for offset in (-1, 1):
        matrix = matrix + torch.diag_embed(torch.stack(beside[:-1], 1), offset)
    values = torch.linalg.eigvalsh(matrix)
    return values[:, 0], values[:, -1]


def near_bifurcation(
    network: Network, x: Tensor, schedule: Schedule, limit: float = BIFURCATION
) -> tuple[float, float]:
    """Share of samples that settle near a bifurcation, and the largest eigenvalue of all."""
    highest = eigenvalues_at_rest(network, x, schedule)[1]
    return float((highest > limit).float().mean()), float(highest.max())


def _times(v: State, factor: Tensor | float) -> State:
    if isinstance(factor, Tensor):
        return {p: factor.view(-1, *[1] * (s.dim() - 1)) * s for p, s in v.items()}
    return {p: factor * s for p, s in v.items()}


def inner(a: State, b: State) -> Tensor:
    """Inner product of two states, sample by sample, (N,)."""
    return torch.stack([(a[p] * b[p]).flatten(1).sum(1) for p in a]).sum(0)


def _norm(v: State) -> Tensor:
    return inner(v, v).sqrt()


def with_more_sweeps(estimator: Any, factor: int) -> Any:
    """`estimator` with `factor` times the sweeps in each of its phases."""
    longer = {
        name: schedule.model_copy(update={"sweeps": factor * schedule.sweeps})
        for name, schedule in estimator
        if isinstance(schedule, Schedule)
    }
    return estimator.model_copy(update=longer)
