"""The dynamics of a compiled network in torch: synchronous, quantised, encoded, in batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.deployment.lowering import lower, refuse_unlowerable
from ep_neuro.deployment.spectrum import LEAK_BITS, largest_leak
from ep_neuro.deployment.thresholds import Edge, ThresholdSchedule, falls, usual_precision
from ep_neuro.energy.activations import Clip
from ep_neuro.energy.operators import Operators, arranged
from ep_neuro.energy.spec import INPUT, CouplingSpec, NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.network import Network, State
from ep_neuro.network.settling import Schedule, SettleResult, Status

STATE_BITS, STATE_FRAC, MESSAGE_FRAC = 24, 16, 8
"""Number formats of quantised membranes and graded messages, as in the compiler."""

BOUND = 1.0
"""How far the membrane of a spiking neuron may leave [0, 1]."""


class Deployment(BaseModel):
    """How a network is deployed: the options of ``ep-neuro compile``.

    Attributes
    ----------
    code : {"graded", "sigma-delta", "spike"}
        What neurons send.
    bits : int, optional
        Bits of a weight; null stays in floating point.
    steps : int
        Length of the free phase.
    leak : float, optional
        Largest leak; `ep_neuro.deployment.spectrum.largest_leak` if left out. Stability may call
        for less.
    precision : float or "auto", optional
        Error of an output, in heights of its box, that the last thresholds of sigma-delta messages
        may cause; see `ep_neuro.deployment.thresholds.falls`. ``auto`` is `usual_precision` there.
    start, end, decay : float, optional
        One threshold for all populations in place of that, in heights of the box:
        ``max(end, start * decay ** (t - 1))`` at step ``t``.
    tolerance : float
        Residual, in heights of the box, up to which a sample counts as settled; the noise of
        spikes counted over 32 steps is about 0.1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: Literal["graded", "sigma-delta", "spike"] = "graded"
    bits: Annotated[int, Field(ge=2, le=16)] | None = 8
    steps: Annotated[int, Field(ge=1)] = 64
    leak: Annotated[float, Field(gt=0, le=1)] | None = None
    precision: Annotated[float, Field(gt=0)] | Literal["auto"] | None = "auto"
    start: Annotated[float, Field(ge=0)] | None = None
    end: Annotated[float, Field(ge=0)] | None = None
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.15

    @property
    def free(self) -> Schedule:
        """The free phase in the words of the other estimators."""
        return Schedule(method="synchronous", sweeps=self.steps, tolerance=self.tolerance)

    @property
    def fall(self) -> ThresholdSchedule | None:
        """The threshold of all populations; None where each has its own."""
        given = {"start": self.start, "end": self.end, "decay": self.decay}
        known = {name: value for name, value in given.items() if value is not None}
        return ThresholdSchedule(**known) if known or self.precision is None else None

    def check_spec(self, spec: NetworkSpec) -> None:
        """Raise `GraphError` or `ConfigError` if `spec` cannot be deployed like this."""
        refuse_unlowerable(spec)
        for p in spec.populations:
            if self.code == "spike" and p.box is None:
                raise ConfigError(
                    f"population '{p.name}'",
                    "it is linear, and a spike rate lies between 0 and 1",
                    "give it a box, [-0.5, 1.5] for an output, or take code: sigma-delta",
                )

    def settle(self, network: Network, x: Tensor) -> SettleResult:
        """The free phase of raw inputs `x` (N, *input shape) as the compiled program computes it.

        In float64, and so to the last bit where the weights are quantised.
        """
        with torch.no_grad():
            circuit = Circuit(network, x, self, torch.float64)
            return circuit.result(circuit.run(circuit.rest(), self.steps))


@dataclass(frozen=True)
class Neurons:
    """What a population holds between two steps; tensors are (N, *shape), in graph units.

    Attributes
    ----------
    v, u : Tensor
        Membrane, and the filtered current of spiking neurons.
    z : Tensor
        Clipped state; the last spikes of spiking neurons.
    heard : Tensor
        What receivers take the state for: the last message, or the sum of all messages.
    rest : Tensor
        Remainder of the leak.
    """

    v: Tensor
    u: Tensor
    z: Tensor
    heard: Tensor
    rest: Tensor

    def doubled(self) -> Neurons:
        """The same for the batch twice over."""
        values = (self.v, self.u, self.z, self.heard, self.rest)
        return Neurons(*(torch.cat([value, value]) for value in values))


@dataclass(frozen=True)
class Snapshot:
    """The end of a phase, `t` steps after rest, and the states (N, *shape) as they are read."""

    t: int
    neurons: dict[str, Neurons]
    read: State

    def doubled(self) -> Snapshot:
        """The same for the batch twice over; `read` stays."""
        return replace(self, neurons={p: n.doubled() for p, n in self.neurons.items()})


