"""Claims about the gradient of deep networks, whose response to a nudge fades on its way back."""

from __future__ import annotations

import torch

from ep_neuro.baselines import implicit_gradient
from ep_neuro.costs import one_hot
from ep_neuro.estimators import Centered, FrozenMean, Gradient
from ep_neuro.initialisation import keep_alive
from ep_neuro.network import Network
from ep_neuro.settle import Schedule
from ep_neuro.zoo import OUTPUT_BOX, hopfield_resnet

POPULATIONS = 17


def worst_cosine(found: Gradient, exact: Gradient) -> float:
    """Smallest cosine of the gradients of a weight."""
    return min(
        float(torch.cosine_similarity(found[k].double().flatten(), exact[k].flatten(), 0))
        for k in exact
        if k.startswith("weight")
    )


def test_at_seventeen_populations_the_frozen_mean_is_true_where_two_phases_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 1, 8, 8, generator=generator)
    y = one_hot(torch.arange(16) % 10, (10,), torch.float32)
    channels = (8,) * (POPULATIONS - 1)
    spec = hopfield_resnet(
        "deep",
        image=(1, 8, 8),
        channels=channels,
        classes=10,
        heights=(6.0,) * len(channels),
        output_box=OUTPUT_BOX,
        gain=0.3,
        input_gain=1.0,
    )
    spec = keep_alive(spec, x)
    tight = Schedule(sweeps=3000, tolerance=1e-14)
    exact = implicit_gradient(Network(spec).double(), x.double(), y.double(), tight).gradient
    free = Schedule(sweeps=40, tolerance=1e-4)
    arriving = Schedule(sweeps=20, relaxation=1.3, tolerance=0)
    frozen = FrozenMean(free=free, nudged=arriving, fallback=False)
    phases = Centered(free=free, nudged=Schedule(sweeps=20, tolerance=3e-4))
    network = Network(spec)
    assert worst_cosine(frozen(network, x, y).gradient, exact) > 0.97
    assert worst_cosine(phases(network, x, y).gradient, exact) < 0.5
