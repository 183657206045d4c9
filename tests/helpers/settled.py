"""Where a network comes to rest."""

from __future__ import annotations

import numpy as np
import torch

from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle


def settled(network: Network, x: np.ndarray) -> np.ndarray:
    """The output of `network` at its equilibrium for the input `x` (*input shape)."""
    with torch.no_grad():
        landscape = Landscape(network, torch.tensor(x[None]))
        state = settle(landscape, Schedule(sweeps=2000, tolerance=1e-9)).state
    return state[network.spec.output][0].numpy()
