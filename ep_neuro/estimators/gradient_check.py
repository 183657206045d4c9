"""Checks of a network: EP against the exact gradient and finite differences, energy descent."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ep_neuro.estimators import FrozenMean, Gradient
from ep_neuro.estimators.baselines import implicit_gradient, refuse_untied
from ep_neuro.network.network import Landscape, Network, parameter_names
from ep_neuro.network.settling import Schedule, SettleResult, settle

SMALL = 2_000
"""Largest number of parameters for which finite differences are taken."""

RESPONSE = 1e-6
"""Tolerance of the response to the nudge, relative to itself, population by population."""

TIGHT = Schedule(method="coloured", sweeps=5000, relaxation=1.6, tolerance=1e-8)
"""Settling far below what the gradient shows."""


LEAST_COSINE, LARGEST_DEVIATION = 0.9999, 1e-3
"""Limits of the cosine to the exact gradient, and of its relative deviation from differences."""


@dataclass(frozen=True)
class CheckResult:
    """What `check_network` found."""

    gradient_cosine: float
    """Of the EP gradient to the gradient by implicit differentiation, all parameters, in units."""
    worst_tensor: str
    """The parameter that agrees least."""
    worst_cosine: float
    """Its cosine."""
    finite_difference: float | None
    """Largest relative deviation of the implicit gradient from central differences of the settled
    cost along random directions; None for networks above `SMALL` parameters."""
    energy_rises: int
    """Sweeps of the free phase after which the energy was higher, beyond rounding."""
    residual: float
    """Largest residual of the free phase, in heights of the box."""
    settled: bool
    """Whether every phase met its tolerance."""
    curvature: float | None
    """Least curvature of the energy met at the equilibrium; at zero or below there is no gradient.
    None where the cost has no slope, along which to look."""
    message: str
    """How the free phase ended."""
    vanishes: bool = False
    """Whether both gradients are zero, which leaves nothing to compare: every output neuron sits at
    an end of its box, or on its target."""

    @property
    def faults(self) -> list[str]:
        """What does not hold of settling, a falling energy and EP's exact gradient, in words."""
        deviation, bent = self.finite_difference or 0.0, ""
        if self.curvature is not None:
            bent = f", where the least curvature of the energy is {self.curvature:.2g}"
        claims = (
            (self.settled, self.message.partition(":")[0]),
            (
                self.gradient_cosine > LEAST_COSINE,
                f"gradient cosine {self.gradient_cosine:.6f}, worst {self.worst_tensor}{bent}",
            ),
            (self.energy_rises == 0, f"{self.energy_rises} rises of the energy"),
            (deviation < LARGEST_DEVIATION, f"{deviation:.2g} from finite differences"),
        )
        return [text for holds, text in claims if not holds]

    @property
    def holds(self) -> bool:
        """Whether the network settles, its energy falls and EP gives the exact gradient."""
        return not self.faults


def check_network(
    network: Network, x: Tensor, y: Tensor, *, beta: float = 1e-3, schedule: Schedule = TIGHT
) -> CheckResult:
    """Compare EP with the exact gradient on one batch, in float64.

    EP is centered, with a frozen mean (`FrozenMean`): where units shrink, the difference of two
    nudged states would be less than a digit of either.

    Parameters
    ----------
    network : Network
        Copied, not changed.
    x, y : Tensor, (N, *input shape), (N, *output shape)
        Inputs and targets.
    beta : float
        Nudging factor; EP is exact as it goes to zero.
    schedule : Schedule
        Of all phases.

    Raises
    ------
    CheckFailed
        As `implicit_gradient` does.
    """
    refuse_untied(network)
    network = copy.deepcopy(network).double()
    x, y = x.double(), y.double()
    free, rises = watched(network, x, schedule)
    # Both go on from the watched equilibrium: at full size a free phase is what takes the time.
    exact = implicit_gradient(network, x, y, schedule, start=free.state)
    response = schedule.model_copy(update={"tolerance": max(schedule.tolerance, RESPONSE)})
    estimator = FrozenMean(beta=beta, free=schedule, nudged=response, fallback=False)
    estimate = estimator(network, x, y, start=free.state)
    mine, theirs = (in_units(network, e.gradient) for e in (estimate, exact))
    cosines = {
        name: cosine({name: mine[name]}, {name: value})
        for name, value in theirs.items()
        if float(value.norm()) > 0
    }
    worst = min(cosines, key=lambda name: cosines[name]) if cosines else "none"
    small = network.spec.parameters <= SMALL
    return CheckResult(
        gradient_cosine=cosine(mine, theirs),
        worst_tensor=worst,
        worst_cosine=cosines.get(worst, 0.0),
        finite_difference=_deviation(network, x, y, exact.gradient, schedule) if small else None,
        energy_rises=rises,
        residual=float(free.residual.max()),
        settled=free.settled and (estimate.nudged is None or estimate.nudged.settled),
        curvature=exact.curvature if math.isfinite(exact.curvature) else None,
        message=free.message,
        vanishes=not any(bool(g.any()) for both in (mine, theirs) for g in both.values()),
    )


