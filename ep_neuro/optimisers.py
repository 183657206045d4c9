"""The torch optimiser and the schedule of its rate, as a configuration says."""

from __future__ import annotations

import numpy as np
import torch

from ep_neuro.config import Optimiser
from ep_neuro.network import Network

EPSILON = 1e-8
"""Gradient, in units, below which Adam's step fades."""

BIAS_SHARE = 0.1
"""Scale of a bias, as a share of the box height, in relative learning rates."""


def make_optimiser(config: Optimiser, network: Network) -> torch.optim.Optimizer:
    """The torch optimiser of `config`: one group a tensor, its rate scaled as `config` says.

    A whitening has no group: it is fixed. Where a population's unit is large, the gradient of its
    bias is small, so Adam's epsilon is in units, too.
    """
    spec = network.spec
    groups = []
    decay = config.weight_decay if config.decay_biases else 0.0
    for c in spec.couplings:
        if c.whiten:
            continue
        std, unit = spec.initial_std(c), spec.units[c.post] / spec.units[c.pre]
        weights = [network.weights[c.name], *([network.feedback[c.name]] if c.untied else ())]
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
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.99))


def _group(
    config: Optimiser,
    parameter: torch.Tensor,
    name: str,
    scale: float,
    decay: float,
    unit: float = 1.0,
) -> dict[str, object]:
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
