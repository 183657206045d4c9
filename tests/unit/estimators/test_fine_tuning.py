"""Claims about fine-tuning: EP on the deployed dynamics, from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import compilers
import targets
from ep_neuro.energy.activations import HardReset
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError, EPNeuroError, GraphError
from ep_neuro.estimators import Centered, Deployed
from ep_neuro.estimators.baselines import implicit_gradient
from ep_neuro.estimators.contrast import differentiated
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network.checkpoint import Model, load_model, save_model
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle
from ep_neuro.training.config import TrainConfig, build_config
from ep_neuro.training.loop import TrainResult, evaluate, train
from tests.helpers.graphs import digits_like_residual, random_residual_spec
from tests.helpers.problems import TIGHT, chain, problem
from tests.unit.training.test_loop import NETWORK, clusters, config, learned, same

CODES = ["graded", "sigma-delta", "spike"]
BOXED: dict[str, Any] = {
    **NETWORK,
    "populations": [
        {"name": "h", "shape": [8]},
        {"name": "output", "shape": [3], "box": [-0.5, 1.5]},
    ],
}


def deployed(**settings: Any) -> Deployed:
    return Deployed.model_validate(settings)


# --- the gradient ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_in_floating_point_the_gradient_is_the_implicit_one(seed: int) -> None:
    network, x, y = problem(seed)
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    estimator = deployed(bits=None, steps=400, beta=1e-3, nudged=TIGHT)
    assert cosine(estimator(network, x, y).gradient, exact) > 0.9999


@pytest.mark.parametrize("seed", range(3))
def test_a_smooth_response_takes_a_cross_entropy_and_is_the_implicit_gradient(seed: int) -> None:
    spec = NetworkSpec.from_dict({**random_residual_spec(seed).to_dict(), "cost": "cross-entropy"})
    network, x, y = problem(seed, spec)
    exact = implicit_gradient(network, x, y, TIGHT).gradient
    estimator = deployed(bits=None, steps=400, beta=1e-3, nudged=TIGHT)
    assert cosine(estimator(network, x, y).gradient, exact) > 0.9999


def test_an_encoded_response_refuses_a_cross_entropy_which_no_chip_nudges_by() -> None:
    network, x, y = problem(0, chain(cost="cross-entropy"))
    with pytest.raises(GraphError, match=r"network 'chain'.*asks for beta \(y - softmax\(z\)\)"):
        deployed(response="encoded")(network, x, y)


@pytest.mark.parametrize("code", CODES)
def test_at_eight_bits_the_gradient_points_where_that_of_the_float_network_points(
    code: str,
) -> None:
    network, x, y = problem(0, digits_like_residual(), samples=6)
    exact = Centered(beta=0.01, free=TIGHT, nudged=TIGHT)(network, x, y).gradient
    found = deployed(code=code, bits=8)(network.float(), x.float(), y.float())
    assert cosine({k: g.double() for k, g in found.gradient.items()}, exact) > 0.99


def test_a_hard_reset_is_taught_along_the_gradient_of_its_smooth_rates() -> None:
    """By autograd through a network at rest at these rates, of their matching loss."""
    network, x, y = problem(0, digits_like_residual(), samples=6)
    landscape, out = Landscape(network, x), network.spec.output
    kinds = {p: HardReset(a.box) for p, a in landscape.activations.items() if a.box is not None}
    z = landscape.rest()
    for _ in range(100):
        z = {p: kinds[p].relax(v, landscape.drive(z, p), 0.5) for p, v in z.items()}
    exact = differentiated(network, (kinds[out].potential(z[out]) - y * z[out]).sum() / len(x))
    found = deployed(code="spike", bits=None, reset="hard")(network, x, y)
    assert cosine(found.gradient, exact) > 0.99
    clipped = implicit_gradient(network, x, y, TIGHT).gradient
    assert cosine(clipped, exact) < 0.98


def test_an_encoded_response_has_less_of_the_gradient_than_a_smooth_one() -> None:
    network, x, y = problem(0, digits_like_residual(), samples=6)
    exact = Centered(beta=0.01, free=TIGHT, nudged=TIGHT)(network, x, y).gradient
    smooth, encoded = (
        cosine(deployed(code="spike", response=r)(network, x, y).gradient, exact)
        for r in ("smooth", "encoded")
    )
    assert smooth > 0.98
    assert 0.1 < encoded < smooth


def test_in_floating_point_both_responses_agree() -> None:
    network, x, y = problem(1)
    settings: dict[str, Any] = {"bits": None, "steps": 800, "beta": 0.01, "nudged": TIGHT}
    smooth, encoded = (
        deployed(response=r, **settings)(network, x, y).gradient for r in ("smooth", "encoded")
    )
    assert cosine(smooth, encoded) > 0.999


def test_the_phases_are_reported_in_real_units() -> None:
    network, x, y = problem(2)
    found = deployed(bits=None, steps=400)(network, x, y)
    expected = settle(Landscape(network, x), Schedule(sweeps=500, tolerance=1e-7))
    assert found.free.settled
    assert found.free.sweeps == 400
    for p, z in expected.state.items():
        torch.testing.assert_close(found.free.state[p], z, atol=1e-5, rtol=0)
    assert found.nudged is not None
    output = network.spec.output
    assert found.nudged.state[output].shape == (2 * len(x), *network.spec.shapes[output])


# --- the training ------------------------------------------------------------------------------


def fine_tuned(code: str, start: Path | None, **changes: Any) -> TrainConfig:
    estimator = {"kind": "deployed", "code": code, "bits": 2, "steps": 24}
    estimator |= changes.pop("how", {})
    return config(
        network=BOXED,
        start=None if start is None else str(start),
        estimator=estimator,
        **{"average": 0.0, **changes},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: the clusters learned in floating point."""
    place = tmp_path_factory.mktemp("float") / "run"
    train(config(network=BOXED, epochs=12), place, dataset=clusters())
    return place


