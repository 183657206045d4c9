"""Claims about Muon: steps of one size, in units, for hidden matrices; Adam for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from ep_neuro.training.config import Optimiser
from ep_neuro.training.loop import train
from ep_neuro.training.optimizer import ADAM_SHARE, MuonAndAdam, make_optimiser
from tests.helpers.graphs import standardised_in_units
from tests.helpers.problems import interrupt_at
from tests.unit.training.test_loop import learned, same
from tests.unit.training.test_training_options import on_images, squares

LR = 0.1


def muon(**changes: Any) -> Optimiser:
    return Optimiser(**{"kind": "muon", "lr": LR, "relative": True, "momentum": 0.0, **changes})


def step(network: Network, size: float, **changes: Any) -> dict[str, torch.Tensor]:
    """What one step by random gradients of this size moves, by parameter."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.grad = size * torch.randn(parameter.shape, generator=generator)
    before = {k: p.detach().clone() for k, p in network.named_parameters()}
    make_optimiser(muon(**changes), network).step()
    return {k: p.detach() - before[k] for k, p in network.named_parameters()}


def hidden(network: Network) -> list[str]:
    spec = network.spec
    return [c.name for c in spec.couplings if c.post != spec.output and not c.whiten]


def networks() -> list[Network]:
    return [Network(standardised_in_units()), Network(zoo("digits_dense"))]


@pytest.mark.parametrize("network", networks(), ids=lambda n: n.spec.name)
def test_a_step_moves_hidden_weights_by_lr_standard_deviations(network: Network) -> None:
    spec = network.spec
    moved = step(network, 1.0)
    stds = {c.name: spec.initial_std(c) for c in spec.couplings}
    for name in hidden(network):
        size = float(moved[f"weights.{name}"].square().mean().sqrt()) / stds[name]
        # Five Newton-Schulz iterations bring singular values to between 0.7 and 1.2.
        assert 0.6 * LR < size < 1.3 * LR, name


@settings(max_examples=10, deadline=None)
@given(size=st.integers(-16, 16).map(lambda k: 2.0**k))
def test_the_size_of_a_gradient_changes_no_step_of_a_hidden_weight(size: float) -> None:
    moved, reference = (step(Network(standardised_in_units(), 3), s) for s in (size, 1.0))
    for name in hidden(Network(standardised_in_units())):
        key = f"weights.{name}"
        torch.testing.assert_close(moved[key], reference[key], rtol=1e-5, atol=1e-6)


def test_all_directions_of_a_matrix_move_alike() -> None:
    network = Network(zoo("digits_dense"))
    moved = step(network, 1.0)[f"weights.{hidden(network)[0]}"]
    values = torch.linalg.svdvals(moved)
    assert float(values.max() / values.min()) < 3


def test_everything_but_hidden_weights_moves_by_adam_at_half_the_rate() -> None:
    first, second = (Network(standardised_in_units(), 3) for _ in range(2))
    ours = step(first, 1.0)
    theirs = step(second, 1.0, kind="adam", lr=ADAM_SHARE * LR)
    others = set(ours) - {f"weights.{name}" for name in hidden(first)}
    assert any("gain" in name for name in others)
    assert any("bias" in name for name in others)
    for name in others:
        assert torch.equal(ours[name], theirs[name]), name


def test_one_schedule_moves_both_rates_also_after_loading() -> None:
    network = Network(standardised_in_units())
    first, second = (make_optimiser(muon(), network) for _ in range(2))
    assert isinstance(first, MuonAndAdam)
    second.load_state_dict(first.state_dict())
    for group in second.param_groups:
        group["lr"] = 0.0
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {k: p.detach().clone() for k, p in network.named_parameters()}
    second.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_run_that_is_interrupted_and_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    muon = {"kind": "muon", "lr": 0.05, "relative": True}
    chosen = on_images(optimiser=muon, epochs=2, save_minutes=1e-9)
    whole = train(chosen, dataset=squares())
    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path, dataset=squares(), monitor=interrupt_at(3))
    resumed = train(chosen, tmp_path, dataset=squares(), resume=True)
    assert same(resumed.model.network, whole.model.network)
    assert learned(resumed) == learned(whole)
