"""Accuracy and settling of a network over a split, in parts or as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ep_neuro.data.datasets import Split
from ep_neuro.deployment.dynamics import Deployment
from ep_neuro.errors import RunError
from ep_neuro.estimators.baselines import FeedForwardTwin
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule

BATCH = 360
"""Samples that are settled at once."""

BATCH_NUMBERS = 1 << 27
"""Most states of neurons that are settled at once, 512 MiB: a spec of few bytes may name many."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of the settled network, and how well it settled."""

    accuracy: float
    """Share of samples whose largest output is their label."""
    outputs: np.ndarray
    """(N, classes)."""
    residual: float
    """Largest residual of any sample, in heights of the box."""
    unsettled: float
    """Share of samples above the tolerance."""
    sweeps: float
    """Mean sweeps a batch."""


def evaluate(
    network: Network,
    split: Split,
    schedule: Schedule,
    *,
    batch: int = BATCH,
    feedforward: bool = False,
    deployed: Deployment | None = None,
) -> Evaluation:
    """Settle every sample of `split` freely and read the largest output.

    With `feedforward`, one pass of the feed-forward twin takes the place of settling; with
    `deployed`, the free phase of the compiled network does.

    Raises
    ------
    RunError
        If states are not finite in the end, so that no figure of theirs means anything.
    """
    device = next(network.parameters()).device
    neurons = sum(math.prod(shape) for shape in network.spec.shapes.values())
    batch = max(1, min(batch, BATCH_NUMBERS // neurons))
    outputs, residuals, sweeps = [], [], []
    with torch.no_grad():
        for start in range(0, len(split), batch):
            x = as_unit(torch.from_numpy(split.pixels[start : start + batch]).to(device))
            if feedforward:
                outputs.append(network.scores(FeedForwardTwin(network)(x)).cpu())
                continue
            if deployed is None:
                result = network.settle(x, schedule)
            else:
                result = deployed.settle(network, x)
            outputs.append(network.scores(result.state[network.spec.output]).cpu())
            residuals.append(result.residual.cpu())
            sweeps.append(result.sweeps)
    values = torch.cat(outputs).numpy()
    residual = torch.cat(residuals) if residuals else torch.zeros(1)
    if not (np.isfinite(values).all() and residual.isfinite().all()):
        raise RunError(
            f"network '{network.spec.name}'",
            f"its states are not finite after {max(sweeps, default=1)} sweeps",
            "scale the weights down, or bound the populations",
        )
    tolerance = schedule.tolerance if deployed is None else deployed.tolerance
    return Evaluation(
        accuracy=float((values.argmax(1) == split.y).mean()),
        outputs=values,
        residual=float(residual.max()),
        unsettled=float((residual > tolerance).float().mean()),
        sweeps=float(np.mean(sweeps)) if sweeps else 1.0,
    )


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of several parts of a split, in order, as one."""
    samples = [len(part.outputs) for part in parts]
    mean = partial(np.average, weights=samples)
    return Evaluation(
        accuracy=float(mean([part.accuracy for part in parts])),
        outputs=np.concatenate([part.outputs for part in parts]),
        residual=max(part.residual for part in parts),
        unsettled=float(mean([part.unsettled for part in parts])),
        sweeps=float(mean([part.sweeps for part in parts])),
    )


def as_unit(pixels: Tensor) -> Tensor:
    """Stored pixels as numbers from 0 to 1."""
    return pixels if pixels.is_floating_point() else pixels.float() / 255
