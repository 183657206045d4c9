"""Claims about training on erring weights: who sees the errors, who keeps clean, what repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.checkpoint import load_model
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.training.config import build_config
from ep_neuro.training.distributed import Ranks
from ep_neuro.training.gradient_monitor import TruthControl
from ep_neuro.training.loop import train
from ep_neuro.training.train_step import Stepper, disturbed
from tests.helpers.problems import interrupt_at
from tests.unit.training.test_loop import clusters, config, same

SPEC: dict[str, Any] = {
    "name": "standardised",
    "input": {"shape": [1, 6, 6]},
    "populations": [{"name": "h", "shape": [4, 3, 3]}, {"name": "output", "shape": [3]}],
    "couplings": [
        {"pre": "input", "post": "h", "kind": "conv", "kernel": 3, "stride": 2, "padding": 1},
        {"pre": "h", "post": "output", "standardise": True, "gain": 0.5},
    ],
}


def network(seed: int = 0) -> Network:
    return Network(NetworkSpec.from_dict(SPEC), seed)


# --- what devices hold -------------------------------------------------------------------------


@given(st.integers(0, 2**62), st.sampled_from([0.01, 0.1]))
@settings(max_examples=10)
def test_each_weight_errs_by_a_share_of_the_largest_in_its_row(seed: int, noise: float) -> None:
    clean = network()
    off = disturbed(clean, noise, seed)
    for name, weight in clean.folded().weights.items():
        rows = (off.weights[name] - weight).detach().flatten(1) / weight.flatten(1).abs().amax(1)[
            :, None
        ]
        assert float(rows.std()) == pytest.approx(noise, rel=0.5)
        assert bool(rows.any(1).all())
    assert all(bool((b == off.biases[p]).all()) for p, b in clean.biases.items())
    assert same(clean, network())


def test_an_error_of_a_standardised_weight_is_one_of_the_standardised_weight() -> None:
    clean = network()
    off = disturbed(clean, 0.1, 0)
    assert not off.spec.couplings[1].standardise
    assert abs(float(off.weights["h->output"].mean(1)[0].detach())) > 1e-4
    assert float(clean.effective()["h->output"].mean(1)[0].detach()) == pytest.approx(0, abs=1e-6)


# --- training ----------------------------------------------------------------------------------


def test_one_seed_gives_one_result_and_no_noise_is_none() -> None:
    def trained(**changes: Any) -> Network:
        return train(config(epochs=2, **changes), dataset=clusters()).model.network

    noisy, plain = trained(weight_noise=0.1), trained()
    assert same(noisy, trained(weight_noise=0.1))
    assert same(plain, trained(weight_noise=0.0))
    assert not same(noisy, plain)


@pytest.mark.parametrize("kind", ["centered", "frozen-mean", "backprop"])
def test_the_clean_weights_take_the_step_that_the_erring_ones_ask_for(kind: str) -> None:
    chosen = config(
        weight_noise=0.1,
        estimator={"kind": kind},
        optimiser={"kind": "sgd", "lr": 1.0, "momentum": 0.0},
        average=0.0,
        truth=None,
    )
    data = clusters().train
    mine = Network(chosen.spec(), 0)
    before = {k: p.detach().clone() for k, p in parameter_names(mine).items()}
    stepper = Stepper(chosen, data, mine, 10, Ranks(torch.device("cpu")))
    index = torch.arange(8)
    x, y = stepper._inputs(index, 5), stepper._targets(index)
    asked = chosen.estimator(disturbed(mine, 0.1, 5), x, y).gradient
    stepper(index, 5, "training")
    for name, after in parameter_names(mine).items():
        torch.testing.assert_close(before[name] - after, asked[name], atol=1e-6, rtol=1e-4)


def test_the_gradient_is_held_against_that_of_the_erring_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[Network] = []
    look = TruthControl.look

    def watched(control: TruthControl, step: int, seen: Network, *rest: Any) -> Any:
        looked.append(seen)
        return look(control, step, seen, *rest)

    monkeypatch.setattr(TruthControl, "look", watched)
    chosen = config(weight_noise=0.1, estimator={"kind": "frozen-mean"})
    mine = Network(chosen.spec(), 0)
    erring = disturbed(mine, 0.1, 3)
    Stepper(chosen, clusters().train, mine, 10, Ranks(torch.device("cpu")))(
        torch.arange(8), 3, "training"
    )
    assert same(looked[0], erring)


def test_resuming_ends_in_bit_identical_weights(tmp_path: Path) -> None:
    chosen = config(weight_noise=0.1, epochs=3)
    whole = train(chosen, tmp_path / "whole", dataset=clusters())
    for step in (4, 5):
        broken = tmp_path / f"broken{step}"
        with pytest.raises(KeyboardInterrupt):
            train(chosen, broken, dataset=clusters(), monitor=interrupt_at(step))
        resumed = train(chosen, broken, dataset=clusters(), resume=True)
        assert same(resumed.model.network, whole.model.network)
        assert same(*(load_model(run / "last").network for run in (broken, tmp_path / "whole")))


def test_weights_of_a_chip_take_no_noise() -> None:
    with pytest.raises(ConfigError, match=r"weight_noise: 0\.1: estimator 'deployed'"):
        build_config({"network": SPEC, "estimator": {"kind": "deployed"}, "weight_noise": 0.1})
