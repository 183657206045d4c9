"""References to compare EP with: the exact gradient, and the feed-forward twin by backprop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ep_neuro.errors import CheckFailed, SpecError
from ep_neuro.estimators.base import Estimator, register_estimator
from ep_neuro.estimators.contrast import (
    Estimate,
    Gradient,
    differentiated,
    energy_gradient,
    readout_gradient,
)
from ep_neuro.network.network import Landscape, Network, State, parameter_names
from ep_neuro.network.settling import Schedule, SettleResult, Status, settle
from ep_neuro.network.stability import inner

CALIBRATION = 1024
"""Training images over which batch norm takes its statistics before validation."""

EPSILON = 1e-5
"""Added to a variance, as in `torch.nn.BatchNorm2d`."""


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
    start: State | None = None,
) -> ImplicitGradient:
    """Gradient of the mean cost at the free equilibrium by implicit differentiation.

    At ``z = clip(I(z))`` the neurons ``F`` inside their box obey ``(1 - J_FF) dz_F = dI_F``, where
    ``J`` is the symmetric linear part of the drive, so ``dC/dtheta = lambda^T dI_F/dtheta`` with
    ``(1 - J_FF) lambda = dC/dz_F``, solved by conjugate gradients, all samples at once. With a
    smooth activation of slope ``S`` it is ``(1 - S^1/2 J S^1/2) S^-1/2 lambda = S^1/2 dC/dz``.

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
        If conjugate gradients do not reach `tolerance`, or a coupling is untied.
    """
    refuse_untied(network)
    with torch.no_grad():
        landscape = Landscape(network, x)
        free = settle(landscape, schedule, start)
        z, output = free.state, landscape.spec.output
        # dz/dI, its root on both sides, so that the matrix stays symmetric; 0 and 1 in a box.
        root = {p: landscape.activations[p].slope(v).sqrt() for p, v in z.items()}
        rhs = {p: torch.zeros_like(v) for p, v in z.items()}
        rhs[output] = root[output] * network.cost.slope(z[output], y)
        affine = landscape.pinned(z)

        def hessian(v: State) -> State:
            wide = {p: root[p] * v[p] for p in v}
            return {p: v[p] - root[p] * affine.linear_drive(wide, p) for p in v}

        found, residual, curvature = _conjugate_gradients(hessian, rhs, iterations, tolerance)
        adjoint = {p: root[p] * v for p, v in found.items()}
    if curvature > 0 and residual > tolerance:
        raise CheckFailed(
            f"implicit gradient of '{network.spec.name}'",
            f"relative residual {residual:.1e} above {tolerance:.0e} after {iterations} iterations",
            "the equilibrium is nearly flat: scale the weights down or give more iterations",
        )
    tilt = Landscape(network, x).pinned(z).tilt(z, adjoint).mean()
    gradient = energy_gradient(network, -tilt) | readout_gradient(network, z, y)
    return ImplicitGradient(gradient, free, residual, curvature)


def refuse_untied(network: Network) -> None:
    """Raise `CheckFailed` if a coupling of `network` is untied."""
    for name in network.feedback:
        raise CheckFailed(
            f"implicit gradient of '{network.spec.name}', coupling '{name}'",
            "its way back is untied, so there is no energy and no symmetric Hessian",
            "take the estimator bptt as the reference, or tie the coupling",
        )


def _conjugate_gradients(
    matrix: Callable[[State], State], rhs: State, iterations: int, tolerance: float
) -> tuple[State, float, float]:
    """Solve ``matrix(v) = rhs`` sample by sample; (solution, residual, least curvature)."""
    solution = {p: torch.zeros_like(v) for p, v in rhs.items()}
    rest = dict(rhs)
    direction = dict(rhs)
    norm = inner(rest, rest)
    scale = norm.clamp_min(1e-300)
    curvature = float("inf")
    for _ in range(iterations):
        image = matrix(direction)
        bend = inner(direction, image)
        active = norm > scale * tolerance**2
        if not bool(active.any()):
            break
        quotient = (bend / inner(direction, direction).clamp_min(1e-300))[active]
        curvature = min(curvature, float(quotient.min()))
        step = torch.where(active, norm / bend.where(bend != 0, torch.ones_like(bend)), 0.0)
        solution = _axpy(step, direction, solution)
        rest = _axpy(-step, image, rest)
        fresh = inner(rest, rest)
        growth = torch.where(active, fresh / norm.clamp_min(1e-300), 0.0)
        direction = _axpy(growth, direction, rest)
        norm = fresh
    return solution, float((norm / scale).max().sqrt()), curvature


def _axpy(factor: Tensor, a: State, b: State) -> State:
    return {p: b[p] + factor.view(-1, *[1] * (a[p].dim() - 1)) * a[p] for p in a}


class FeedForwardTwin(nn.Module):
    """The network without feedback: one pass in the order of the spec, trained by backprop.

    Same couplings, biases and boxes; ``z_l = clip(sum_in W * z_pre + b_l)``.

    Parameters
    ----------
    network : Network
    batch_norm : bool
        Normalise the drive of each hidden channel over the batch, before its bias (Ioffe & Szegedy
        2015); `folded` writes the statistics of some samples into the weights.

    Raises
    ------
    SpecError
        If a coupling leads back to an earlier population, which one pass cannot follow.
    """

    def __init__(self, network: Network, batch_norm: bool = False) -> None:
        super().__init__()
        order = list(network.spec.shapes)
        for c in network.spec.couplings:
            if order.index(c.pre) > order.index(c.post):
                raise SpecError(
                    f"feed-forward twin of '{network.spec.name}', coupling '{c.name}'",
                    f"'{c.pre}' stands after '{c.post}', and one pass keeps the order of the spec",
                    f"list '{c.pre}' before '{c.post}', or swap pre and post",
                )
        self.network, self.batch_norm = network, batch_norm

    def forward(self, x: Tensor) -> Tensor:
        """Output (N, *output shape) of raw inputs `x` (N, *input shape)."""
        return self._pass(x)[0]

    @torch.no_grad()
    def folded(self, x: Tensor) -> Network:
        """A network whose plain twin answers as this one does, normalised over the samples `x`."""
        _, statistics = self._pass(x)
        plain = copy.deepcopy(self.network)
        for name, (mean, deviation) in statistics.items():
            bias = plain.biases[name]
            bias.sub_((mean / deviation).view_as(bias))
            for c in plain.spec.couplings:
                if c.post == name:
                    weight = (plain.gains if c.standardise else plain.weights)[c.name]
                    # Channels come first in a kernel, and first among the rows of a dense weight.
                    weight.div_(
                        deviation.repeat_interleave(len(weight) // len(deviation)).view(
                            -1, *[1] * (weight.dim() - 1)
                        )
                    )
        return plain

    def _pass(self, x: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """The output, and mean and deviation of each normalised channel's drive, less its bias."""
        statistics: dict[str, tuple[Tensor, Tensor]] = {}
        landscape = Landscape(self.network, x)
        z: State = {}
        for name in landscape.boxes:
            drive = landscape.constant[name]
            for c in landscape.into[name]:
                drive = drive + landscape.operators.forward(c, z[c.pre])
            if self.batch_norm and name != self.network.spec.output:
                bias = self.network.biases[name].view(1, -1, *[1] * (drive.dim() - 2))
                dims = [0, *range(2, drive.dim())]
                variance, mean = torch.var_mean(drive - bias, dims, correction=0, keepdim=True)
                deviation = (variance + EPSILON).sqrt()
                drive = (drive - bias - mean) / deviation + bias
                statistics[name] = (mean.flatten(), deviation.flatten())
            z[name] = landscape.activations[name](drive)
        return z[self.network.spec.output], statistics


