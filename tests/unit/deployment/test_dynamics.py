"""Claims about the deployed dynamics: they are what the reference target computes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import targets
from compilers import compile_network
from compilers.execution.deployed_network import EngineNetwork, compiled
from compilers.execution.maps import outward
from compilers.ir.graph import Spiking
from compilers.passes.choose_leak import LeakWarning
from ep_neuro.deployment.dynamics import Deployment
from ep_neuro.energy.costs import Nudge, one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError, DataError, GraphError
from ep_neuro.network.network import Network
from targets.interface.protocols import PhaseResult
from tests.helpers.graphs import random_residual_spec, samples
from tests.helpers.problems import chain, pooled, random_network, smooth_chain

CODES = ["graded", "sigma-delta", "spike"]
BETA, STEPS = 0.3, 14


def compiled_phases(
    network: Network,
    how: Deployment,
    x: np.ndarray,
    y: np.ndarray,
    parameters: dict[str, Any] | None,
) -> dict[str, PhaseResult]:
    """All phases on the reference target, with the membranes recorded."""
    backend = targets.get("reference")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeakWarning)
        program = compile_network(
            network,
            backend,
            code=how.code,
            bits=how.bits,
            steps=how.steps,
            leak=how.leak,
            beta=BETA,
            parameters=parameters,
        )
    probes = [f"{p.name}.v" for p in network.spec.populations]
    with targets.open(program) as session:
        return dict(session.settle(x, y, probes=probes).phases)


def deployed(network: Network, how: Deployment, x: np.ndarray, y: np.ndarray) -> EngineNetwork:
    """`network` as fine-tuning deploys it, float64."""
    labels = one_hot(torch.from_numpy(y), network.spec.target_shape, torch.float64)
    found = how.deploy(network, torch.from_numpy(x), torch.float64, Nudge(BETA, labels))
    assert isinstance(found, EngineNetwork)
    return found


def membrane(found: EngineNetwork, population: str) -> np.ndarray:
    """Membrane of `population` now, in its last bits where the program is quantised."""
    spikes = isinstance(found.graph.population(population).dynamics, Spiking)
    return outward(found.batch.view("v" if spikes else "plain", population).double())


def deviation(
    network: Network,
    how: Deployment,
    seed: int = 0,
    parameters: dict[str, Any] | None = None,
) -> float:
    """Largest difference of any membrane or output at the end of any phase.

    Membranes of quantised programs count in their last bits.
    """
    x, y = samples(network.spec, 3, seed)
    found, worst = deployed(network, how, x, y), 0.0
    for phase, expected in compiled_phases(network, how, x, y, parameters).items():
        outputs = found.run(phase).state[network.spec.output].numpy()
        worst = max(worst, float(np.abs(outputs - expected.outputs).max()))
        for p in network.spec.populations:
            last = expected.probes[f"{p.name}.v"][-1]
            worst = max(worst, float(np.abs(membrane(found, p.name) - last).max()))
    return worst


# --- the law: fine-tuning sees what the target computes ----------------------------------------


@pytest.mark.parametrize("code", CODES)
@given(seed=st.integers(0, 10**4), bits=st.sampled_from([2, 3, 4, 5, 8]))
@settings(max_examples=8)
def test_every_bit_is_that_of_the_integer_reference_in_every_phase(
    code: str, seed: int, bits: int
) -> None:
    network = random_network(random_residual_spec(seed), seed)
    how = Deployment.model_validate({"code": code, "bits": bits, "steps": STEPS})
    assert deviation(network, how, seed) == 0


@given(seed=st.integers(0, 10**4), bits=st.sampled_from([None, 4]))
@settings(max_examples=5)
def test_a_hard_reset_is_deployed_as_it_is_compiled(seed: int, bits: int | None) -> None:
    network = random_network(random_residual_spec(seed), seed)
    how = Deployment(code="spike", bits=bits, steps=STEPS, reset="hard")
    assert deviation(network, how, seed, {"reset": "hard"}) < 1e-9


@pytest.mark.parametrize("code", CODES)
@given(seed=st.integers(0, 10**4))
@example(seed=9548)  # A bias half way between two numbers of float32.
@settings(max_examples=5)
def test_without_bits_the_states_are_those_of_the_float_reference(code: str, seed: int) -> None:
    network = random_network(random_residual_spec(seed), seed)
    how = Deployment.model_validate({"code": code, "bits": None, "steps": STEPS})
    assert deviation(network, how, seed) < 1e-9


def test_thresholds_of_logits_are_those_of_the_compiler_too() -> None:
    spec = random_residual_spec(4).model_copy(update={"cost": "cross-entropy"})
    network = random_network(spec, 4)
    x, _ = samples(spec, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeakWarning)
        program = compile_network(network, "reference", code="sigma-delta", bits=8, steps=STEPS)
    with targets.open(program) as session:
        expected = session.settle(x).phases["free"].outputs
    how = Deployment(code="sigma-delta", steps=STEPS)
    found = how.settle(network, torch.from_numpy(x)).state[spec.output].numpy()
    assert np.array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("change", [{"precision": None}, {"end": 0.05}, {"precision": 0.05}])
def test_other_thresholds_are_those_of_the_compiler_too(change: dict[str, Any]) -> None:
    network = random_network(random_residual_spec(4), 4)
    how = Deployment.model_validate({"code": "sigma-delta", "steps": STEPS, **change})
    assert deviation(network, how, parameters=change) == 0
    assert deviation(network, how) > 0


@pytest.mark.parametrize("bits", [None, 3])
def test_an_average_pool_is_part_of_the_kernel_in_both(bits: int | None) -> None:
    network = random_network(pooled("avg"), 0)
    assert deviation(network, Deployment(bits=bits, steps=STEPS)) < 1e-9


@pytest.mark.parametrize("code", ["graded", "sigma-delta"])
def test_linear_populations_saturate_at_the_format_in_both(code: str) -> None:
    spec = chain(box=None)
    network = random_network(spec, 0)
    with torch.no_grad():
        network.weights["input->h"].fill_(60)
    how = Deployment.model_validate({"code": code, "steps": 6})
    assert deviation(network, how) == 0
    found = deployed(network, how, *samples(spec, 3))
    found.run("free")
    state = found.graph.population("h").state
    assert state is not None
    assert membrane(found, "h").max() == state.range[1]


@pytest.mark.parametrize("weight", [0.3, 5.0])
def test_a_strong_coupling_lowers_the_leak_as_in_the_compiler(weight: float) -> None:
    network = random_network(random_residual_spec(1), 1)
    with torch.no_grad():
        for parameter in network.weights.values():
            parameter *= weight
    how = Deployment(bits=4, steps=STEPS)
    leaks = {p.dynamics.leak for p in compiled(network, how).neurons}  # type: ignore[union-attr]
    assert (max(leaks) < 0.7) == (weight > 1)
    assert deviation(network, how) == 0


@pytest.mark.parametrize("code", CODES)
def test_the_energy_of_what_was_compiled_has_the_drive_that_neurons_settle_by(code: str) -> None:
    network = random_network(random_residual_spec(3), 3)
    how = Deployment.model_validate({"code": code, "bits": 2, "steps": 600})
    x, _ = samples(network.spec, 4)
    found = how.settle(network, torch.from_numpy(x))
    assert float(found.residual.max()) < {"graded": 0.004}.get(code, 0.03)


def test_states_in_float32_are_the_exact_ones_rounded_once() -> None:
    network, how = random_network(random_residual_spec(3), 3), Deployment(steps=60)
    x = torch.from_numpy(samples(network.spec, 4)[0])
    exact, fast = how.settle(network, x), how.deploy(network, x, torch.float32).run("free")
    assert all(torch.equal(fast.state[p], z.float()) for p, z in exact.state.items())


# --- what a settled state says -----------------------------------------------------------------


def test_more_steps_bring_the_states_nearer_to_rest() -> None:
    spec = random_residual_spec(2)
    network, (x, _) = random_network(spec, 2), samples(spec, 4)
    short, long = (
        Deployment(bits=None, steps=steps).settle(network, torch.from_numpy(x))
        for steps in (5, 200)
    )
    assert float(long.residual.max()) < 1e-6 < float(short.residual.max())
    assert long.settled
    assert (long.sweeps, short.sweeps) == (200, 5)


# --- what cannot be deployed -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "change", "part"),
    [
        (chain(), {"code": "spike"}, "population 'out': it is linear"),
        (smooth_chain(), {}, "activation sigmoid has no neuron on hardware"),
        (pooled("max"), {}, "a max-pool is not linear"),
        (chain(untied=True), {}, "a weight of its own"),
        (chain(readout=True), {}, "a softmax layer outside the dynamics"),
    ],
)
def test_what_no_chip_computes_is_refused_in_one_line(
    spec: NetworkSpec, change: dict[str, Any], part: str
) -> None:
    with pytest.raises((ConfigError, GraphError)) as caught:
        Deployment.model_validate(change).check_spec(spec)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_of_another_shape_are_refused() -> None:
    network = Network(chain())
    with pytest.raises(DataError, match="the network takes"):
        Deployment().settle(network, torch.zeros(2, 7))
