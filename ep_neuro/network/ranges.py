"""Where states really are: boxes drawn tight round them, for neurons of few levels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ep_neuro.errors import ModelError
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule

Ranges = Mapping[str, tuple[float, float]]
"""Lowest and highest state by population, in units."""

RANGES = "ranges"
"""Where the metadata of a model keeps them."""

BEYOND = 1e-3
"""Share of the hidden states that may lie above their range: the few that are largest.

Threshold balancing of spiking networks leaves out as many (Rueckauer et al. 2017).
"""

ROOM = 0.05
"""What the range of an output has to spare at both ends, as a share of it."""


@torch.no_grad()
def measure_ranges(network: Network, x: Tensor, schedule: Schedule) -> dict[str, list[float]]:
    """The `Ranges` that free phases of `x` (N, ...) need, as JSON has them."""
    state = network.settle(x, schedule).state
    found = {}
    for p in network.spec.populations:
        z = (state[p.name] / p.unit).flatten().double()
        low, high = float(z.min()), float(z.max())
        if p.name == network.spec.output:
            spare = ROOM * (high - low)
            low, high = low - spare, high + spare
        else:
            high = float(z.kthvalue(max(1, round((1 - BEYOND) * len(z)))).values)
        found[p.name] = [low, high]
    return found


def narrowed(network: Network, ranges: Ranges) -> Network:
    """`network`, of the same parameters, with each upper end of a box drawn in to its range.

    The lower end of a hidden box stays: it is where most states lie, at rest. That of an output,
    which has no such place, is drawn in as well.
    """
    populations = []
    for p in network.spec.populations:
        if p.box is not None and p.activation == "clip" and p.name in ranges:
            low, high = ranges[p.name]
            bottom = max(p.box[0], low) if p.name == network.spec.output else p.box[0]
            box = (bottom, min(p.box[1], high))
            p = p.model_copy(update={"box": box if box[0] < box[1] else p.box})
        populations.append(p)
    spec = network.spec.model_copy(update={"populations": tuple(populations)})
    twin = Network(spec).to(next(network.parameters()).device)
    twin.load_state_dict(network.state_dict())
    return twin


def read_ranges(metadata: Mapping[str, Any]) -> Ranges:
    """The ranges in the `metadata` of a model; {} where there are none.

    Raises
    ------
    ModelError
        If they are no pairs of numbers by population, the lower one first.
    """
    found = metadata.get(RANGES) or {}
    try:
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in found.items()}
    except (AttributeError, TypeError, ValueError):
        ranges = {RANGES: (math.nan, math.nan)}
    for name, (low, high) in ranges.items():
        if not low <= high:
            problem = f"{found!r:.80} is no [lowest, highest] by population"
            raise ModelError(f"metadata.json, {RANGES}, {name}", problem, "correct the file")
    return ranges
