"""Claims about untied couplings: a way back of its own, learnt without weight transport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import CheckFailed, SpecError
from ep_neuro.estimators import Centered, FrozenMean, OneSided, RandomSign
from ep_neuro.estimators.baselines import Unrolled, implicit_gradient
from ep_neuro.estimators.gradient_check import check_network, cosine
from ep_neuro.network.checkpoint import Model, load_model, save_model
from ep_neuro.network.network import Landscape, Network, parameter_names
from ep_neuro.network.settling import Schedule, settle
from tests.helpers.problems import TIGHT, chain, difference, problem

PHASES: dict[str, Any] = {"beta": 1e-3, "free": TIGHT, "nudged": TIGHT}
NUDGING = [OneSided, RandomSign, Centered, FrozenMean]


def alignment(network: Network) -> float:
    """Least cosine of a weight to its way back."""
    return min(
        float(F.cosine_similarity(network.weights[name].detach().flatten(), back.flatten(), 0))
        for name, back in detached(network).items()
    )


def distance(network: Network) -> float:
    """Largest norm of the difference between a weight and its way back."""
    back = detached(network)
    return max(float((network.weights[name].detach() - back[name]).norm()) for name in back)


def detached(network: Network) -> dict[str, Tensor]:
    return {name: back.detach() for name, back in network.feedback.items()}


def tie(network: Network) -> None:
    with torch.no_grad():
        for name, back in network.feedback.items():
            back.copy_(network.weights[name])


def test_with_equal_weights_both_ways_nothing_changes() -> None:
    untied, x, y = problem(0, chain(untied=True))
    tie(untied)
    tied, *_ = problem(0, chain())
    with torch.no_grad():
        for name, parameter in parameter_names(tied).items():
            parameter.copy_(parameter_names(untied)[name])
    a, b = (Centered(**PHASES)(n, x, y) for n in (untied, tied))
    for p in a.free.state:
        torch.testing.assert_close(a.free.state[p], b.free.state[p])
    assert difference({k: a.gradient[k] for k in b.gradient}, b.gradient) < 1e-9


@pytest.mark.parametrize("kind", NUDGING)
def test_both_ways_learn_by_the_same_local_update(kind: Any) -> None:
    network, x, y = problem(1, chain(untied=True))
    gradient = kind(**PHASES)(network, x, y).gradient
    assert gradient.keys() == parameter_names(network).keys()
    for name in network.feedback:
        assert torch.equal(gradient[f"feedback/{name}"], gradient[f"weight/{name}"])
        assert float(gradient[f"weight/{name}"].abs().max()) > 0


def test_the_way_back_drives_with_its_own_weight() -> None:
    network, x, _ = problem(2, chain(untied=True))
    z = settle(Landscape(network, x), TIGHT).state
    w, b = network.weights, network.feedback
    drive = x @ w["input->h"].T + z["g"] @ b["h->g"] + network.biases["h"]
    torch.testing.assert_close(z["h"], drive.clamp(-9, 9))


def test_decay_and_the_same_update_align_the_two_weights() -> None:
    network, x, y = problem(3, chain(untied=True))
    before, apart = alignment(network), distance(network)
    rate, decay, steps = 0.2, 0.2, 40
    optimiser = torch.optim.SGD(network.parameters(), lr=rate, weight_decay=decay)
    estimator = Centered(beta=0.1, free=Schedule(sweeps=15), nudged=Schedule(sweeps=10))
    for _ in range(steps):
        gradient = estimator(network, x, y).gradient
        for name, parameter in parameter_names(network).items():
            parameter.grad = gradient[name]
        optimiser.step()
    assert distance(network) == pytest.approx(apart * (1 - rate * decay) ** steps)
    assert alignment(network) > before + 0.1


def test_aligned_weights_give_the_exact_gradient_and_random_ones_do_not() -> None:
    network, x, y = problem(4, chain(untied=True))
    weights = [k for k in parameter_names(network) if not k.startswith("feedback")]

    def quality() -> float:
        estimate = Centered(**PHASES)(network, x, y).gradient
        tie_free = Unrolled(free=TIGHT)(network, x, y).gradient
        total = {k: tie_free[k] for k in weights}
        for name in network.feedback:
            total[f"weight/{name}"] = tie_free[f"weight/{name}"] + tie_free[f"feedback/{name}"]
        return cosine(estimate, total)

    random = quality()
    tie(network)
    assert quality() > 0.99999
    assert random < 0.99


def test_there_is_no_energy_so_the_check_says_so_in_one_line() -> None:
    network, x, y = problem(5, chain(untied=True))
    for call in (
        lambda: implicit_gradient(network, x, y, TIGHT),
        lambda: check_network(network, x, y),
    ):
        with pytest.raises(CheckFailed) as caught:
            call()
        text = str(caught.value)
        assert "coupling 'h->g': its way back is untied, so there is no energy" in text
        assert "bptt" in text
        assert "\n" not in text


def test_a_clamped_input_has_no_way_back() -> None:
    data = chain().to_dict()
    data["couplings"][0]["untied"] = True
    with pytest.raises(SpecError, match="coupling 'input->h': untied belongs to couplings with"):
        NetworkSpec.from_dict(data)


def test_ways_back_and_readouts_are_saved_and_counted(tmp_path: Path) -> None:
    network = Network(chain(untied=True, readout=True), seed=7)
    parameters = parameter_names(network)
    assert sum(p.numel() for p in parameters.values()) == network.spec.parameters
    assert {"feedback/h->g", "readout/weight", "readout/bias"} <= parameters.keys()
    save_model(Model(network), tmp_path / "model")
    back = load_model(tmp_path / "model").network
    assert back.spec == network.spec
    for name, parameter in parameter_names(back).items():
        assert torch.equal(parameter, parameters[name])