@pytest.mark.parametrize("code", CODES)
def test_fine_tuning_lowers_the_deployed_loss(code: str, trained: Path) -> None:
    result = train(fine_tuned(code, trained, epochs=6), dataset=clusters())
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    assert result.test.accuracy == 1


def test_training_begins_with_the_weights_of_start(trained: Path) -> None:
    chosen = config(start=str(trained), network=BOXED)
    begun = chosen.begin()
    best = load_model(trained / "best")
    assert same(begun.network, best.network)
    assert begun.metadata == {"start.sha256": best.digest}
    assert not same(Network(chosen.spec(), chosen.seed), best.network)


def test_the_network_may_be_left_to_start(trained: Path) -> None:
    named = build_config({"start": str(trained)})
    assert named.spec() == load_model(trained / "best").network.spec
    assert named.spec() == build_config({"start": str(trained / "last")}).spec()


def test_a_fine_tuned_model_says_what_for_and_from_what(trained: Path, tmp_path: Path) -> None:
    train(fine_tuned("spike", trained, epochs=1), tmp_path / "run", dataset=clusters())
    notes = load_model(tmp_path / "run" / "best").metadata
    assert notes["start.sha256"] == load_model(trained / "best").digest
    assert notes["estimator"] == "deployed"
    assert notes["deployed"] == {"code": "spike", "bits": 2, "steps": 24, "leak": None}


def test_fine_tuning_on_a_hard_reset_is_compiled_with_one(trained: Path) -> None:
    chosen = fine_tuned("spike", trained, epochs=1, how={"reset": "hard"})
    result = train(chosen, dataset=clusters())
    program = compilers.compile(result.model, target="reference")
    assert {p.dynamics.reset for p in program.graph.neurons} == {"hard"}
    with targets.open(program) as session:
        outputs = session.settle(clusters().test.x).phases["free"].outputs
    np.testing.assert_allclose(result.test.outputs, outputs, atol=1e-12)