@register_estimator("backprop")
class Backprop(Estimator):
    """The exact gradient of the feed-forward twin: the baseline that EP is held against.

    Attributes
    ----------
    batch_norm : bool
        Normalise hidden channels over the batch. Validated and saved is the folded network, with
        statistics of `CALIBRATION` training images.
    precision : {"float32", "bfloat16"}
        Of the products, forward and back (`torch.autocast`); the rest stays in float32.
    """

    kind: Literal["backprop"] = "backprop"
    batch_norm: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        half = self.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            output = FeedForwardTwin(network, self.batch_norm)(x)
        gradient = _backward(network, output.to(x.dtype), y)
        return Estimate(gradient, _passed(network, output), None)

    @torch.no_grad()
    def free_phase(self, network: Network, x: Tensor) -> SettleResult:
        """One pass of the twin, which does not settle."""
        return _passed(network, FeedForwardTwin(network, self.batch_norm)(x))


@register_estimator("implicit")
class Implicit(Estimator):
    """The exact gradient at the free equilibrium (`implicit_gradient`), in float64: a reference."""

    kind: Literal["implicit"] = "implicit"
    free: Schedule = Schedule(sweeps=500, tolerance=1e-8)
    iterations: Annotated[int, Field(ge=1)] = 500
    tolerance: Annotated[float, Field(gt=0)] = 1e-8

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        """See `Estimator`; `CheckFailed` if an equilibrium, no strict minimum, has no gradient."""
        exact = implicit_gradient(
            _double(network),
            x.double(),
            y.double(),
            self.free,
            iterations=self.iterations,
            tolerance=self.tolerance,
            start=None if start is None else {p: v.double() for p, v in start.items()},
        )
        if exact.curvature <= 0:
            raise CheckFailed(
                f"implicit gradient of '{network.spec.name}'",
                f"curvature {exact.curvature:.2g} at an equilibrium is not above 0",
                "give more sweeps, or scale the weights down",
            )
        parameters = parameter_names(network)
        gradient = {k: g.to(parameters[k]) for k, g in exact.gradient.items()}
        return Estimate(gradient, exact.free, None)

    def free_phase(self, network: Network, x: Tensor) -> SettleResult:
        """The free phase alone, in float64."""
        return super().free_phase(_double(network), x.double())