def in_units(network: Network, gradient: Gradient) -> Gradient:
    """`gradient` with respect to parameters in units, as those of fresh weights and biases are.

    In real units a bias of a large unit has a gradient that is small by as much, so that a cosine
    over all tensors would be that of the last ones.
    """
    units = network.spec.units
    scales = {f"bias/{p}": units[p] for p in network.biases}
    for c in network.spec.couplings:
        ratio = units[c.post] / units[c.pre]
        scales |= {f"{kind}/{c.name}": ratio for kind in ("weight", "gain", "feedback")}
    return {name: value * scales.get(name, 1.0) for name, value in gradient.items()}


def cosine(a: Gradient, b: Gradient) -> float:
    """Cosine of two gradients over all their tensors; 0 if either vanishes."""
    product = sum(float((a[k] * b[k]).sum()) for k in b)
    norms = [sum(float(g[k].square().sum()) for k in b) ** 0.5 for g in (a, b)]
    return product / (norms[0] * norms[1]) if norms[0] and norms[1] else 0.0


def watched(network: Network, x: Tensor, schedule: Schedule) -> tuple[SettleResult, int]:
    """A free phase from rest, and after how many sweeps any sample's energy was higher."""
    landscape = Landscape(network, x)
    energies: list[Tensor] = []
    with torch.no_grad():
        energies.append(landscape.energy(landscape.rest()))
        free = settle(
            landscape, schedule, on_sweep=lambda _, z: energies.append(landscape.energy(z))
        )
    steps = torch.stack(energies)
    rounding = 1e-10 * steps.abs().amax(0).clamp_min(1)
    return free, int((steps.diff(dim=0) > rounding).any(1).sum())


def _deviation(
    network: Network, x: Tensor, y: Tensor, gradient: Gradient, schedule: Schedule
) -> float:
    """Largest relative error of `gradient` along five random directions."""
    generator = torch.Generator().manual_seed(0)
    step, worst = 1e-6, 0.0
    fixed = network.fixed
    parameters = {k: p for k, p in parameter_names(network).items() if k not in fixed}
    scale = sum(float(g.square().sum()) for g in gradient.values()) ** 0.5
    for _ in range(5):
        direction = {
            k: torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.requires_grad
            for k, p in parameters.items()
        }
        slope = (
            _cost_at(network, x, y, direction, step, schedule)
            - _cost_at(network, x, y, direction, -step, schedule)
        ) / (2 * step)
        predicted = sum(float((gradient[k] * d).sum()) for k, d in direction.items())
        worst = max(worst, abs(slope - predicted) / max(scale, 1e-300))
    return worst


def _cost_at(
    network: Network,
    x: Tensor,
    y: Tensor,
    direction: Gradient,
    step: float,
    schedule: Schedule,
) -> float:
    moved = copy.deepcopy(network)
    with torch.no_grad():
        parameters = parameter_names(moved)
        for name, value in direction.items():
            parameters[name].add_(value, alpha=step)
        state = settle(Landscape(moved, x), schedule).state
        return float(moved.cost.value(state[network.spec.output], y).mean())
