"""What every target must do. A new backend is discovered and held to this with no change here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import targets
from compilers import Program, load_program, parse_graph, print_graph, save_program
from compilers.ir.graph import Graph, Spiking
from compilers.passes.encode import with_spiking
from ep_neuro.energy.spec import INPUT, NetworkSpec
from ep_neuro.errors import EPNeuroError, TargetError
from ep_neuro.network.architectures import digits_dense, digits_residual
from targets.interface.protocols import Backend, Feature, RunResult
from targets.interface.session import Session
from targets.interface.unavailable import UnavailableBackend
from tests.conformance.cases import HALF, QUICK, Case, cases, every_probe
from tests.helpers.graphs import (
    graph_of,
    random_residual_spec,
    samples,
    standardised_in_units,
)
from tests.helpers.oracle import Sample, unrolled

Data = tuple[np.ndarray, np.ndarray]

TELLING = [digits_dense(), standardised_in_units(), random_residual_spec(4)]
"""Without a convolution; in units; and with two blocks, strides that leave rows unused, and skips
that no kernel fits."""

FURTHER = [digits_residual(), *map(random_residual_spec, (0, 1, 2, 3, 5))]

ROUNDING = 1e-9
"""BLAS sums in another order where arrays lie elsewhere in memory; integers differ by 1 or not."""


def assert_same(a: RunResult, b: RunResult, tolerance: float = ROUNDING) -> None:
    """Outputs, probes and counts of all phases are equal."""
    assert list(a.phases) == list(b.phases)
    for name, phase in a.phases.items():
        other = b.phases[name]
        np.testing.assert_allclose(phase.outputs, other.outputs, rtol=0, atol=tolerance)
        assert phase.probes.keys() == other.probes.keys()
        for probe, values in phase.probes.items():
            np.testing.assert_allclose(values, other.probes[probe], rtol=0, atol=tolerance)
        for mine, theirs in ((phase.events, other.events), (phase.synops, other.synops)):
            assert mine.keys() == theirs.keys()
            for population in mine:
                np.testing.assert_array_equal(mine[population], theirs[population])


# --- discovery ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", targets.backends(), ids=lambda b: b.name)
def test_every_target_of_the_project_loads_and_declares_itself(backend: Backend) -> None:
    assert not isinstance(backend, UnavailableBackend), backend.available().reason
    assert isinstance(backend, Backend)
    assert backend.summary
    assert backend.tolerance >= 0
    assert all(reason.strip() for reason in backend.unsupported.values())
    state = backend.available()
    assert state.available or state.reason
    for name, quantity in backend.limits({}).limits.items():
        assert quantity.source, name


@pytest.mark.parametrize("absent", [c for c in cases() if c.lacking], ids=str)
def test_what_cannot_run_here_has_its_reason(absent: Case) -> None:
    pytest.skip(absent.lacking)


# --- the same numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("network", TELLING, ids=lambda s: s.name)
def test_states_equal_the_reference_at_every_step(case: Case, network: NetworkSpec) -> None:
    case.need(Feature.PROBES, Feature.NUDGED_PHASE)
    graph = case.compile(network, steps=12, seed=3).graph
    x, y = samples(network, 2, seed=4)
    mine = case.run(graph, x, y)
    if case.is_the_reference:
        _assert_equals_the_oracle(graph, mine, x, y)
    else:
        reference = replace(case, backend=targets.get("reference"), options={})
        assert_same(mine, reference.run(graph, x, y), case.backend.tolerance)


@pytest.mark.by_turns
@pytest.mark.parametrize("network", FURTHER, ids=lambda s: s.name)
def test_so_do_those_of_further_networks(case: Case, network: NetworkSpec) -> None:
    test_states_equal_the_reference_at_every_step(case, network)


def _assert_equals_the_oracle(
    graph: Graph, result: RunResult, x: np.ndarray, y: np.ndarray
) -> None:
    tolerance = 0.0 if graph.quantised else ROUNDING
    one_hot = np.eye(graph.population(graph.output).size)[y]
    for n in range(len(x)):
        for name, steps, output in Sample(graph, x[n], one_hot[n]).phases():
            phase = result.phases[name]
            np.testing.assert_allclose(phase.outputs[n].ravel(), output, rtol=0, atol=ROUNDING)
            for probe, values in phase.probes.items():
                plain = np.stack([step[probe] for step in steps])
                seen = values[:, n].reshape(plain.shape)
                np.testing.assert_allclose(seen, plain, rtol=0, atol=tolerance, err_msg=probe)


def test_outputs_are_the_readout_of_the_states(program: Program, result: RunResult) -> None:
    output = program.graph.population(program.graph.output)
    for name, phase in result.phases.items():
        if isinstance(output.dynamics, Spiking):
            counted = phase.probes[f"{output.name}.message"]
            if program.graph.phase(name).start is None:
                counted = counted[len(counted) // 2 :]
            weights = [min(i + 1, len(counted) - i) for i in range(len(counted))]
            shown = np.average(counted, 0, weights)
        else:
            shown = phase.probes[f"{output.name}.z"][-1]
            shown = shown / output.message.one if output.message else shown
        real = output.readout.offset + output.readout.gain * shown
        np.testing.assert_allclose(phase.outputs, real, rtol=0, atol=ROUNDING)


@pytest.mark.by_turns
def test_printing_and_parsing_give_the_same_program(case: Case, program: Program) -> None:
    parsed = parse_graph(print_graph(program.graph), program.graph.arrays)
    assert case.backend.emit(parsed).digest() == case.backend.emit(program.graph).digest()


@pytest.mark.by_turns
def test_a_saved_program_computes_the_same(
    program: Program, result: RunResult, data: Data, tmp_path: Path
) -> None:
    save_program(program, tmp_path / "program")
    loaded = load_program(tmp_path / "program")
    assert loaded.digest() == program.digest()
    with targets.open(loaded) as session:
        again = session.settle(*data, probes=every_probe(loaded.graph))
    assert_same(again, result)


def test_a_run_leaves_no_trace_in_the_next(
    session: Session, program: Program, result: RunResult, data: Data
) -> None:
    x, y = data
    session.settle(1 - x[:3], (y[:3] + 1) % y.max())
    assert_same(session.settle(x, y, probes=every_probe(program.graph)), result)


def test_samples_do_not_see_each_other(session: Session, result: RunResult, data: Data) -> None:
    x, y = data
    order = np.array([3, 0, 4])
    part = session.settle(x[order], y[order])
    for name, phase in part.phases.items():
        whole = result.phases[name]
        np.testing.assert_allclose(phase.outputs, whole.outputs[order], rtol=0, atol=ROUNDING)
        for population, events in phase.events.items():
            np.testing.assert_array_equal(events, whole.events[population][:, order])


# --- phases ------------------------------------------------------------------------------------


@pytest.mark.by_turns
def test_without_targets_only_the_free_phase_runs(
    session: Session, program: Program, result: RunResult, data: Data
) -> None:
    free = session.settle(data[0])
    assert list(free.phases) == [program.graph.phases[0].name]
    assert list(result.phases) == [p.name for p in program.graph.phases]
    np.testing.assert_allclose(free.free.outputs, result.free.outputs, rtol=0, atol=ROUNDING)


def test_a_phase_without_a_nudge_goes_on_where_the_free_phase_ended(detour: RunResult) -> None:
    """Membranes, messages in flight, accumulated changes and the threshold's step all carry on."""
    free, more, whole = (detour.phases[name] for name in ("free", "more", "whole"))
    for probe, values in whole.probes.items():
        joined = np.concatenate([free.probes[probe], more.probes[probe]])
        np.testing.assert_allclose(joined, values, rtol=0, atol=ROUNDING, err_msg=probe)
    for name in set(whole.events) - {INPUT}:
        joined = np.concatenate([free.events[name], more.events[name]])
        np.testing.assert_array_equal(joined, whole.events[name], err_msg=name)


