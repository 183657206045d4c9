"""Claims about the deployed dynamics in torch: they are what the reference target computes."""

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
from compilers.ir.graph import FixedPoint, SigmaDelta, Spiking
from compilers.passes.choose_leak import LeakWarning
from compilers.passes.quantize import quantize
from ep_neuro.deployment import dynamics as deployed
from ep_neuro.deployment.dynamics import Circuit, Deployment, Snapshot
from ep_neuro.deployment.lowering import lower
from ep_neuro.deployment.thresholds import ThresholdSchedule
from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError, DataError, GraphError
from ep_neuro.network.network import Network
from targets.interface.protocols import PhaseResult
from tests.helpers.graphs import random_residual_spec, samples
from tests.helpers.problems import chain, pooled, smooth_chain

CODES = ["graded", "sigma-delta", "spike"]
BETA, STEPS = 0.3, 14
ONE = 1 << deployed.STATE_FRAC


def random_network(spec: NetworkSpec, seed: int) -> Network:
    """`spec` with random weights and biases."""
    network = Network(spec, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for bias in network.biases.values():
            bias.copy_(0.1 + 0.2 * torch.randn(bias.shape, generator=generator))
    return network


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


def torch_phases(
    network: Network, how: Deployment, x: np.ndarray, y: np.ndarray
) -> tuple[Circuit, dict[str, Snapshot]]:
    """The same phases in torch, float64."""
    labels = one_hot(torch.from_numpy(y), network.spec.target_shape, torch.float64)
    with torch.no_grad():
        circuit = Circuit(network, torch.from_numpy(x), how, torch.float64)
        ends = {"free": circuit.run(circuit.rest(), how.steps)}
        for name, beta in (("nudged+", BETA), ("nudged-", -BETA)):
            nudge = (torch.tensor(beta, dtype=torch.float64), circuit.units(labels))
            ends[name] = circuit.run(ends["free"], how.steps // 2, nudge)
    return circuit, ends


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
    expected = compiled_phases(network, how, x, y, parameters)
    circuit, ends = torch_phases(network, how, x, y)
    one = 1 if how.bits is None else ONE
    worst = 0.0
    for phase, end in ends.items():
        outputs = circuit.real(end.read)[network.spec.output].numpy()
        worst = max(worst, float(np.abs(outputs - expected[phase].outputs).max()))
        for p, neurons in end.neurons.items():
            last = expected[phase].probes[f"{p}.v"][-1]
            worst = max(worst, float(np.abs(one * neurons.v.numpy() - last).max()))
    return worst


# --- the law: torch computes what the target computes ------------------------------------------


@pytest.mark.parametrize("code", CODES)
@given(seed=st.integers(0, 10**4), bits=st.sampled_from([2, 3, 4, 5, 8]))
@settings(max_examples=8)
def test_every_bit_is_that_of_the_integer_reference_in_every_phase(
    code: str, seed: int, bits: int
) -> None:
    network = random_network(random_residual_spec(seed), seed)
    how = Deployment.model_validate({"code": code, "bits": bits, "steps": STEPS})
    assert deviation(network, how, seed) == 0


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
    _, ends = torch_phases(network, how, *samples(spec, 3))
    top = 2 ** (deployed.STATE_BITS - deployed.STATE_FRAC - 1)
    assert float(ends["free"].neurons["h"].v.max()) == top - 1 / ONE


@pytest.mark.parametrize("weight", [0.3, 5.0])
def test_a_strong_coupling_lowers_the_leak_as_in_the_compiler(weight: float) -> None:
    network = random_network(random_residual_spec(1), 1)
    with torch.no_grad():
        for parameter in network.weights.values():
            parameter *= weight
    how = Deployment(bits=4, steps=STEPS)
    assert (lower(network, 4, 0.8).leak < 0.7) == (weight > 1)
    assert deviation(network, how) == 0


def test_float32_stays_within_a_message_of_the_exact_states() -> None:
    spec = random_residual_spec(3)
    network, (x, _) = random_network(spec, 3), samples(spec, 4)
    how = Deployment(bits=8, steps=60)
    exact = how.settle(network, torch.from_numpy(x)).state
    with torch.no_grad():
        circuit = Circuit(network, torch.from_numpy(x), how, torch.float32)
        fast = circuit.real(circuit.run(circuit.rest(), 60).read)
    for p, z in exact.items():
        height = circuit.lowered.units[p][1]
        assert float((fast[p] - z).abs().max()) <= 2 * height / (1 << deployed.MESSAGE_FRAC)


def test_defaults_are_those_of_the_compiler() -> None:
    fall, dynamics = ThresholdSchedule(), SigmaDelta()
    assert (fall.start, fall.end, fall.decay) == (dynamics.start, dynamics.end, dynamics.decay)
    assert Deployment(precision=None).fall == fall
    assert Deployment().fall is None
    assert Deployment(end=0.02).fall == ThresholdSchedule(end=0.02)
    assert Spiking().bound == deployed.BOUND
    assert quantize.__defaults__ is not None
    formats = quantize.__defaults__[1:3]
    expected = FixedPoint(deployed.STATE_BITS, deployed.STATE_FRAC), deployed.MESSAGE_FRAC
    assert formats == expected


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
