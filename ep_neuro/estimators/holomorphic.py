"""Holomorphic EP: nudging factors on a circle in the complex plane."""

from __future__ import annotations

import cmath
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ep_neuro.energy.activations import Clip, distance
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.estimators.base import register_estimator
from ep_neuro.estimators.contrast import Estimate, energy_gradient
from ep_neuro.estimators.two_phase import Beta, TwoPhase
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import Schedule, SettleResult, Status, settle


@register_estimator("holomorphic")
class Holomorphic(TwoPhase):
    """Holomorphic EP (Laborieux & Zenke 2022): ``beta`` at N points of a complex circle.

    The equilibrium ``z(beta)`` of a holomorphic energy is itself holomorphic near 0, so Cauchy's
    integral formula gives its slope from points of any distance::

        dC/dtheta = 1 / (N r) sum_k exp(-i phi_k) dE/dtheta at z(r exp(i phi_k))

    The trapezoidal sum is exact but for terms of order ``r ** N``; two points are centered EP.
    Points above and below the real axis are complex conjugates, so only the upper half settles.

    Attributes
    ----------
    beta : float
        Radius ``r``; less than the distance to the nearest singularity of ``z(beta)``.
    points : int
        N, even.
    """

    kind: Literal["holomorphic"] = "holomorphic"
    beta: Beta = 0.2
    points: Annotated[int, Field(ge=2, multiple_of=2)] = 4

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        """See `Estimator`; `ConfigError` if the network is not holomorphic."""
        refuse_kinks(network.spec)
        with torch.no_grad():
            landscape = Landscape(network, x)
            free = settle(landscape, self.free, start)
            circle = _Circle(landscape, free.state, y, self._betas())
            nudged = circle.settle(self.nudged)
        energies = Landscape(network, x)
        total = sum(
            weight * _rotated(energies, circle.state_at(k), cmath.phase(beta))
            for k, (beta, weight) in enumerate(zip(self._betas(), self._weights(), strict=True))
        )
        assert isinstance(total, Tensor)
        return Estimate(energy_gradient(network, total.mean()), free, nudged)

    def _betas(self) -> list[complex]:
        """Nudging factors on the upper half of the circle, both real ones included."""
        turn = 2 * cmath.pi / self.points
        return [self.beta * cmath.exp(1j * turn * k) for k in range(self.points // 2 + 1)]

    def _weights(self) -> list[float]:
        """Share of each point in the sum; those off the axis stand for their conjugates, too."""
        inner = self.points // 2 - 1
        return [w / (self.points * self.beta) for w in (1, *[2] * inner, 1)]


def refuse_kinks(spec: NetworkSpec) -> None:
    """Raise `ConfigError` for what has no continuation to complex states."""
    for p in spec.populations:
        if p.activation == "clip" and p.box is not None:
            raise ConfigError(
                f"estimator holomorphic, population '{p.name}'",
                f"clipping to {list(p.box)} is not holomorphic",
                "give it activation: sigmoid, or box: null for a linear output",
            )
    for c in spec.couplings:
        if c.pool == "max":
            raise ConfigError(
                f"estimator holomorphic, coupling '{c.name}'",
                "taking a maximum is not holomorphic",
                "give it pool: avg, or use the estimator centered",
            )
    if spec.readout is not None or spec.cost == "cross-entropy":
        whose, key = ("a readout", "readout") if spec.readout else ("the output", "cost")
        raise ConfigError(
            "estimator holomorphic",
            f"the softmax of {whose} has poles on the circle",
            f"leave {key} out and train with the squared error, or use the estimator centered",
        )


class _Circle:
    """The nudged states of all points, as one batch with a real and an imaginary half."""

    def __init__(self, landscape: Landscape, free: State, y: Tensor, betas: list[complex]) -> None:
        count = len(betas)
        self.size, self.output = len(y), landscape.spec.output
        self.landscape = landscape.repeated(count)
        self.y = torch.cat([y] * count)
        kind = torch.complex128 if y.dtype == torch.float64 else torch.complex64
        factors = torch.tensor(betas, dtype=kind, device=y.device).repeat_interleave(self.size)
        self.beta = factors.view(-1, *[1] * (y.dim() - 1))
        self.z = {p: torch.cat([v] * count).to(kind) for p, v in free.items()}

    def state_at(self, point: int) -> State:
        """Complex states (N, ...) of one point."""
        part = slice(point * self.size, (point + 1) * self.size)
        return {p: v[part] for p, v in self.z.items()}

    def settle(self, schedule: Schedule) -> SettleResult:
        """Iterate ``z <- z + w (activation(I) - z)``, all points at once."""
        residual, sweep = self.y.new_zeros(len(self.y)), 0
        while sweep < schedule.sweeps:
            sweep += 1
            changes = []
            for group in schedule.groups(self.landscape.spec):
                moved = {p: self._at_rest(p) for p in group}
                for p, rest in moved.items():
                    changes.append(distance(self.landscape.activations[p], rest, self.z[p]))
                    self.z[p] = self.z[p] + min(schedule.step(sweep), 1.0) * (rest - self.z[p])
            residual = torch.stack(changes).amax(0)
            if not float(residual.max()) > schedule.tolerance:
                break
        finite = all(bool(torch.isfinite(v.abs()).all()) for v in self.z.values())
        settled = bool((residual <= schedule.tolerance).all())
        status = Status.SETTLED if settled else Status.NOT_SETTLED
        return SettleResult(
            dict(self.z), status if finite else Status.DIVERGED, residual, sweep, float(sweep)
        )

    def _at_rest(self, name: str) -> Tensor:
        real, imaginary = ({p: part(v) for p, v in self.z.items()} for part in (_real, _imaginary))
        drive = torch.complex(
            self.landscape.drive(real, name), self.landscape.linear_drive(imaginary, name)
        )
        activation = self.landscape.activations[name]
        if name == self.output and isinstance(activation, Clip):
            drive = (drive + self.beta * self.y) / (1 + self.beta)
        elif name == self.output:
            drive = drive + self.beta * (self.y - self.z[name])
        return drive if isinstance(activation, Clip) else activation(drive)


def _rotated(landscape: Landscape, z: State, phase: float) -> Tensor:
    """``Re(exp(-i phase) E)`` at complex `z`, less ``Phi``, which has no parameters; (N,).

    The part of ``E`` of second order turns as ``z^2``: with ``w = exp(-i phase / 2) z`` it is that
    of ``Re w`` less that of ``Im w``. So everything stays real for the convolutions.
    """
    half = {p: cmath.exp(-0.5j * phase) * v for p, v in z.items()}
    whole = {p: (cmath.exp(-1j * phase) * v).real for p, v in z.items()}
    real, imaginary = ({p: part(v) for p, v in half.items()} for part in (_real, _imaginary))
    return (
        landscape.pairing(real, real)
        - landscape.pairing(imaginary, imaginary)
        - sum((landscape.constant[p] * v).flatten(1).sum(1) for p, v in whole.items())
    )


def _real(z: Tensor) -> Tensor:
    return z.real.contiguous()


def _imaginary(z: Tensor) -> Tensor:
    return z.imag.contiguous()