def test_a_phase_without_a_start_repeats_the_free_phase_from_rest(detour: RunResult) -> None:
    for probe, values in detour.free.probes.items():
        again = detour.phases["whole"].probes[probe][:HALF]
        np.testing.assert_allclose(again, values, rtol=0, atol=ROUNDING, err_msg=probe)


def test_each_nudged_phase_restarts_from_the_free_state(
    session: Session, program: Program, detour: RunResult, data: Data
) -> None:
    """What ran between the free phase and the negative one leaves no trace in the latter."""
    after_plus = session.settle(*data, steps=HALF, probes=every_probe(program.graph))
    *_, minus = after_plus.phases.values()
    for probe, values in detour.phases["minus"].probes.items():
        np.testing.assert_allclose(minus.probes[probe], values, rtol=0, atol=ROUNDING)


def test_nudging_moves_outputs_towards_the_target_and_away(
    program: Program, longest: RunResult, data: Data
) -> None:
    target = np.eye(program.graph.population(program.graph.output).size)[data[1]]
    free, plus, minus = (
        float(np.square(phase.outputs.reshape(target.shape) - target).sum(1).mean())
        for phase in longest.phases.values()
    )
    assert plus < free < minus


@pytest.mark.by_turns
def test_labels_and_one_hot_targets_mean_the_same(session: Session, data: Data) -> None:
    x, y = data
    classes = session.settle(x).free.outputs.reshape(len(x), -1).shape[1]
    assert_same(session.settle(x, np.eye(classes)[y]), session.settle(x, y))


