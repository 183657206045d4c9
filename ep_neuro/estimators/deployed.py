"""EP on the deployed dynamics: fine-tuning for a chip, with gradients straight through."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ep_neuro.deployment.dynamics import Deployment
from ep_neuro.deployment.nudgeable import refuse_unnudgeable
from ep_neuro.energy.costs import Nudge
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.estimators.base import Estimator, register_estimator
from ep_neuro.estimators.contrast import Estimate, contrast, response
from ep_neuro.estimators.frozen_mean import Pair
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, SettleResult, Status


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

    With ``reset: hard`` rates lie on the stairs ``1 / ceil(1 / I)``, flat for ``I`` from a half to
    1. The smooth response goes along their bridge (`ep_neuro.energy.activations.HardReset`), which
    is the activation of an energy, as the clip is. The cost's slope is taken at the clipped drive
    of the output, which no stairs hide: of the squared error that makes ``Phi(z) - y z``, the
    matching loss of the activation (Auer, Herbster & Warmuth 1996), as it is itself of the clip.

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
        self.check_spec(network.spec)
        return (self._smooth if self.response == "smooth" else self._encoded)(network, x, y)

    def free_phase(self, network: Network, x: Tensor) -> SettleResult:
        """The deployed free phase alone, in the type of the network."""
        self.check_spec(network.spec)
        return self.deploy(network, x, _type(network)).run("free")

    @torch.no_grad()
    def _smooth(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        deployed = self.deploy(network, x, _type(network))
        free = deployed.run("free")
        assert free.drive is not None
        output = network.spec.output
        shown = free.state[output]
        if self.reset == "hard":
            shown = deployed.landscape.clip(output, free.drive[output])
        force = -self.beta * network.cost.slope(shown, y)
        pair = Pair(deployed.landscape, free.state, free.drive, force)
        nudged = pair.settle(self.nudged)
        scale = 1 / (len(x) * self.beta)
        gradient = response(Landscape(network, x), pair.mean(), pair.half, scale)
        return Estimate(gradient, free, nudged)

    @torch.no_grad()
    def _encoded(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        deployed = self.deploy(network, x, _type(network), Nudge(self.beta, y))
        free, plus, minus = (deployed.run(phase) for phase in ("free", "nudged+", "nudged-"))
        gradient = contrast(Landscape(network, x), plus.state, minus.state, 2 * self.beta)
        return Estimate(gradient, free, _joined(plus, minus))


def _type(network: Network) -> torch.dtype:
    return next(network.parameters()).dtype


def _joined(plus: SettleResult, minus: SettleResult) -> SettleResult:
    """Both nudged phases as one of the batch twice over."""
    found = {plus.status, minus.status}
    worst = (Status.DIVERGED, Status.NOT_SETTLED, Status.SETTLED)
    return replace(
        plus,
        state={p: torch.cat([v, minus.state[p]]) for p, v in plus.state.items()},
        status=next(status for status in worst if status in found),
        residual=torch.cat([plus.residual, minus.residual]),
        drive=None,
    )
