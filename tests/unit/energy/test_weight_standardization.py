"""Claims about standardised couplings: mean and size are out of reach, all else is as before."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import targets
from compilers import compile_network
from ep_neuro.data.datasets import Split
from ep_neuro.deployment.dynamics import Deployment
from ep_neuro.energy.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.energy.weight_standardization import pull_back, standardised
from ep_neuro.errors import SpecError
from ep_neuro.estimators import Centered, Deployed, FrozenMean, OneSided, RandomSign
from ep_neuro.estimators.baselines import FeedForwardTwin, Unrolled, implicit_gradient
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network.checkpoint import Model, load_model, save_model
from ep_neuro.network.network import Landscape, Network, parameter_names
from ep_neuro.network.settling import Schedule, settle
from ep_neuro.training.config import Optimiser
from ep_neuro.training.loop import evaluate
from ep_neuro.training.optimizer import make_optimiser
from tests.helpers.graphs import samples, standardised_in_units
from tests.helpers.problems import TIGHT, chain, difference, pooled, problem

SHAPES = st.sampled_from([(3, 4), (2, 3, 2, 2), (5, 1, 3, 3), (1, 2)])
NETWORK = standardised_in_units(box=None)


def moved(spec: NetworkSpec = NETWORK, seed: int = 1) -> Network:
    """A network whose gains and biases are no longer the initial ones."""
    network = Network(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for g in network.gains.values():
            g.mul_(0.5 + torch.rand(g.shape, generator=generator))
        for b in network.biases.values():
            b.uniform_(0.1, 0.4, generator=generator)
    return network


def standardise_all(spec: NetworkSpec) -> NetworkSpec:
    data = spec.to_dict()
    for c in data["couplings"]:
        c["standardise"] = True
    return NetworkSpec.from_dict(data)


# --- the reparametrisation ---------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10_000), size=st.sampled_from([1e-3, 1.0, 50.0]))
def test_pulling_back_equals_automatic_differentiation(
    shape: tuple[int, ...], seed: int, size: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    v, dw = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    g = torch.randn(shape[:1], generator=generator, dtype=torch.float64)
    v, g = (size * v).requires_grad_(), g.requires_grad_()
    exact = torch.autograd.grad((standardised(v, g) * dw).sum(), [v, g])
    # The terms that cancel, all of them for two weights a neuron, are of this size.
    terms = float((g / v.flatten(1).std(1, correction=0)).abs().max() * dw.abs().max())
    for mine, reference in zip(pull_back(v.detach(), g.detach(), dw), exact, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-8, atol=1e-12 * max(1, terms))


@settings(max_examples=25, deadline=None)
@given(
    shape=SHAPES,
    seed=st.integers(0, 10_000),
    scale=st.floats(0.01, 100),
    shift=st.floats(-5, 5),
)
def test_mean_and_size_of_a_neurons_weights_are_out_of_reach(
    shape: tuple[int, ...], seed: int, scale: float, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(shape, generator=generator, dtype=torch.float64)
    g = torch.rand(shape[:1], generator=generator, dtype=torch.float64) + 0.5
    w = standardised(v, g)
    torch.testing.assert_close(standardised(scale * v + shift, g), w, rtol=1e-6, atol=1e-8)
    flat = w.flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros_like(g), rtol=0, atol=1e-9)
    torch.testing.assert_close(flat.std(1, correction=0), g / math.sqrt(flat.shape[1]))


def test_initial_weights_are_as_large_as_those_of_a_plain_coupling() -> None:
    spec = standardised_in_units()
    for c, weight in zip(spec.couplings, Network(spec).effective().values(), strict=True):
        stds = weight.flatten(1).std(1, correction=0)
        torch.testing.assert_close(stds, torch.full_like(stds, spec.initial_std(c)))
    plain, before = Network(spec.plain(), 3), Network(spec, 3)
    assert all(torch.equal(before.weights[k], v) for k, v in plain.weights.items())


# --- EP ----------------------------------------------------------------------------------------


def fields(kind: Any) -> dict[str, Any]:
    return {
        "beta": 1e-4 if kind in (OneSided, RandomSign) else 1e-3,
        "free": TIGHT,
        "nudged": TIGHT,
    }


@pytest.mark.parametrize("kind", [Centered, FrozenMean, OneSided, RandomSign])
@pytest.mark.parametrize(
    "spec",
    [NETWORK, standardise_all(pooled("max", 0.3)), standardise_all(pooled("avg", 0.3))],
    ids=lambda s: s.name,
)
def test_local_products_give_the_exact_gradient(kind: Any, spec: NetworkSpec) -> None:
    network, x, y = problem(3, spec)
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    found = kind(**fields(kind))(network, x, y).gradient
    assert found.keys() == exact.keys() == parameter_names(network).keys()
    assert cosine(found, exact) > 0.9999
    assert all(bool(exact[f"gain/{c.name}"].any()) for c in spec.couplings)


def test_backpropagation_through_time_agrees() -> None:
    network, x, y = problem(3, NETWORK)
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    assert difference(Unrolled(free=TIGHT)(network, x, y).gradient, exact) < 1e-6


def test_gains_learn_at_their_own_scale_and_do_not_decay() -> None:
    spec = standardised_in_units()
    config = Optimiser(relative=True, lr=1.0, weight_decay=0.1)
    network = Network(spec)
    rates = {id(g["params"][0]): g for g in make_optimiser(config, network).param_groups}
    assert len(rates) == len(parameter_names(network))
    for c in spec.couplings:
        gain = rates[id(network.gains[c.name])]
        assert gain["lr"] == pytest.approx(spec.real_gain(c))
        assert gain["weight_decay"] == 0
        assert rates[id(network.weights[c.name])]["lr"] == pytest.approx(spec.initial_std(c))


# --- everything after training -----------------------------------------------------------------


def test_a_folded_network_settles_to_the_same_states() -> None:
    network = moved()
    folded = network.folded()
    assert folded.spec == network.spec.plain()
    assert not folded.gains
    assert folded.folded() is folded
    x = torch.rand(4, 2, 6, 6)
    with torch.no_grad():
        states = [settle(Landscape(n, x), Schedule(sweeps=50)).state for n in (network, folded)]
    for p, z in states[0].items():
        assert torch.equal(z, states[1][p])
    assert network.gains
    assert network.spec == NETWORK


def test_plain_weights_are_the_parameters_themselves() -> None:
    network = Network(chain())
    assert all(w is network.weights[k] for k, w in network.effective().items())


def test_a_saved_network_comes_back_bit_for_bit(tmp_path: Path) -> None:
    network = moved()
    loaded = load_model(save_model(Model(network), tmp_path / "model")).network
    assert loaded.spec == network.spec
    found = parameter_names(loaded)
    assert [k for k in found if k.startswith("gain/")] == [
        f"gain/{c.name}" for c in NETWORK.couplings
    ]
    assert all(torch.equal(found[k], v) for k, v in parameter_names(network).items())
    assert sum(p.numel() for p in found.values()) == NETWORK.parameters


def test_batch_norm_folds_into_the_gains() -> None:
    network, x = moved(standardise_all(pooled("avg"))), torch.rand(8, 2, 9, 9)
    twin = FeedForwardTwin(network, batch_norm=True)
    torch.testing.assert_close(FeedForwardTwin(twin.folded(x))(x), twin(x))


def test_a_compiled_network_computes_what_evaluation_does() -> None:
    network = moved()
    x, y = samples(NETWORK, 6, seed=2)
    x = x.astype(np.float32)
    program = compile_network(
        network, targets.get("reference"), code="graded", bits=None, steps=600
    )
    with targets.open(program) as session:
        ran = session.settle(x.astype(np.float64), y).phases["free"].outputs
    schedule = Schedule(sweeps=500, tolerance=1e-7)
    outputs = evaluate(network, Split(x, y), schedule).outputs
    np.testing.assert_allclose(ran.reshape(outputs.shape), outputs, rtol=0, atol=1e-5)


def test_the_deployed_dynamics_are_those_of_the_folded_network() -> None:
    network = moved()
    x, how = torch.rand(3, 2, 6, 6), Deployment(steps=20)
    mine, folded = (how.settle(n, x).state for n in (network, network.folded()))
    assert all(torch.equal(z, folded[p]) for p, z in mine.items())


def test_fine_tuning_on_the_deployed_dynamics_moves_gains_and_weights_alike() -> None:
    network, x, y = problem(3, NETWORK)
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    deployed = Deployed(bits=None, steps=300, beta=0.01, nudged=TIGHT)
    found = deployed(network, x, y).gradient
    assert found.keys() == exact.keys()
    assert cosine(found, exact) > 0.999


# --- refusals ----------------------------------------------------------------------------------


def test_a_single_synapse_or_an_untied_way_back_cannot_be_standardised() -> None:
    def build(width: int, **fields: Any) -> None:
        NetworkSpec(
            name="n",
            input=InputSpec(shape=(4,)),
            populations=(
                PopulationSpec(name="h", shape=(width,)),
                PopulationSpec(name="out", shape=(2,)),
            ),
            couplings=(
                CouplingSpec(pre="input", post="h"),
                CouplingSpec(pre="h", post="out", standardise=True, **fields),
            ),
        )

    build(2)
    with pytest.raises(SpecError, match="'h->out': a fan-in of 1 has no spread"):
        build(1)
    with pytest.raises(SpecError, match="'h->out': standardise and untied exclude each other"):
        build(2, untied=True)