class Circuit:
    """`network` as its compiled graph, with a batch of inputs clamped.

    `compilers.ir.graph` defines what it computes.

    States are in graph units, where every box is [0, 1]. To be used under ``no_grad``.

    Parameters
    ----------
    network : Network
        Its parameters are read as float32.
    x : Tensor, (N, *input shape)
        Raw input.
    how : Deployment
    dtype : dtype
        float64 makes the arithmetic of integers exact. float32, faster, keeps weights, messages
        and thresholds on their grids, and leaves out the rounding of membranes to ``2**-16``.

    Raises
    ------
    DataError
        If `x` does not fit the network.
    GraphError
        For what a graph cannot say.
    """

    def __init__(
        self, network: Network, x: Tensor, how: Deployment, dtype: torch.dtype = torch.float32
    ) -> None:
        network.check_input(x)
        self.spec, self.how = network.spec, how
        self.rounds = how.bits is not None
        self.exact = self.rounds and dtype == torch.float64
        maximum = partial(largest_leak, how.code) if how.leak is None else how.leak
        self.lowered = lower(network, how.bits, maximum)
        weights = {k: w.to(dtype) for k, w in self.lowered.weights.items()}
        self.operators = Operators(weights, self.spec.shapes)
        self.activations = {
            p: Clip(None if box is None else (0.0, 1.0)) for p, box in self.spec.boxes.items()
        }
        self.inner = [c for c in self.lowered.couplings if c.pre != INPUT]
        self.constant = self._constant(x.to(dtype))
        self.falls = self._falls() if how.code == "sigma-delta" else {}

    def doubled(self) -> Circuit:
        """The circuit of the batch twice over."""
        other = copy.copy(self)
        other.constant = {p: torch.cat([v, v]) for p, v in self.constant.items()}
        return other

    def select(self, index: Tensor) -> Circuit:
        """The circuit of the samples at `index`."""
        other = copy.copy(self)
        other.constant = {p: v[index] for p, v in self.constant.items()}
        return other

    def pinned(self, z: State) -> Circuit:
        """Itself: it has no max-pools to pin."""
        return self

    def drive(self, z: State, name: str) -> Tensor:
        """Drive of population `name` while its neighbours are heard to be at `z`."""
        return self._heard(z, name, self.constant[name], _held if self.exact else _same)

    def linear_drive(self, z: State, name: str, silent: Collection[str] = ()) -> Tensor:
        """The part of the drive that is linear in the states, not rounded."""
        return self._heard(z, name, torch.zeros_like(self.constant[name]), _same, silent)

    def units(self, y: Tensor) -> Tensor:
        """Targets `y` of the output in graph units."""
        low, height = self.lowered.units[self.spec.output]
        return (y.to(self.constant[self.spec.output]) - low) / height

    def real(self, z: State) -> State:
        """States `z` in real units."""
        units = self.lowered.units
        return {p: units[p][0] + units[p][1] * v for p, v in z.items()}

    def rest(self) -> Snapshot:
        """Before the first step: membranes at 0, or half way to a spike."""
        zero = {p: torch.zeros_like(v) for p, v in self.constant.items()}
        start = 0.5 if self.how.code == "spike" else 0.0
        return Snapshot(0, {p: Neurons(v + start, v, v, v, v) for p, v in zero.items()}, zero)

    def run(
        self, moment: Snapshot, steps: int, nudge: tuple[Tensor, Tensor] | None = None
    ) -> Snapshot:
        """`steps` steps on from `moment`, nudged by (beta, target in graph units) if given."""
        neurons, output = moment.neurons, self.spec.output
        total = {p: torch.zeros_like(v) for p, v in self.constant.items()}
        for step in range(1, steps + 1):
            heard = {p: n.heard for p, n in neurons.items()}
            drive = {p: self.drive(heard, p) for p in neurons}
            if nudge is not None:
                drive[output] = drive[output] + self._force(neurons[output].z, *nudge)
            t = moment.t + step
            neurons = {p: self._advance(p, n, drive[p], t) for p, n in neurons.items()}
            if self.how.code == "spike" and step > steps // 2:
                total = {p: spikes + neurons[p].z for p, spikes in total.items()}
        if self.how.code == "spike":
            read = {p: spikes / (steps - steps // 2) for p, spikes in total.items()}
        else:
            read = {p: n.z for p, n in neurons.items()}
        return Snapshot(moment.t + steps, neurons, read)

    def result(self, moment: Snapshot) -> SettleResult:
        """The states as read, in real units, and how far they are from the rest of their drive."""
        away = [self._clip(p, self.drive(moment.read, p)) - z for p, z in moment.read.items()]
        residual = torch.stack([a.abs().flatten(1).amax(1) for a in away]).amax(0)
        finite = bool(torch.isfinite(residual).all())
        settled = bool((residual <= self.how.tolerance).all())
        status = Status.SETTLED if settled else Status.NOT_SETTLED
        return SettleResult(
            state=self.real(moment.read),
            status=status if finite else Status.DIVERGED,
            residual=residual,
            sweeps=moment.t,
            work=float(moment.t),
        )

    # --- one step ------------------------------------------------------------------------------

    def _heard(
        self,
        z: State,
        name: str,
        total: Tensor,
        held: Callable[[Tensor], Tensor],
        silent: Collection[str] = (),
    ) -> Tensor:
        for c in self.inner:
            if c.post == name and c.pre not in silent:
                there = self.operators.forward(c, z[c.pre])
                total = total + held(there * self.lowered.gains[c.pre, name])
            if c.pre == name and c.post not in silent:
                back = self.operators.adjoint(c, z[c.post])
                total = total + held(back * self.lowered.gains[c.post, name])
        return total

    def _force(self, shown: Tensor, beta: Tensor, y: Tensor) -> Tensor:
        if not self.exact:
            return beta * (y - shown)
        beta = torch.round(beta * (1 << LEAK_BITS)) / (1 << LEAK_BITS)
        return _floor(beta * (_held(y) - shown))

    def _advance(self, name: str, n: Neurons, drive: Tensor, t: int) -> Neurons:
        if self.how.code == "spike":
            u, rest = self._leak(n.u, drive, n.rest)
            v = (n.v + u).clamp(-BOUND, 1 + BOUND)
            spike = (v >= 1).to(v.dtype)
            return Neurons(v - spike, u, spike, spike, rest)
        v, rest = self._leak(n.v, drive, n.rest)
        z = self._clip(name, v)
        if self.how.code == "graded":
            return Neurons(v, n.u, z, z, rest)
        change = z - n.heard
        message = self._sent(change * (change.abs() >= self._threshold(name, t)))
        return Neurons(v, n.u, z, n.heard + message, rest)

    def _leak(self, v: Tensor, drive: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        if not self.exact:
            return torch.lerp(v, drive, self.lowered.leak), rest
        total = self.lowered.leak * (drive - v) + rest
        moved = _floor(total)
        return _saturated(v + moved, STATE_BITS, STATE_FRAC), total - moved

    def _clip(self, name: str, v: Tensor) -> Tensor:
        if self.rounds:
            v = _nearest(v, MESSAGE_FRAC)
        return self._sent(self.activations[name](v))

    def _sent(self, value: Tensor) -> Tensor:
        bits = STATE_BITS - STATE_FRAC + MESSAGE_FRAC
        return _saturated(value, bits, MESSAGE_FRAC) if self.exact else value

    def _threshold(self, name: str, t: int) -> float:
        value = self.falls[name].at(t)
        one = 1 << MESSAGE_FRAC
        return max(1, round(value * one)) / one if self.rounds else value

    # --- made once -----------------------------------------------------------------------------

    def _falls(self) -> dict[str, ThresholdSchedule]:
        """How the threshold of each population falls, as the compiler's `encode` has it."""
        shapes = {p.name: p.shape for p in self.spec.populations}
        if self.how.fall is not None:
            return dict.fromkeys(shapes, self.how.fall)
        operators = Operators(self.lowered.held, self.spec.shapes)
        ways = [Edge(c.pre, c.post, self._back(operators, c)) for c in self.inner]
        precision = self.how.precision
        assert precision is not None
        if precision == "auto":
            precision = usual_precision(self.spec.cost)
        whole, steps = self.lowered.leak == 1, self.how.steps
        return falls(shapes, self.spec.output, ways, steps, precision, whole=whole)

    def _back(self, operators: Operators, c: CouplingSpec) -> Callable[[np.ndarray], np.ndarray]:
        units, weight = self.lowered.units, self.lowered.held[c.name]
        gain = units[c.pre][1] / units[c.post][1]
        return lambda z: gain * operators.adjoint(c, torch.from_numpy(z).to(weight)).cpu().numpy()

    def _constant(self, x: Tensor) -> State:
        if self.rounds:
            x = self._sent(_nearest(x, MESSAGE_FRAC))
        one = 1 << STATE_FRAC
        constant = {}
        for p, bias in self.lowered.biases.items():
            bias = torch.round(bias * one) / one if self.rounds else bias
            constant[p] = bias.to(x.dtype).expand(len(x), *bias.shape)
        held = _held if self.exact else _same
        for c in self.lowered.couplings:
            if c.pre == INPUT:
                there = self.operators.forward(c, x) * self.lowered.gains[INPUT, c.post]
                constant[c.post] = constant[c.post] + held(there)
        return {p: arranged(v) for p, v in constant.items()}


def _same(x: Tensor) -> Tensor:
    return x


def _held(x: Tensor) -> Tensor:
    """`x` as a membrane's format holds it."""
    return _nearest(x, STATE_FRAC)


def _nearest(x: Tensor, frac: int) -> Tensor:
    """The nearest multiple of ``2**-frac``, halves up."""
    one = 1 << frac
    return torch.floor(x * one + 0.5) / one


def _floor(x: Tensor) -> Tensor:
    one = 1 << STATE_FRAC
    return torch.floor(x * one) / one


def _saturated(x: Tensor, bits: int, frac: int) -> Tensor:
    top = 1 << (bits - 1)
    return x.clamp(-top / (1 << frac), (top - 1) / (1 << frac))