# --- what is recorded --------------------------------------------------------------------------


@pytest.mark.by_turns
def test_probes_have_one_value_a_step_a_sample_a_neuron(
    program: Program, result: RunResult, data: Data
) -> None:
    for phase in program.graph.phases:
        probes = result.phases[phase.name].probes
        assert set(probes) == set(every_probe(program.graph))
        for name, values in probes.items():
            population = program.graph.population(name.split(".")[0])
            assert values.shape == (phase.steps, len(data[0]), *population.shape)
            assert np.issubdtype(values.dtype, np.integer) == program.graph.quantised or (
                program.graph.quantised and np.array_equal(values, np.rint(values))
            )


@pytest.mark.by_turns
def test_steps_replaces_the_length_of_each_phase(session: Session, data: Data) -> None:
    for phase in session.settle(*data, steps=3).phases.values():
        assert all(len(counts) == 3 for counts in phase.events.values())


def test_events_are_the_messages_that_are_not_zero(
    program: Program, result: RunResult, data: Data
) -> None:
    names = {p.name for p in program.graph.populations}
    for phase in result.phases.values():
        assert set(phase.events) == set(phase.synops) == names
        for population in program.graph.neurons:
            messages = phase.probes[f"{population.name}.message"]
            sent = np.count_nonzero(messages.reshape(*messages.shape[:2], -1), axis=2)
            np.testing.assert_array_equal(phase.events[population.name], sent)
    assert sum(events.sum() for events in result.free.events.values()) > 0


def test_the_input_speaks_once(result: RunResult, data: Data) -> None:
    expected = np.zeros_like(result.free.events[INPUT])
    expected[0] = np.count_nonzero(data[0].reshape(len(data[0]), -1), axis=1)
    np.testing.assert_array_equal(result.free.events[INPUT], expected)
    for phase in list(result.phases.values())[1:]:
        assert not phase.events[INPUT].any()
        assert not phase.synops[INPUT].any()


def test_synaptic_operations_are_messages_times_their_synapses(
    program: Program, result: RunResult, data: Data
) -> None:
    graph = program.graph
    ones = replace(graph, arrays={k: np.ones_like(a) for k, a in graph.arrays.items()})
    for population in graph.populations:
        synapses = sum(unrolled(ones, p).sum(0) for p in graph.out_of(population.name))
        if population.name == INPUT:
            spoken = (data[0] != 0).reshape(1, len(data[0]), -1)
            silence = np.zeros((graph.phases[0].steps - 1, *spoken.shape[1:]), bool)
            sent = np.concatenate([spoken, silence])
        else:
            messages = result.free.probes[f"{population.name}.message"]
            sent = messages.reshape(*messages.shape[:2], -1) != 0
        np.testing.assert_array_equal(result.free.synops[population.name], sent @ synapses)


def test_saturations_are_counted_in_integers_only(program: Program, result: RunResult) -> None:
    names = {p.name for p in program.graph.populations} if program.graph.quantised else set()
    assert all(set(phase.saturations) == names for phase in result.phases.values())


