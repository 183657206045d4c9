"""Claims about the gradient of deep networks, whose response to a nudge fades on its way back."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor

from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.estimators import Centered, FrozenMean, Gradient
from ep_neuro.estimators.baselines import implicit_gradient
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network.architectures import OUTPUT_BOX, hopfield_resnet, resnet_in_units
from ep_neuro.network.initialization import keep_alive
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.network.settling import Schedule
from ep_neuro.training.config import Optimiser
from ep_neuro.training.gradient_monitor import shortened
from ep_neuro.training.optimizer import make_optimiser

POPULATIONS = 17
TIGHT = Schedule(sweeps=300, relaxation=1.0, tolerance=1e-9)


def worst_cosine(found: Gradient, exact: Gradient) -> float:
    """Smallest cosine of the gradients of a weight."""
    return min(
        float(torch.cosine_similarity(found[k].double().flatten(), exact[k].flatten(), 0))
        for k in exact
        if k.startswith("weight")
    )


def images(count: int) -> tuple[Tensor, Tensor]:
    """Random images and their targets."""
    x = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, one_hot(torch.arange(count) % 10, (10,), torch.float32)


def in_units(populations: int, width: int = 8) -> NetworkSpec:
    """A residual network whose units fall to a third from population to population."""
    return resnet_in_units(
        "deep",
        image=(1, 8, 8),
        channels=(width,) * (populations - 1),
        strides=(2, 2, *(1,) * (populations - 3)),
        kernel=3,
        shrink=3.0,
        gain=0.5,
        skip_gain=1.7,
    )


def test_at_seventeen_populations_the_frozen_mean_is_true_where_two_phases_are_not() -> None:
    x, y = images(16)
    spec = hopfield_resnet(
        "deep",
        image=(1, 8, 8),
        channels=(8,) * (POPULATIONS - 1),
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


def test_at_thirty_three_populations_in_units_few_sweeps_are_true() -> None:
    network, (x, y) = Network(in_units(33)), images(8)
    exact = FrozenMean(beta=1e-4, free=TIGHT, nudged=TIGHT, fallback=False)(
        copy.deepcopy(network).double(), x.double(), y.double()
    )
    assert exact.free.settled
    assert exact.nudged is not None
    assert exact.nudged.settled
    found = shortened(FrozenMean(beta=0.01), 6, 4)(network, x, y).gradient
    assert all(bool(g.isfinite().all()) for g in found.values())
    assert cosine({k: g.double() for k, g in found.items()}, exact.gradient) > 0.99


def test_at_thirty_three_populations_a_few_steps_lower_the_loss() -> None:
    network, (x, y) = Network(in_units(33)), images(8)
    optimiser = make_optimiser(Optimiser(relative=True, lr=0.03), network)
    estimator, losses = shortened(FrozenMean(), 6, 4), []
    for _ in range(12):
        estimate = estimator(network, x, y)
        output = estimate.free.state["output"]
        losses.append(float(network.cost.value(output, y).mean()))
        for name, parameter in parameter_names(network).items():
            parameter.grad = estimate.gradient[name]
        optimiser.step()
    assert all(bool(p.isfinite().all()) for p in network.parameters())
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("populations", [9, 33])
def test_biases_of_large_units_learn_as_fast_in_units_as_those_of_small_ones(
    populations: int,
) -> None:
    network, (x, y) = Network(in_units(populations)), images(8)
    before = {p: b.detach().clone() for p, b in network.biases.items()}
    optimiser = make_optimiser(Optimiser(relative=True, lr=0.01), network)
    gradient = shortened(FrozenMean(), 6, 4)(network, x, y).gradient
    for name, parameter in parameter_names(network).items():
        parameter.grad = gradient[name]
    optimiser.step()
    moved = {
        p: float((network.biases[p].detach() - before[p]).abs().max()) / unit
        for p, unit in network.spec.units.items()
        if p in before
    }
    hidden = list(moved.values())[:-1]
    assert all(a == pytest.approx(b, rel=0.05) for a, b in itertools.pairwise(hidden))
