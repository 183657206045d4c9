"""The optimiser: its settings, the torch optimiser that they make, the schedule of its rate."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError, nearest
from ep_neuro.network.network import Network

EPSILON = 1e-8
"""Gradient, in units, below which Adam's and Muon's step fades."""

SECOND_BETA = 0.99
"""Adam's memory of squared gradients."""

ADAM_SHARE = 0.5
"""Rate of what Adam moves beside Muon, as a share of Muon's."""

BIAS_SHARE = 0.1
"""Scale of a bias, as a share of the box height, in relative learning rates."""


class Optimiser(BaseModel):
    """Adam with decoupled weight decay, SGD with Nesterov momentum, or Muon (torch.optim).

    Attributes
    ----------
    kind : {"adam", "sgd", "muon"}
        ``muon`` moves the weights between input and hidden populations by equally large steps in
        all directions of the matrix, and everything else by Adam at half the rate
        (`ep_neuro.training.optimizer.MuonAndAdam`).
    lr : float
        Learning rate after the warm-up; a cosine brings it to zero at the last step.
    weight_decay : float
        Decay of the weights, not of biases and gains, per unit of learning rate.
    momentum : float
        Momentum of SGD and Muon, first beta of Adam.
    relative : bool
        Multiply the rate of each weight by its initial standard deviation (under Muon, that of a
        matrix by its gain; each weight then moves by ``lr`` deviations), that of the gain of a
        standardised coupling by its initial value, and that of each bias by a tenth of the box
        height, so that populations of different scales learn alike.
    warmup : float
        Share of all steps in which the rate rises linearly.
    rates : mapping
        Factor of the rate by coupling (its weight and gain), population (its bias) or ``readout``;
        1 where none is given.
    decay_biases : bool
        Let biases and gains decay like weights.
    clip_norm : float, optional
        Largest norm of the gradient over all parameters, in units; a longer one is scaled down to
        it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["adam", "sgd", "muon"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 0.003
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    relative: bool = False
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rates: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    decay_biases: bool = False
    clip_norm: Annotated[float, Field(gt=0)] | None = None

    def check_names(self, spec: NetworkSpec) -> None:
        """Raise `ConfigError` if `rates` names what `spec` does not have."""
        known = [*(c.name for c in spec.couplings), *(p.name for p in spec.populations)]
        known += [] if spec.readout is None else ["readout"]
        fixed = {c.name for c in spec.couplings if c.whiten}
        for name in self.rates:
            if name in fixed:
                problem = f"network '{spec.name}' whitens by this coupling, which does not learn"
                raise ConfigError(f"optimiser.rates '{name}'", problem, "leave it out")
            if name not in known:
                problem = f"network '{spec.name}' has no coupling or population of this name"
                raise ConfigError(f"optimiser.rates '{name}'", problem, nearest(name, known))


def make_optimiser(config: Optimiser, network: Network) -> torch.optim.Optimizer:
    """The torch optimiser of `config`: one group a tensor, its rate scaled as `config` says.

    A whitening has no group: it is fixed. Where a population's unit is large, the gradient of its
    bias is small, so Adam's epsilon is in units, too.
    """
    spec = network.spec
    groups, matrices = [], []
    decay = config.weight_decay if config.decay_biases else 0.0
    for c in spec.couplings:
        if c.whiten:
            continue
        std, unit = spec.initial_std(c), spec.units[c.post] / spec.units[c.pre]
        weights = [network.weights[c.name], *([network.feedback[c.name]] if c.untied else ())]
        if config.kind == "muon" and c.post != spec.output:
            gain = spec.real_gain(c)  # Muon sizes a whole matrix, not each of its elements.
            matrices += [
                _group(config, w, c.name, gain, config.weight_decay, unit) for w in weights
            ]
        else:
            groups += [_group(config, w, c.name, std, config.weight_decay, unit) for w in weights]
        if c.standardise:
            gain = network.gains[c.name]
            groups.append(_group(config, gain, c.name, spec.real_gain(c), decay, unit))
    for p in spec.populations:
        height = BIAS_SHARE * p.height
        groups.append(_group(config, network.biases[p.name], p.name, height, decay, p.unit))
    if network.readout is not None and spec.readout is not None:
        weight, bias = network.readout.weight, network.readout.bias
        std = spec.initial_readout_std
        groups.append(_group(config, weight, "readout", std, config.weight_decay))
        groups.append(_group(config, bias, "readout", BIAS_SHARE, decay))
    if config.kind == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0
        )
    if matrices:
        groups = [{**group, "lr": ADAM_SHARE * group["lr"]} for group in groups]
    adam = torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, SECOND_BETA))
    return MuonAndAdam(matrices, adam, config.momentum) if matrices else adam


class MuonAndAdam(torch.optim.Optimizer):
    """`torch.optim.Muon` for matrices, beside Adam for all other parameters; one schedule for both.

    Muon (Jordan et al. 2024) makes all singular values of a step equal, so the size of a gradient,
    and with it the unit of its population, does not matter. A kernel is the matrix of its output
    channels by all else. Each of `groups` holds one weight, (neurons, ...).
    """

    def __init__(
        self, groups: list[dict[str, Any]], adam: torch.optim.AdamW, momentum: float
    ) -> None:
        self._weights = [group["params"][0] for group in groups]
        self._matrices = [torch.nn.Parameter(w.detach().flatten(1)) for w in self._weights]
        flat = [{**g, "params": [m]} for g, m in zip(groups, self._matrices, strict=True)]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(flat, momentum=momentum),
            adam,
        ]
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        """The groups of both: the same records, so that a schedule moves either's rate."""
        return list(itertools.chain.from_iterable(part.param_groups for part in self.parts))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters by their gradients."""
        for matrix, weight in zip(self._matrices, self._weights, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both, in their order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` of another gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = self._groups()


def _group(
    config: Optimiser,
    parameter: Tensor,
    name: str,
    scale: float,
    decay: float,
    unit: float = 1.0,
) -> dict[str, Any]:
    # A relative rate says how fast to learn, not how fast to forget: decay stays per unit of lr.
    scale = scale if config.relative else 1.0
    rate = config.lr * scale * config.rates.get(name, 1.0)
    return {
        "params": [parameter],
        "lr": rate,
        "weight_decay": decay / scale,
        "eps": EPSILON / unit,
    }


def make_scheduler(
    config: Optimiser, optimiser: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to zero after `steps`."""
    warmup = round(config.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 + 0.5 * float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
