"""The torch optimiser and the schedule of its rate, as a configuration says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ep_neuro.network.network import Network
from ep_neuro.training.config import Optimiser

EPSILON = 1e-8
"""Gradient, in units, below which Adam's and Muon's step fades."""

SECOND_BETA = 0.99
"""Adam's memory of squared gradients."""

ADAM_SHARE = 0.5
"""Rate of what Adam moves beside Muon, as a share of Muon's."""

BIAS_SHARE = 0.1
"""Scale of a bias, as a share of the box height, in relative learning rates."""


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
    channels by all else.

    Parameters
    ----------
    groups : list of dict
        Of one weight each, (neurons, ...).
    adam : torch.optim.AdamW
    momentum : float
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
