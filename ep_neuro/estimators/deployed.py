"""EP on the deployed dynamics: fine-tuning for a chip, with gradients straight through."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ep_neuro.deployment.dynamics import Circuit, Deployment, Snapshot
from ep_neuro.deployment.nudgeable import refuse_unnudgeable
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.estimators.base import Estimator, register_estimator
from ep_neuro.estimators.contrast import Estimate, Gradient, contrast, response
from ep_neuro.estimators.frozen_mean import Pair
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import Schedule, SettleResult


@register_estimator("deployed")
class Deployed(Deployment, Estimator):
    """EP whose states are those of the compiled network, applied to the floating-point weights.

    The free phase is the one that a target runs: synchronous steps, weights on their grid,
    messages rounded and encoded, states read as the target reads them. The weights move as if
    rounding passed gradients unchanged (straight-through estimator, Bengio et al. 2013).

    With ``response: smooth`` the answer to the nudge is that of `FrozenMean` about the deployed
    free state: quantised couplings, but no rounding and no encoding of the small differences that
    carry the gradient. With ``response: encoded`` both nudged phases run as on the target, each
    half as long as the free one; what is smaller than a message's step, or than the noise of a
    spike train, is lost there. A chip nudges by ``beta (y - z)``, so only ``smooth`` takes another
    cost than the squared error.

    Attributes
    ----------
    beta : float
        Nudging factor.
    response : {"smooth", "encoded"}
    nudged : Schedule
        Of the smooth response.
    """

    kind: Literal["deployed"] = "deployed"
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.2
    response: Literal["smooth", "encoded"] = "smooth"
    nudged: Schedule = Schedule(sweeps=20)

    def check_spec(self, spec: NetworkSpec) -> None:
        """Raise `GraphError` or `ConfigError` if `spec` cannot be deployed and nudged like this."""
        super().check_spec(spec)
        if self.response == "encoded":
            refuse_unnudgeable(spec.name, spec.cost)

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        """Estimate the gradient for inputs `x` (N, ...) and targets `y` (N, *target shape)."""
        self.check_spec(network.spec)
        answer = self._smooth if self.response == "smooth" else self._encoded
        with torch.no_grad():
            circuit = Circuit(network, x, self, next(network.parameters()).dtype)
            free = circuit.run(circuit.rest(), self.steps)
            found = circuit.result(free)
        gradient, nudged = answer(network, circuit, free, x, y)
        return Estimate(gradient, found, nudged)

    @torch.no_grad()
    def free_phase(self, network: Network, x: Tensor) -> SettleResult:
        """The deployed free phase alone, in the type of the network."""
        self.check_spec(network.spec)
        circuit = Circuit(network, x, self, next(network.parameters()).dtype)
        return circuit.result(circuit.run(circuit.rest(), self.steps))

    def _smooth(
        self, network: Network, circuit: Circuit, free: Snapshot, x: Tensor, y: Tensor
    ) -> tuple[Gradient, SettleResult]:
        with torch.no_grad():
            output = network.spec.output
            shown, height = circuit.real(free.read)[output], circuit.lowered.units[output][1]
            force = -self.beta * network.cost.slope(shown, y) / height
            drive = {p: circuit.drive(free.read, p) for p in free.read}
            pair = Pair(circuit, free.read, drive, force)
            nudged = pair.settle(self.nudged)
            mean = circuit.real(pair.mean())
            half = {p: circuit.lowered.units[p][1] * v for p, v in pair.half.items()}
            gradient = response(Landscape(network, x), mean, half, 1 / (len(x) * self.beta))
        return gradient, replace(nudged, state=circuit.real(nudged.state))

    def _encoded(
        self, network: Network, circuit: Circuit, free: Snapshot, x: Tensor, y: Tensor
    ) -> tuple[Gradient, SettleResult]:
        with torch.no_grad():
            signs = y.new_ones(len(y), *[1] * (y.dim() - 1))
            nudge = (self.beta * torch.cat([signs, -signs]), circuit.units(torch.cat([y, y])))
            both = circuit.doubled()
            end = both.run(free.doubled(), max(1, self.steps // 2), nudge)
            nudged = both.result(end)
            plus, minus = (
                _part(nudged.state, part) for part in (slice(len(x)), slice(len(x), None))
            )
        gradient = contrast(Landscape(network, x), plus, minus, 2 * self.beta)
        return gradient, replace(nudged, sweeps=end.t - free.t)


def _part(state: State, part: slice) -> State:
    return {p: v[part] for p, v in state.items()}
