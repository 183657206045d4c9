"""Claims about the initialisation that keeps the signal alive."""

from __future__ import annotations

import pytest
import torch

from ep_neuro.energy.spec import CouplingSpec, NetworkSpec
from ep_neuro.errors import SpecError
from ep_neuro.network.architectures import hopfield_resnet, without_skips
from ep_neuro.network.initialization import coverage, keep_alive, signal
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle
from tests.helpers.problems import smooth

SCHEDULE = Schedule(sweeps=300, relaxation=1.3, tolerance=1e-6)
DEPTHS = (5, 9, 13, 17)


def network_of(depth: int, gain: float = 0.3) -> NetworkSpec:
    """A Hopfield-ResNet of `depth` populations of 8 channels, for 8x8 images."""
    channels = (8,) * (depth - 1)
    return hopfield_resnet("deep", image=(1, 8, 8), channels=channels, gain=gain)


def images(samples: int = 8) -> torch.Tensor:
    return torch.rand(samples, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def test_the_signal_at_the_output_is_the_same_at_any_depth() -> None:
    alive, plain = (
        [
            signal(Network(make(network_of(depth)), seed=1).double(), images(), SCHEDULE)["output"]
            for depth in DEPTHS
        ]
        for make in (lambda spec: keep_alive(spec, images()), lambda spec: spec)
    )
    assert max(alive) < 10 * min(alive)
    assert min(alive) > 0.03
    assert plain[0] > 1e3 * plain[-1]


@pytest.mark.parametrize("depth", [5, 17])
def test_every_population_uses_its_box_and_the_network_settles(depth: int) -> None:
    spec = keep_alive(network_of(depth), images())
    network = Network(spec).double()
    result = settle(Landscape(network, images()), SCHEDULE)
    assert result.settled
    for p in spec.populations[:-1]:
        assert p.box is not None
        size = float(result.state[p.name].square().mean().sqrt())
        assert 0.1 < size / p.box[1] < 0.5


def test_without_skips_the_signal_lives_too() -> None:
    spec = keep_alive(without_skips(network_of(9), "plain"), images())
    assert 0.03 < signal(Network(spec).double(), images(), SCHEDULE)["output"] < 3


def test_the_output_gets_the_spread_that_was_asked_for() -> None:
    spec = keep_alive(network_of(5), images(), seed=3, spread=0.8)
    found = signal(Network(spec, seed=3).double(), images(), SCHEDULE)["output"]
    assert found == pytest.approx(0.8, rel=0.3)


def test_strong_gains_are_refused_with_a_remedy() -> None:
    with pytest.raises(SpecError, match=r"still move by .* lower the gains") as caught:
        keep_alive(network_of(9, gain=1.0), images())
    assert "\n" not in str(caught.value)


def test_a_population_that_does_not_scale_is_refused() -> None:
    with pytest.raises(SpecError, match=r"population 'h1': box .* sigmoid does not scale"):
        keep_alive(smooth(network_of(5)), images())


@pytest.mark.parametrize(
    ("side", "kernel", "padding", "share"), [(1, 3, 1, 1 / 9), (2, 3, 1, 4 / 9), (4, 1, 0, 1)]
)
def test_coverage_is_the_share_of_the_kernel_on_the_image(
    side: int, kernel: int, padding: int, share: float
) -> None:
    c = CouplingSpec(pre="a", post="b", kind="conv", kernel=kernel, padding=padding)
    assert coverage(c, (3, side, side)) == pytest.approx(share)
    assert coverage(CouplingSpec(pre="a", post="b"), (3,)) == 1
