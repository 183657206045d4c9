"""Public figures of every target against a recount, and that a counter off by one is seen."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

import targets
from compilers import Program
from compilers.passes.make_plastic import make_plastic
from targets.interface.protocols import Feature, RunResult
from tests.conformance.cases import Case, every_probe
from tests.helpers.recount import Figures, change_joule, messages_of, recount, synapses

Data = tuple[np.ndarray, np.ndarray]


def public(case: Case, program: Program, result: RunResult, y: np.ndarray) -> dict[str, float]:
    """The figures that commands print of `result`."""
    cost = case.backend.estimate(program, result)
    assert sum(cost.parts.values()) == pytest.approx(cost.energy_joule, rel=1e-12)
    found = Figures(
        accuracy=result.accuracy(y),
        events=result.events_per_sample,
        synops=result.synops_per_sample,
        energy_joule=cost.energy_joule,
    )
    return comparable(case, found)


def comparable(case: Case, figures: Figures) -> dict[str, float]:
    """Arrays have an energy of their own, which `tests/unit/crossbar` counts."""
    kept = asdict(figures)
    if case.backend.name == "crossbar":
        del kept["energy_joule"]
    return kept


@pytest.fixture(scope="module")
def counted(case: Case, program: Program, result: RunResult, data: Data) -> dict[str, float]:
    """The figures of `result` from its messages and outputs."""
    free = result.free
    found = recount(program.graph, *data, [messages_of(program.graph, free)], free.outputs)
    return pytest.approx(comparable(case, found), rel=1e-12)


@pytest.mark.by_turns
def test_public_figures_are_those_of_a_recount(
    case: Case, program: Program, result: RunResult, data: Data, counted: dict[str, float]
) -> None:
    assert public(case, program, result, data[1]) == counted


@pytest.mark.by_turns
def test_a_counter_that_is_off_by_one_does_not_agree(
    case: Case, program: Program, result: RunResult, data: Data, counted: dict[str, float]
) -> None:
    free, first = result.free, next(iter(result.phases))
    for record in ("events", "synops"):
        for name, counts in getattr(free, record).items():
            wrong = counts.copy()
            wrong[0, -1] += 1
            phase = replace(free, **{record: {**getattr(free, record), name: wrong}})
            broken = replace(result, phases={**result.phases, first: phase})
            assert public(case, program, broken, data[1]) != counted, (record, name)


@pytest.mark.by_turns
def test_weights_of_zero_are_left_out_and_membranes_that_change_are_counted(
    case: Case, program: Program, result: RunResult, data: Data
) -> None:
    graph, free = program.graph, result.free
    (source,) = graph.sources
    spoken = {**messages_of(graph, free), source.name: data[0][None]}
    for name, met in synapses(graph, zeros=False).items():
        sent = spoken[name].reshape(len(spoken[name]), len(data[0]), -1) != 0
        np.testing.assert_array_equal(free.nonzero_synops[name], (sent @ met).sum(0))
    assert set(free.updates) == {p.name for p in graph.neurons if case.backend.name != "brian2"}
    for name, counts in free.updates.items():
        v = free.probes[f"{name}.v"].reshape(program.graph.phases[0].steps, len(data[0]), -1)
        np.testing.assert_array_equal(counts, (v[1:] != v[:-1]).sum((0, 2)))


@pytest.mark.by_turns
def test_an_answer_that_is_another_does_not_agree(
    case: Case, program: Program, result: RunResult, data: Data, counted: dict[str, float]
) -> None:
    labels = data[1].copy()
    labels[0] = result.predictions[0] if labels[0] != result.predictions[0] else labels[0] - 1
    assert public(case, program, result, labels) != counted


@pytest.mark.by_turns
def test_figures_of_learning_are_those_of_a_recount(
    case: Case, program: Program, data: Data
) -> None:
    case.need(Feature.LEARNING, Feature.NUDGED_PHASE, Feature.PROBES)
    x, y = data[0][:2], data[1][:2]
    graph = make_plastic(program.graph, lr=0.2, seed=3)
    plastic = replace(program, graph=graph)
    with targets.learner(plastic) as session:
        phases = session.settle(x, y, probes=every_probe(graph))
        learnt = session.learn(x, y, batch=2)
    sent = [messages_of(graph, phase) for phase in phases.phases.values()]
    found = recount(graph, x, y, sent, phases.free.outputs)
    assert learnt.events_per_sample == found.events
    assert learnt.synops_per_sample == found.synops
    assert float((learnt.predictions == y).mean()) == found.accuracy
    cost = case.backend.estimate(plastic, phases).learning_joule
    if case.backend.name != "crossbar":
        assert cost == pytest.approx(found.energy_joule + change_joule(graph), rel=1e-12)