@register_estimator("bptt")
class Unrolled(Estimator):
    """Backpropagation through time: autograd through the sweeps of the free phase, a reference.

    Attributes
    ----------
    free : Schedule
    last : int, optional
        Differentiate through so many more sweeps from the equilibrium, whose gradient tends to the
        implicit one as they grow in number (Ernoult 2019); by default through all, from rest.
        Memory grows with the sweeps.
    """

    kind: Literal["bptt"] = "bptt"
    free: Schedule = Schedule()
    last: Annotated[int, Field(ge=1)] | None = None

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        with torch.no_grad():
            free = settle(Landscape(network, x), self.free, start)
        landscape = Landscape(network, x)
        groups = self.free.groups(network.spec)
        first = landscape.rest() if start is None else start
        z = dict(first if self.last is None else free.state)
        for sweep in range(1, 1 + (self.last or free.sweeps)):
            for group in groups:
                z |= {
                    p: landscape.activations[p].relax(
                        z[p], landscape.drive(z, p), self.free.step(sweep)
                    )
                    for p in group
                }
        return Estimate(_backward(network, z[network.spec.output], y), free, None)


def _double(network: Network) -> Network:
    return copy.deepcopy(network).double()


def _passed(network: Network, output: Tensor) -> SettleResult:
    """The `output` of the twin in the form of a phase."""
    state = {network.spec.output: output.detach()}
    return SettleResult(state, Status.SETTLED, torch.zeros(len(output)), 1)


def _backward(network: Network, output: Tensor, y: Tensor) -> Gradient:
    """Gradient of the mean cost at `output` by autograd."""
    return differentiated(network, network.cost.value(output, y).mean())
