"""Whitening: a first kernel that is read off image patches, and not trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ep_neuro.network import Network
from ep_neuro.spec import CouplingSpec

FLOOR = 5e-4
"""Added to a variance of patches, in that of a pixel: keeps noise from being blown up."""

PATCHES = 200_000
"""Patches, at most, over which the covariance is taken."""


@torch.no_grad()
def whiten(network: Network, images: Tensor) -> None:
    """Set the kernels that the spec says to ``whiten`` from raw `images` (N, *input shape).

    The rows are the leading eigenvectors of the covariance of patches, each over the root of its
    eigenvalue, and again with the other sign, as a clipped ReLU needs both: every channel of the
    drive then has a variance of the coupling's gain squared, in units. The rest of the filters
    are the same as those of Coates et al. 2011, patch whitening.
    """
    for c in network.spec.couplings:
        if c.whiten:
            weight = network.weights[c.name]
            x = network.normalise(images)
            fan_in = weight[0].numel()
            gain = network.spec.spread(c) * fan_in**0.5
            weight.copy_(gain * filters(c, x, len(weight)).view_as(weight))


def filters(c: CouplingSpec, x: Tensor, channels: int) -> Tensor:
    """Whitening filters (channels, pixels of a patch) of normalised images `x`."""
    assert c.kernel is not None
    patches = F.unfold(x, c.kernel).transpose(1, 2).reshape(-1, x.shape[1] * c.kernel**2)
    patches = patches[:: -(-len(patches) // PATCHES)].double()
    covariance = patches.T @ patches / len(patches)
    values, vectors = torch.linalg.eigh(covariance)
    # Signs of eigenvectors are free: the same ones on every machine.
    vectors = vectors * vectors.sum(0).sign()
    leading = (vectors / (values.clamp_min(0) + FLOOR).sqrt()).T.flip(0)[: -(-channels // 2)]
    return torch.cat([leading, -leading])[:channels].to(x)
