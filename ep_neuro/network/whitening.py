"""The first kernel as the whitening of image patches, measured once on training images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ep_neuro.energy.spec import CouplingSpec
from ep_neuro.network.network import Network

IMAGES = 5_000
"""Training images that are measured, evenly over the split."""

CHUNK = 32
"""Images at a time: their patches take far more room than they do."""

EPSILON = 5e-4
"""Added to the variance of each direction, in mean variances of a value of a patch: directions
with less than that are noise, which whitening would blow up."""


@torch.no_grad()
def whiten(network: Network, pixels: np.ndarray) -> None:
    """Set the kernels that the spec of `network` wants whitened; leave all others.

    Row ``k`` is ``gain v_k / sqrt(e_k + eps)`` with the eigenvectors ``v_k`` of the covariance of
    the normalised input's patches, by falling eigenvalue ``e_k``: each channel's drive then has the
    standard deviation `NetworkSpec.real_gain`, and channels are uncorrelated. The second half of
    the channels is the first with the other sign, so that rectified channels see both.

    Deterministic: of the two signs of an eigenvector, the one whose largest component is positive
    comes first.

    Parameters
    ----------
    network : Network
    pixels : ndarray, (N, *input shape)
        Training images from 0 to 1, or as bytes; up to `IMAGES` of them are measured.
    """
    some = pixels[:: -(-len(pixels) // IMAGES)]
    for c in network.spec.couplings:
        if c.whiten:
            kernel = network.weights[c.name]
            rows = _whitening(_covariance(network, c, some), len(kernel))
            kernel.copy_((network.spec.real_gain(c) * rows).view_as(kernel))


def _whitening(covariance: Tensor, channels: int) -> Tensor:
    """Rows (channels, values of a patch) that whiten, the second half with the other sign."""
    values, vectors = torch.linalg.eigh(covariance)
    rows = (vectors / (values.clamp_min(0) + EPSILON * values.mean()).sqrt()).t().flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    rows = (rows * largest.sign())[: -(-channels // 2)]
    return torch.cat([rows, -rows])[:channels]


def _covariance(network: Network, c: CouplingSpec, pixels: np.ndarray) -> Tensor:
    """Covariance of all patches that lie on the image, float64, on the CPU."""
    assert c.kernel is not None
    size = network.weights[c.name][0].numel()
    total, square, count = torch.zeros(size).double(), torch.zeros(size, size).double(), 0
    for start in range(0, len(pixels), CHUNK):
        x = torch.from_numpy(pixels[start : start + CHUNK])
        x = x if x.is_floating_point() else x.float() / 255
        patches = F.unfold(network.normalise(x).cpu().double(), c.kernel)
        flat = patches.transpose(1, 2).reshape(-1, size)
        total, square, count = total + flat.sum(0), square + flat.t() @ flat, count + len(flat)
    mean = total / count
    return square / count - torch.outer(mean, mean)
