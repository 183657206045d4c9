"""Claims about the references: the exact gradient and the feed-forward twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ep_neuro.data.datasets import load
from ep_neuro.energy.costs import SquaredError
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import CheckFailed, SpecError
from ep_neuro.estimators.baselines import Backprop, FeedForwardTwin, implicit_gradient
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import load_model
from ep_neuro.network.network import Landscape, Network, parameter_names
from ep_neuro.network.settling import Schedule, Status, settle
from ep_neuro.training.config import build_config
from ep_neuro.training.loop import evaluate, train
from tests.helpers.graphs import digits_like_dense, digits_like_residual
from tests.helpers.problems import TIGHT, problem, slopes

# --- the feed-forward twin ---------------------------------------------------------------------


def test_the_twin_of_a_dense_network_is_two_matrix_products() -> None:
    network = Network(digits_like_dense(), 1)
    x = torch.rand(5, 1, 8, 8)
    first, second = (w.detach().numpy() for w in network.weights.values())
    hidden = np.clip(x.flatten(1).numpy() @ first.T, 0, 1)
    expected = np.clip(hidden @ second.T, -0.5, 1.5)
    np.testing.assert_allclose(FeedForwardTwin(network)(x).detach(), expected, atol=1e-6)


def test_the_twin_shares_the_parameters_of_its_network() -> None:
    network = Network(zoo("digits_residual"))
    twin = FeedForwardTwin(network)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in network.parameters()}


@pytest.mark.parametrize("seed", range(3))
def test_backprop_is_the_gradient_of_the_twins_loss(seed: int) -> None:
    network, x, y = problem(seed)

    def loss() -> float:
        return float(SquaredError().value(FeedForwardTwin(network)(x), y).mean())

    found, predicted = slopes(network, Backprop()(network, x, y).gradient, loss, 1e-7)
    assert found == pytest.approx(predicted, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_backprop_in_bfloat16_is_that_in_float32_but_for_rounding(seed: int) -> None:
    network = Network(digits_like_residual(), seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(16, *network.spec.input.shape, generator=generator)
    y = torch.eye(10)[torch.arange(16) % 10]
    exact = Backprop()(network, x, y).gradient
    rounded = Backprop(precision="bfloat16")(network, x, y).gradient
    for name, gradient in exact.items():
        assert rounded[name].dtype == torch.float32
        assert not torch.equal(rounded[name], gradient)
    # Of all together: that of a bias may be a small rest of terms that cancel.
    assert cosine(rounded, exact) > 0.999


def test_backprop_reports_the_output_it_was_measured_at() -> None:
    network, x, y = problem(0)
    estimate = Backprop()(network, x, y)
    assert estimate.nudged is None
    assert estimate.free.status is Status.SETTLED
    output = estimate.free.state[network.spec.output]
    assert torch.equal(output, FeedForwardTwin(network)(x).detach())


@pytest.mark.parametrize("seed", range(3))
def test_folded_batch_norm_answers_as_the_normalised_twin_did(seed: int) -> None:
    network, x, _ = problem(seed)
    twin = FeedForwardTwin(network, batch_norm=True)
    with torch.no_grad():
        torch.testing.assert_close(FeedForwardTwin(twin.folded(x))(x), twin(x))


def test_batch_norm_gives_each_hidden_channel_mean_zero_and_variance_one() -> None:
    data = digits_like_residual().to_dict()
    for p in data["populations"]:
        p["box"] = [-1e6, 1e6]
    network = Network(NetworkSpec.from_dict(data)).double()
    x = 30 * torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    folded = FeedForwardTwin(network, batch_norm=True).folded(x)
    first = network.spec.populations[0].name
    with torch.no_grad():
        drive = Landscape(folded, x).constant[first]
    torch.testing.assert_close(drive.mean((0, 2, 3)), torch.zeros(drive.shape[1]).double())
    torch.testing.assert_close(
        drive.var((0, 2, 3), correction=0), torch.ones(drive.shape[1]).double(), rtol=1e-3, atol=0
    )


def test_backprop_with_batch_norm_saves_a_network_that_needs_none(tmp_path: Path) -> None:
    config = build_config(
        {
            "network": digits_like_residual().to_dict(),
            "estimator": {"kind": "backprop", "batch_norm": True},
            "optimiser": {"lr": 0.01},
            "epochs": 4,
        }
    )
    result = train(config, tmp_path)
    assert result.test.accuracy > 0.8
    again = evaluate(
        load_model(tmp_path / "best").network,
        load("digits").test,
        config.evaluation,
        feedforward=True,
    )
    assert again.accuracy == result.test.accuracy


def test_a_coupling_that_leads_back_has_no_twin_and_says_so() -> None:
    data = digits_like_dense().to_dict()
    data["populations"].reverse()
    data["output"] = "out"
    network = Network(NetworkSpec.from_dict(data))
    with pytest.raises(SpecError) as caught:
        FeedForwardTwin(network)
    text = str(caught.value)
    assert "coupling 'h1->out': 'h1' stands after 'out'" in text
    assert "list 'h1' before 'out'" in text
    assert settle(Landscape(network, torch.rand(2, 1, 8, 8)), Schedule(sweeps=500)).settled


# --- the exact gradient ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_implicit_gradient_predicts_how_the_settled_loss_moves(seed: int) -> None:
    network, x, y = problem(seed)
    exact = implicit_gradient(network, x, y, TIGHT)
    assert exact.residual < 1e-9
    before = float(SquaredError().value(exact.free.state[network.spec.output], y).mean())
    step = 1e-6
    with torch.no_grad():
        for name, parameter in parameter_names(network).items():
            parameter.sub_(exact.gradient[name], alpha=step)
    after = settle(Landscape(network, x), TIGHT).state[network.spec.output]
    gained = before - float(SquaredError().value(after, y).mean())
    square = sum(float(g.square().sum()) for g in exact.gradient.values())
    assert gained / step == pytest.approx(square, rel=1e-3)


def test_the_implicit_gradient_refuses_a_linear_system_it_did_not_solve() -> None:
    network, x, y = problem(0)
    with pytest.raises(CheckFailed) as caught:
        implicit_gradient(network, x, y, TIGHT, iterations=1)
    text = str(caught.value)
    assert f"implicit gradient of '{network.spec.name}'" in text
    assert "after 1 iterations" in text
    assert "give more iterations" in text


def test_an_equilibrium_that_is_no_minimum_shows_in_the_curvature() -> None:
    data = digits_like_dense().to_dict()
    for population in data["populations"]:
        population["box"] = [-1e6, 1e6]
    network = Network(NetworkSpec.from_dict(data)).double()
    with torch.no_grad():
        for weight in network.weights.values():
            weight *= 5
    x, y = torch.zeros(1, 1, 8, 8).double(), torch.ones(1, 10).double()
    assert implicit_gradient(network, x, y, TIGHT).curvature < 0