@pytest.mark.by_turns
def test_progress_ends_with_all_samples(session: Session, data: Data) -> None:
    seen: list[tuple[int, int]] = []
    session.settle(data[0], progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (len(data[0]), len(data[0]))
    assert seen == sorted(seen)


@pytest.mark.by_turns
def test_weights_are_those_of_the_graph(session: Session, program: Program) -> None:
    weights = session.weights()
    assert set(weights) == set(program.graph.ties)
    for name, values in weights.items():
        np.testing.assert_allclose(values, program.graph.arrays[name], rtol=0, atol=1e-6)


@pytest.mark.by_turns
def test_an_estimate_is_positive_and_names_its_source(
    case: Case, program: Program, result: RunResult
) -> None:
    cost = case.backend.estimate(program, result)
    assert 0 < cost.energy_joule < np.inf
    assert 0 < cost.seconds < np.inf
    assert cost.source


@pytest.mark.parametrize("backend", targets.backends(), ids=lambda b: b.name)
def test_a_hard_reset_is_computed_or_refused_in_one_line(backend: Backend) -> None:
    case = Case(backend, "spike", None)
    if case.lacking or Feature.PROBES in backend.unsupported:
        pytest.skip(case.lacking or f"{backend.name} shows no states")
    compiled = case.compile(random_residual_spec(1)).graph
    case = replace(case, options=QUICK.get(backend.name, {}))
    graph, data = with_spiking(compiled, reset="hard"), samples(random_residual_spec(1), 2, seed=7)
    if refused := [str(v) for v in backend.check(graph)]:
        assert any("hard reset" in said and "\n" not in said for said in refused)
        return
    reference = Case(targets.get("reference"), "spike", None)
    assert_same(case.run(graph, *data), reference.run(graph, *data), backend.tolerance)


# --- limits and ends ---------------------------------------------------------------------------


@pytest.mark.by_turns
def test_checking_finds_nothing_wrong_here_and_changes_nothing(
    case: Case, program: Program
) -> None:
    before = program.graph.digest()
    assert list(case.backend.check(program.graph)) == []
    assert program.graph.digest() == before


@pytest.mark.by_turns
def test_closing_twice_is_harmless_and_a_closed_session_says_so(
    case: Case, program: Program, data: Data
) -> None:
    session = case.backend.open(program)
    session.close()
    session.close()
    with pytest.raises(EPNeuroError, match="closed"):
        session.settle(data[0])


@pytest.mark.by_turns
def test_bad_input_is_refused_in_one_line(session: Session, data: Data) -> None:
    x, y = data
    holes = x.copy()
    holes.flat[0] = np.nan
    bad: dict[str, dict[str, Any]] = {
        "shape of x": dict(x=x[:, :, :-1]),
        "no samples": dict(x=x[:0]),
        "NaN in x": dict(x=holes),
        "text": dict(x=np.full(x.shape, "1")),
        "too few labels": dict(x=x, y=y[:-1]),
        "label out of range": dict(x=x, y=y + 1000),
        "negative label": dict(x=x, y=y - 1000),
        "half a label": dict(x=x, y=y + 0.5),
        "shape of y": dict(x=x, y=np.zeros((len(x), 1000))),
        "unknown probe": dict(x=x, probes=["out.w"]),
        "unknown population": dict(x=x, probes=["nowhere.v"]),
        "no steps": dict(x=x, steps=0),
    }
    for what, arguments in bad.items():
        with pytest.raises(EPNeuroError) as caught:
            session.settle(**arguments)
        assert "\n" not in str(caught.value), what
    session.settle(x)


@pytest.mark.parametrize("backend", targets.backends(), ids=lambda b: b.name)
def test_a_feature_that_is_lacking_is_refused_with_its_reason(backend: Backend) -> None:
    lacking = {
        Feature.FIXED_POINT: graph_of(random_residual_spec(0), bits=8),
        Feature.GRADED: graph_of(random_residual_spec(0), "graded"),
        Feature.SIGMA_DELTA: graph_of(random_residual_spec(0), "sigma-delta"),
        Feature.SPIKE: graph_of(random_residual_spec(0), "spike"),
    }
    for feature, graph in lacking.items():
        if feature in backend.unsupported and backend.available().available:
            with pytest.raises(TargetError) as caught:
                backend.open(Program(backend.name, graph))
            assert "\n" not in str(caught.value)
