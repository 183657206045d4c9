"""References to compare EP with: the exact gradient, and the feed-forward twin by backprop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ep_neuro.costs import squared_error
from ep_neuro.errors import CheckFailed, SpecError
from ep_neuro.estimators import Estimate, Gradient
from ep_neuro.network import Landscape, Network, State, forward, parameter_names
from ep_neuro.settle import Schedule, SettleResult, Status, settle
from ep_neuro.spec import INPUT


@dataclass(frozen=True)
class ImplicitGradient:
    """The exact gradient at an equilibrium, and how well it is determined.

    ``residual`` is the relative residual of the linear system, ``curvature`` the smallest
    Rayleigh quotient of the Hessian met on the way: zero or less says that the equilibrium is no
    strict minimum, and the gradient means nothing.
    """

    gradient: Gradient
    free: SettleResult
    residual: float
    curvature: float


def implicit_gradient(
    network: Network,
    x: Tensor,
    y: Tensor,
    schedule: Schedule,
    *,
    iterations: int = 500,
    tolerance: float = 1e-10,
) -> ImplicitGradient:
    """Gradient of the mean squared error at the free equilibrium by implicit differentiation.

    At ``z = clip(I(z))`` the neurons ``F`` inside their box obey ``(1 - J_FF) dz_F = dI_F``, where
    ``J`` is the symmetric linear part of the drive, so ``dC/dtheta = lambda^T dI_F/dtheta`` with
    ``(1 - J_FF) lambda = dC/dz_F``, solved by conjugate gradients, all samples at once.

    Parameters
    ----------
    network : Network
        Best in float64.
    x, y : Tensor, (N, *input shape), (N, *output shape)
        Inputs and targets.
    schedule : Schedule
        Of the free phase; its tolerance bounds the error.

    Raises
    ------
    CheckFailed
        If conjugate gradients do not reach `tolerance`.
    """
    with torch.no_grad():
        landscape = Landscape(network, x)
        free = settle(landscape, schedule)
        z, output = free.state, landscape.spec.output
        inside = {p: _inside(v, landscape.boxes[p]) for p, v in z.items()}
        rhs = {p: torch.zeros_like(v) for p, v in z.items()}
        rhs[output] = inside[output] * (z[output] - y)

        def hessian(v: State) -> State:
            return {
                p: v[p] - inside[p] * (landscape.drive(v, p) - landscape.constant[p]) for p in v
            }

        adjoint, residual, curvature = _conjugate_gradients(hessian, rhs, iterations, tolerance)
    if curvature > 0 and residual > tolerance:
        raise CheckFailed(
            f"implicit gradient of '{network.spec.name}'",
            f"relative residual {residual:.1e} above {tolerance:.0e} after {iterations} iterations",
            "the equilibrium is nearly flat: scale the weights down or give more iterations",
        )
    # E is quadratic in z, so this central difference is the exact directional derivative.
    ahead = {p: z[p] + adjoint[p] for p in z}
    behind = {p: z[p] - adjoint[p] for p in z}
    energies = Landscape(network, x)
    slope = (energies.energy(behind) - energies.energy(ahead)).mean() / 2
    parameters = parameter_names(network)
    values = torch.autograd.grad(slope, list(parameters.values()))
    return ImplicitGradient(dict(zip(parameters, values, strict=True)), free, residual, curvature)


def _inside(z: Tensor, box: tuple[float, float] | None) -> Tensor:
    if box is None:
        return torch.ones_like(z)
    return ((z > box[0]) & (z < box[1])).to(z.dtype)


def _conjugate_gradients(
    matrix: Callable[[State], State], rhs: State, iterations: int, tolerance: float
) -> tuple[State, float, float]:
    """Solve ``matrix(v) = rhs`` sample by sample; (solution, residual, least curvature)."""
    solution = {p: torch.zeros_like(v) for p, v in rhs.items()}
    rest = dict(rhs)
    direction = dict(rhs)
    norm = _dot(rest, rest)
    scale = norm.clamp_min(1e-300)
    curvature = float("inf")
    for _ in range(iterations):
        image = matrix(direction)
        bend = _dot(direction, image)
        active = norm > scale * tolerance**2
        if not bool(active.any()):
            break
        quotient = (bend / _dot(direction, direction).clamp_min(1e-300))[active]
        curvature = min(curvature, float(quotient.min()))
        step = torch.where(active, norm / bend.where(bend != 0, torch.ones_like(bend)), 0.0)
        solution = _axpy(step, direction, solution)
        rest = _axpy(-step, image, rest)
        fresh = _dot(rest, rest)
        growth = torch.where(active, fresh / norm.clamp_min(1e-300), 0.0)
        direction = _axpy(growth, direction, rest)
        norm = fresh
    return solution, float((norm / scale).max().sqrt()), curvature


def _dot(a: State, b: State) -> Tensor:
    products = [(a[p] * b[p]).flatten(1).sum(1) for p in a]
    return torch.stack(products).sum(0)


def _axpy(factor: Tensor, a: State, b: State) -> State:
    return {p: b[p] + factor.view(-1, *[1] * (a[p].dim() - 1)) * a[p] for p in a}


class FeedForwardTwin(nn.Module):
    """The network without feedback: one pass in the order of the spec, trained by backprop.

    Same couplings, biases and boxes; ``z_l = clip(sum_in W * z_pre + b_l)``.

    Raises
    ------
    SpecError
        If a coupling leads back to an earlier population, which one pass cannot follow.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        order = list(network.spec.shapes)
        for c in network.spec.couplings:
            if order.index(c.pre) > order.index(c.post):
                raise SpecError(
                    f"feed-forward twin of '{network.spec.name}', coupling '{c.name}'",
                    f"'{c.pre}' stands after '{c.post}', and one pass follows the order of the spec",
                    f"list '{c.pre}' before '{c.post}', or swap pre and post",
                )
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Output (N, *output shape) of raw inputs `x` (N, *input shape)."""
        landscape = Landscape(self.network, x)
        z: State = {}
        for name in landscape.boxes:
            drive = landscape.constant[name]
            for c in self.network.spec.couplings:
                if c.post == name and c.pre != INPUT:
                    weight = self.network.weights[c.name]
                    drive = drive + forward(c, weight, z[c.pre], landscape.shapes[name])
            z[name] = landscape.clip(name, drive)
        return z[self.network.spec.output]


class Backprop(BaseModel):
    """The exact gradient of the feed-forward twin: the baseline that EP is held against."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["backprop"] = "backprop"

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        """Gradient for inputs `x` (N, ...) and targets `y` (N, *output shape)."""
        output = FeedForwardTwin(network)(x)
        parameters = parameter_names(network)
        values = torch.autograd.grad(
            squared_error(output, y).mean(), list(parameters.values()), allow_unused=True
        )
        gradient = {
            k: torch.zeros_like(p) if g is None else g
            for (k, p), g in zip(parameters.items(), values, strict=True)
        }
        passed = SettleResult(
            {network.spec.output: output.detach()}, Status.SETTLED, torch.zeros(len(x)), 1
        )
        return Estimate(gradient, passed, None)
