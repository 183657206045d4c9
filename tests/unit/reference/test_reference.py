"""The reference target: hand-made networks with known answers, and the laws of its arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import targets
from compilers import compile_network
from compilers.hardware.resources import bytes_per_sample
from compilers.ir import graph as ir
from compilers.ir.dynamics import RESETS, Reset
from compilers.ir.integers import nearest, shift
from compilers.passes.encode import with_spiking
from ep_neuro.errors import GraphError, RunError, TargetError
from ep_neuro.network.architectures import digits_dense, digits_residual
from ep_neuro.network.network import Landscape, Network
from targets.interface import graph_simulator
from targets.interface.protocols import RunResult
from tests.helpers.graphs import (
    DYNAMICS,
    graph_of,
    random_residual_spec,
    samples,
)
from tests.helpers.oracle import Sample

REFERENCE = targets.get("reference")
STATE, MESSAGE = ir.FixedPoint(24, 16), ir.FixedPoint(16, 8)


def run(graph: ir.Graph, x: np.ndarray, y: np.ndarray | None = None, **how: Any) -> RunResult:
    with REFERENCE.open(REFERENCE.emit(graph)) as session:
        return session.settle(x, y, **how)


def one_neuron(
    dynamics: ir.Dynamics,
    *,
    steps: int,
    box: tuple[float, float] | None = (0.0, 1.0),
    integer: bool = False,
    bias: int | None = None,
) -> ir.Graph:
    """A neuron that is driven by its input with gain 1."""
    state, message = (STATE, MESSAGE) if integer else (None, None)
    sent = ir.FixedPoint(2, 0) if integer and isinstance(dynamics, ir.Spiking) else message
    arrays = {"w": np.ones((1, 1), np.int32 if integer else np.float32)}
    if bias is not None:
        arrays["b"] = np.array([bias])
    unit = ir.Rescale(1, STATE.frac - MESSAGE.frac) if integer else None
    return ir.Graph(
        name="one",
        populations=(
            ir.Population("input", (1,), ir.Source(), message=message),
            ir.Population(
                "out", (1,), dynamics, box, "b" if bias is not None else None,
                state=state, message=sent,
            ),
        ),
        projections=(ir.Projection("input", "out", ir.Dense(), "w", rescale=unit),),
        phases=(ir.Phase("free", steps),),
        output="out",
        arrays=arrays,
    )  # fmt: skip


# --- known answers -----------------------------------------------------------------------------


def test_a_leaky_integrator_approaches_its_drive_exponentially() -> None:
    x = np.array([[0.8], [-0.5], [3.0]])
    result = run(one_neuron(ir.Graded(leak=0.25), steps=20), x, probes=["out.v", "out.z"])
    t = np.arange(1, 21).reshape(-1, 1, 1)
    expected = x * (1 - 0.75**t)
    np.testing.assert_allclose(result.free.probes["out.v"], expected, atol=1e-12)
    np.testing.assert_allclose(result.free.probes["out.z"], expected.clip(0, 1), atol=1e-12)


def test_a_settled_graph_is_at_the_fixed_point_of_the_energy() -> None:
    """``z = clip(I(z))`` in the real units of the network that it was compiled from."""
    spec = random_residual_spec(2)
    network = Network(spec, seed=1)
    x, _ = samples(spec, 3)
    program = compile_network(network, REFERENCE, steps=300)
    names = [p.name for p in program.graph.neurons]
    with targets.open(program) as session:
        result = session.settle(x, probes=[f"{name}.z" for name in names])
    real = {}
    for name in names:
        readout = program.graph.population(name).readout
        z = result.free.probes[f"{name}.z"][-1]
        real[name] = torch.from_numpy(readout.offset + readout.gain * z)
    with torch.no_grad():
        landscape = Landscape(network.double(), torch.from_numpy(x))
        for name in names:
            there = landscape.clip(name, landscape.drive(real, name))
            torch.testing.assert_close(real[name], there, rtol=0, atol=1e-5)


@given(drive=st.floats(-1, 2), leak=st.sampled_from([0.25, 0.5, 1.0]))
@settings(max_examples=25, deadline=None)
def test_soft_reset_makes_the_rate_the_clipped_drive(drive: float, leak: float) -> None:
    """The membrane stays in [-1, 2], so the mean of T/2 steps is at most 3 / (T/2) away."""
    result = run(one_neuron(ir.Spiking(leak=leak), steps=512), np.array([[drive]]))
    assert abs(result.free.outputs.item() - np.clip(drive, 0, 1)) <= 3 / 256


@given(drive=st.floats(0.01, 2), integer=st.booleans())
@settings(max_examples=20, deadline=None)
def test_hard_reset_forgets_what_a_spike_was_too_large_by(drive: float, integer: bool) -> None:
    """The membrane begins each interval at 0, so that it takes ``ceil(1 / I)`` steps."""
    drive = round(drive * MESSAGE.one) / MESSAGE.one
    graph = one_neuron(ir.Spiking(leak=1.0, reset="hard"), steps=512, integer=integer)
    rate = run(graph, np.array([[drive]])).free.outputs.item()
    assert abs(rate - 1 / np.ceil(1 / drive)) <= 1 / 256


def test_sigma_delta_sends_nothing_once_settled() -> None:
    graph = graph_of(digits_dense(), "sigma-delta", steps=160)
    result = run(graph, samples(digits_dense(), 3)[0])
    for events in result.free.events.values():
        assert not events[-20:].any()
    assert result.events_per_sample > 0


def test_sigma_delta_ends_within_its_threshold_of_what_it_was_told() -> None:
    dynamics = ir.SigmaDelta(leak=0.5, start=0.5, end=0.02, decay=0.9)
    x = np.linspace(0, 1, 21).reshape(-1, 1)
    result = run(one_neuron(dynamics, steps=100), x, probes=["out.message", "out.z"])
    told = result.free.probes["out.message"].sum(0)
    assert np.abs(told - result.free.probes["out.z"][-1]).max() < 0.02


# --- the second reading of the IR --------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000),
    code=st.sampled_from(list(DYNAMICS)),
    bits=st.sampled_from([None, 8, 4]),
    reset=st.sampled_from(RESETS),
)
@settings(max_examples=12, deadline=None)
def test_delays_of_several_steps_are_those_of_the_definition(
    seed: int, code: ir.Encoding, bits: int | None, reset: Reset
) -> None:
    """Of both resets, too."""
    spec = random_residual_spec(seed)
    graph = with_spiking(
        graph_of(spec, code, seed=seed, steps=6, bits=bits, delays=True), reset=reset
    )
    x, y = samples(spec, 1, seed)
    probes = [f"{p.name}.{v}" for p in graph.neurons for v in ("v", "message")]
    result = run(graph, x, y, probes=probes)
    for phase, steps, _ in Sample(graph, x[0], np.eye(spec.classes)[y[0]]).phases():
        for probe in probes:
            seen = result.phases[phase].probes[probe].reshape(len(steps), -1)
            plain = np.stack([step[probe] for step in steps])
            np.testing.assert_allclose(seen, plain, rtol=0, atol=0 if bits else 1e-12)


# --- integers ----------------------------------------------------------------------------------


@given(drive=st.integers(-300, 300), leak=st.integers(64, 4096))
@settings(max_examples=25, deadline=None)
def test_the_carried_remainder_takes_the_membrane_all_the_way_to_its_drive(
    drive: int, leak: int
) -> None:
    """Without it, a leak of A / 4096 would stop up to 4096 / A units of 2**-16 short."""
    steps = 16 * 4096 // leak + 16
    graph = one_neuron(ir.Graded(leak=leak / 4096), steps=steps, box=None, integer=True)
    v = run(graph, np.array([[drive / MESSAGE.one]]), probes=["out.v"]).free.probes["out.v"]
    distance = np.abs(v.ravel() - (drive << (STATE.frac - MESSAGE.frac)))
    assert (np.diff(distance) <= 0).all()
    assert distance[-1] == 0


@pytest.mark.parametrize("code", DYNAMICS)
def test_eight_bits_stay_near_floating_point(code: ir.Encoding) -> None:
    network = Network(digits_residual())
    x, _ = samples(network.spec, 4)
    real, integer = (
        run(compile_network(network, REFERENCE, code=code, bits=bits, steps=64).graph, x)
        for bits in (None, 8)
    )
    # A spike more or less in the last 32 steps moves an output of height 2 by 1/16.
    limit = 2 / 16 if code == "spike" else 0.05
    assert np.abs(integer.free.outputs - real.free.outputs).max() <= limit


def test_values_that_meet_the_end_of_their_format_are_counted() -> None:
    graph = one_neuron(ir.Graded(), steps=5, box=None, integer=True, bias=STATE.range[1] + 1)
    result = run(graph, np.array([[0.0], [200.0]]), probes=["out.v", "out.z"])
    assert (result.free.probes["out.v"] == STATE.range[1]).all()
    # 128 does not fit 16 bits with 8 behind the point, so each step saturates membrane and
    # message of both samples; 200 does not fit the message of the input either.
    assert result.free.saturations == {"input": 1, "out": 2 * 2 * 5}
    assert (result.free.probes["out.z"] == MESSAGE.range[1]).all()


def test_saturations_are_those_of_one_phase_of_one_run() -> None:
    graph = one_neuron(ir.Graded(), steps=5, box=None, integer=True, bias=STATE.range[1] + 1)
    graph = replace(graph, phases=(ir.Phase("free", 5), ir.Phase("more", 5, start="free")))
    x, y = np.array([[200.0]]), np.zeros((1, 1))
    with REFERENCE.open(REFERENCE.emit(graph)) as session:
        for _ in range(2):
            free, more = session.settle(x, y).phases.values()
            assert free.saturations == {"input": 1, "out": 10}
            assert more.saturations == {"input": 0, "out": 10}


@pytest.mark.parametrize("bits", [-63, -64, -128, -1000])
def test_a_shift_beyond_the_word_leaves_nothing(bits: int) -> None:
    assert shift(np.array([2**61, -(2**61)]), bits).tolist() == [0, 0]


@given(value=st.integers(-(2**40), 2**40), bits=st.integers(-20, 20))
def test_shifts_to_the_right_round_to_nearest(value: int, bits: int) -> None:
    shifted = int(shift(np.array([value]), bits)[0])
    assert abs(shifted - value * 2.0**bits) <= 0.5
    if bits >= 0:
        assert shifted == value << bits


@given(st.integers(-1000, 1000))
def test_halves_round_up_in_both_roundings(n: int) -> None:
    assert nearest(n + 0.5) == n + 1
    assert shift(np.array([2 * n + 1]), -1)[0] == n + 1


# --- what it refuses ---------------------------------------------------------------------------


def test_every_projection_that_could_overflow_is_a_violation() -> None:
    graph = graph_of(digits_dense(), bits=8)
    assert REFERENCE.check(graph) == ()
    wide = ir.FixedPoint(56, 8)
    populations = tuple(replace(p, message=wide) for p in graph.populations)
    graph = replace(graph, populations=populations)
    violations = REFERENCE.check(graph)
    assert {v.subject.split(",")[0] for v in violations} == {
        f"projection '{p.name}'" for p in graph.projections
    }
    with pytest.raises(TargetError, match="violations in all"):
        REFERENCE.open(REFERENCE.emit(graph))


def test_undirected_couplings_are_refused() -> None:
    graph = one_neuron(ir.Graded(), steps=1)
    graph = replace(
        graph, couplings=(ir.Coupling("input", "out", ir.Dense(), "w"),), projections=()
    )
    with pytest.raises(TargetError, match="expand_couplings"):
        REFERENCE.open(REFERENCE.emit(graph))


def test_integers_without_a_format_are_refused() -> None:
    graph = one_neuron(ir.Graded(), steps=1, integer=True)
    source, out = graph.populations
    broken = replace(graph, populations=(replace(source, message=None), out))
    with pytest.raises(TargetError, match="quantize"):
        REFERENCE.open(REFERENCE.emit(broken))


@pytest.mark.parametrize(
    ("phases", "problem"),
    [
        ((), "it has no phase"),
        ((ir.Phase("a", 2, start="b"), ir.Phase("b", 2)), "does not precede"),
        ((ir.Phase("a", 2), ir.Phase("b", 2, start="c")), "does not precede"),
    ],
)
def test_phases_out_of_order_are_refused(phases: tuple[ir.Phase, ...], problem: str) -> None:
    graph = replace(one_neuron(ir.Graded(), steps=1), phases=phases)
    with pytest.raises(GraphError, match=problem):
        run(graph, np.zeros((1, 1)), np.zeros((1, 1)))


def test_two_inputs_are_refused() -> None:
    graph = one_neuron(ir.Graded(), steps=1)
    graph = replace(
        graph, populations=(*graph.populations, ir.Population("in2", (1,), ir.Source()))
    )
    with pytest.raises(GraphError, match="2 input populations"):
        run(graph, np.zeros((1, 1)))


def test_a_network_that_diverges_is_an_error_and_not_an_answer() -> None:
    graph = one_neuron(ir.Graded(), steps=80, box=None)
    loop = (
        ir.Projection("out", "b", ir.Dense(), "big"),
        ir.Projection("b", "out", ir.Dense(), "big"),
    )
    graph = replace(
        graph,
        populations=(*graph.populations, ir.Population("b", (1,), ir.Graded())),
        projections=(*graph.projections, *loop),
        arrays={**graph.arrays, "big": np.full((1, 1), 1e6, np.float32)},
    )
    with pytest.raises(RunError, match="not finite after 80 steps"):
        run(graph, np.ones((1, 1)))


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", DYNAMICS)
def test_chunks_do_not_change_the_answer(
    code: ir.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = random_residual_spec(5)
    graph = graph_of(spec, code, bits=8)
    x, y = samples(spec, 7)
    probes = [f"{graph.output}.v"]
    whole = run(graph, x, y, probes=probes)
    monkeypatch.setattr(graph_simulator, "CHUNK_BYTES", 3 * bytes_per_sample(graph))
    seen: list[int] = []
    parts = run(graph, x, y, probes=probes, progress=lambda done, of: seen.append(done))
    assert seen == [3, 6, 7]
    for name, phase in whole.phases.items():
        other = parts.phases[name]
        np.testing.assert_array_equal(phase.outputs, other.outputs)
        np.testing.assert_array_equal(phase.probes[probes[0]], other.probes[probes[0]])
        assert phase.saturations == other.saturations
        for population in phase.events:
            np.testing.assert_array_equal(phase.events[population], other.events[population])
            np.testing.assert_array_equal(phase.synops[population], other.synops[population])


def test_more_events_cost_more() -> None:
    spec = digits_dense()
    x, _ = samples(spec, 2)
    costs = []
    for x_now in (np.zeros_like(x), x):
        program = REFERENCE.emit(graph_of(spec, "graded"))
        with REFERENCE.open(program) as session:
            costs.append(REFERENCE.estimate(program, session.settle(x_now)).energy_joule)
    assert costs[0] < costs[1]