@pytest.mark.parametrize("code", CODES)
def test_the_compiled_model_answers_as_training_evaluated_it(code: str, trained: Path) -> None:
    result = train(fine_tuned(code, trained, epochs=1), dataset=clusters(noise=0.6))
    program = compilers.compile(
        result.model.network, target="reference", code=code, bits=2, steps=24
    )
    with targets.open(program) as session:
        outputs = session.settle(clusters(noise=0.6).test.x).phases["free"].outputs
    np.testing.assert_allclose(result.test.outputs, outputs, atol=1e-12)


def test_validation_sees_the_deployed_network(trained: Path) -> None:
    chosen = fine_tuned("graded", trained, epochs=1)
    result = train(chosen, dataset=clusters(noise=0.6))
    network, data = result.model.network, clusters(noise=0.6)
    assert isinstance(chosen.estimator, Deployed)
    found = evaluate(network, data.test, chosen.evaluation, deployed=chosen.estimator)
    assert np.array_equal(found.outputs, result.test.outputs)
    rate = evaluate(network, data.test, chosen.evaluation)
    assert not np.allclose(rate.outputs, found.outputs, atol=1e-3)


def test_an_interrupted_fine_tuning_resumes_to_the_same_end(trained: Path, tmp_path: Path) -> None:
    def until(epoch: int) -> TrainResult:
        def monitor(done: int, total: int, latest: dict[str, float]) -> None:
            if latest["epoch"] > epoch:
                raise KeyboardInterrupt

        return train(chosen, tmp_path / "run", dataset=clusters(), resume=True, monitor=monitor)

    chosen = fine_tuned("graded", trained, epochs=3)
    whole = train(chosen, dataset=clusters())
    with pytest.raises(KeyboardInterrupt):
        until(1)
    resumed = until(3)
    assert learned(resumed) == learned(whole)
    assert same(resumed.model.network, whole.model.network)


# --- wrong configurations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"estimator": {"kind": "deployed", "code": "rate"}}, ["estimator.code = rate", "'spike'"]),
        ({"estimator": {"kind": "deployed", "reset": "hard"}}, ["graded neurons do not reset"]),
        ({"estimator": {"kind": "deployed", "bits": 1}}, ["estimator.bits = 1", "equal to 2"]),
        ({"estimator": {"kind": "deployed", "sweeps": 9}}, ["unknown key 'estimator.sweeps'"]),
        (
            {"network": NETWORK, "estimator": {"kind": "deployed", "code": "spike"}},
            ["population 'output': it is linear"],
        ),
        (
            {"network": "zoo:vgg5", "estimator": {"kind": "deployed"}},
            ["a max-pool is not linear", "pool: avg"],
        ),
        (
            {"estimator": {"kind": "deployed"}, "carry_states": True},
            ["carry_states: true", "every sample at rest"],
        ),
        (
            {"estimator": {"kind": "deployed"}, "on_unsettled": "more-sweeps"},
            ["on_unsettled: more-sweeps", "64 steps"],
        ),
        (
            {
                "network": {**NETWORK, "cost": "cross-entropy"},
                "estimator": {"kind": "deployed", "response": "encoded"},
            },
            ["network 'tiny'", "a target nudges its output by beta (y - z)", "response: smooth"],
        ),
        ({"start": "/none"}, ["start: /none", "no spec.yaml", "`ep-neuro train` wrote"]),
        ({"network": None}, ["network: is missing", "or give start"]),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(EPNeuroError) as caught:
        build_config({"network": BOXED, **change}, where="c.yaml")
    text = str(caught.value)
    assert text.startswith("c.yaml: ")
    assert "\n" not in text
    assert all(part in text for part in parts), text


def test_a_start_of_another_network_is_refused_with_what_differs(tmp_path: Path) -> None:
    place = save_model(Model(Network(random_residual_spec(0))), tmp_path / "other")
    with pytest.raises(ConfigError, match=r"start: .*other: its input differ.* network 'tiny'"):
        build_config({"network": BOXED, "start": str(place)})


def test_a_start_may_have_had_other_initial_gains(trained: Path) -> None:
    couplings = [{**c, "gain": 0.1} for c in BOXED["couplings"]]
    build_config({"network": {**BOXED, "couplings": couplings}, "start": str(trained)})
