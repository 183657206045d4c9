"""What every target that learns must do, and how one that does not says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import targets
from compilers import Program, load_program, save_program
from compilers.ir.graph import Conv, Dense, Graph, Phase, Population, SigmaDelta, Source, Spiking
from compilers.learning.plastic_weights import PlasticWeights
from compilers.learning.traces import MEAN_FRAC
from compilers.passes.make_plastic import make_plastic
from compilers.passes.validate import validate
from ep_neuro.errors import TargetError
from targets.interface.protocols import Backend, Feature, PhaseResult
from targets.interface.session import Session
from tests.conformance.cases import Case, able, every_probe
from tests.helpers.graphs import graph_of, random_residual_spec
from tests.helpers.oracle import unrolled

Data = tuple[np.ndarray, np.ndarray]
Memory = dict[str, np.ndarray]

LR = 0.2


@pytest.fixture(
    scope="module", params=able(lambda case: bool(case.options) and case.code != "spike")
)
def case(request: pytest.FixtureRequest) -> Case:
    """One case that can run here; of targets that are costly to test, quickly for spikes only."""
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def plastic(case: Case, program: Program) -> Program:
    """The program of the case, all of whose weights and biases learn."""
    case.need(Feature.LEARNING, Feature.NUDGED_PHASE, Feature.PROBES)
    return replace(program, graph=validate(make_plastic(program.graph, lr=LR, seed=3, units=True)))


@pytest.fixture(scope="module")
def shared(plastic: Program, data: Data) -> Iterator[tuple[Session, Memory]]:
    """One session with what it knows before it learns; it has room for what claims ask it for."""
    with targets.learner(plastic) as session:
        session.settle(*data, probes=every_probe(plastic.graph))
        yield session, session.memory()


@pytest.fixture
def student(shared: tuple[Session, Memory]) -> Session:
    """A session that has learnt nothing yet, or has forgotten it all."""
    session, fresh = shared
    session.restore(fresh)
    return session


# --- sign and size -----------------------------------------------------------------------------


def test_weights_change_by_the_contrast_of_what_was_sent(
    plastic: Program, student: Session, data: Data
) -> None:
    """Sign and size, from the messages that the session itself records, synapse by synapse."""
    x, y = data[0][:3], data[1][:3]
    graph = plastic.graph
    results = student.settle(x, y, probes=every_probe(graph)).phases
    before = PlasticWeights(graph)
    clipped = student.learn(x, y, batch=3).clipped
    memory, moved, deviating = student.memory(), 0.0, 0
    for s in before.synapses:
        name, contrast = s.record.weight, np.zeros(s.shape)
        for phase in graph.phases:
            if phase.sign:
                sent = {p.name: _sent(graph, p, x, results, phase) for p in graph.populations}
                contrast += phase.sign * _products(graph, name, s.pre, s.post, sent)
        wanted = s.record.step * contrast / len(x) / s.unit
        found = s.operand(memory[name]) - s.operand(before.weights[name])
        moved += float(np.abs(wanted).sum())
        step = s.operand(np.ones(s.shape, np.int64)) if graph.quantised else np.ones(s.shape)
        # An integer is one of the two next to the change, whose multiplier has 15 bits.
        slack = step if graph.quantised else 1e-6 * np.abs(wanted).max()
        near = np.abs(found - wanted) <= 1.001 * slack + 2e-4 * np.abs(wanted)
        deviating += int(np.count_nonzero(~near))
    assert moved > 0
    assert deviating <= clipped


def _products(
    graph: Graph, name: str, pre: Population | None, post: Population, sent: dict[str, np.ndarray]
) -> np.ndarray:
    """``sum post pre`` over samples and places, one synapse after another."""
    samples = len(sent[post.name])
    left = sent[post.name].reshape(samples, -1)
    if pre is None:
        return left.reshape(samples, post.shape[0], -1).sum((0, 2))
    pairs = left.T @ sent[pre.name].reshape(samples, -1)
    (forward,) = (
        p for p in graph.projections if p.weight == name and isinstance(p.operator, Dense | Conv)
    )
    total = np.zeros(graph.arrays[name].shape)
    for synapse in range(total.size):
        one = np.zeros(total.shape)
        one.flat[synapse] = 1.0
        places = unrolled(replace(graph, arrays={**graph.arrays, name: one}), forward)
        total.flat[synapse] = (places * pairs).sum()
    return total


def _sent(
    graph: Graph, p: Population, x: np.ndarray, results: Mapping[str, PhaseResult], phase: Phase
) -> np.ndarray:
    """What population `p` has told others by the end of `phase`, in real units."""
    unit = p.message.one if p.message else 1
    if isinstance(p.dynamics, Source):
        held = np.floor(x * unit + 0.5) / unit if p.message else x
        return p.readout.offset + p.readout.gain * held
    messages = results[phase.name].probes[f"{p.name}.message"] / unit
    if isinstance(p.dynamics, Spiking):
        first = phase.steps // 2 if phase.start is None else 0
        distance = np.arange(first, phase.steps) - (first + phase.steps - 1) / 2
        triangle = (phase.steps - first + 1) / 2 - np.abs(distance)
        shown = np.tensordot(triangle, messages[first:], 1) / triangle.sum()
        if p.message:
            shown = np.floor(shown * 2**MEAN_FRAC + 0.5) / 2**MEAN_FRAC
    elif isinstance(p.dynamics, SigmaDelta):
        shown = messages.sum(0)
        while phase.start is not None:
            phase = graph.phase(phase.start)
            shown = shown + results[phase.name].probes[f"{p.name}.message"].sum(0) / unit
    else:
        shown = messages[-1]
    return p.readout.offset + p.readout.gain * shown


# --- one weight, whichever way it is used ------------------------------------------------------


def test_tied_copies_stay_equal_and_folded_biases_follow(
    plastic: Program, student: Session, data: Data
) -> None:
    """What the session computes is what a fresh one computes with one array for each weight."""
    before = student.settle(*data)
    student.learn(*data, batch=3)
    here, learnt = student.settle(*data), student.learnt()
    with targets.open(learnt) as fresh:
        there = fresh.settle(*data)
    for name, phase in here.phases.items():
        exact = plastic.graph.quantised or plastic.graph.encoding == "graded"
        tolerance = 1e-4 if exact else 0.2  # a spike more or less, where float32 rounds
        np.testing.assert_allclose(
            phase.outputs, there.phases[name].outputs, rtol=0, atol=tolerance
        )
    assert np.abs(here.free.outputs - before.free.outputs).max() > 1e-3


def test_learning_moves_outputs_towards_the_targets(plastic: Program, data: Data) -> None:
    """With phases that are long enough for a mean of spikes to mean something."""
    graph = make_plastic(plastic.graph, lr=0.3, steps=32, nudged_steps=32)
    target = np.eye(graph.population(graph.output).size)[data[1]]

    def error() -> float:
        outputs = session.settle(data[0]).free.outputs.reshape(target.shape)
        return float(np.square(outputs - target).sum())

    with targets.learner(replace(plastic, graph=graph)) as session:
        before = error()
        for _ in range(3):
            session.learn(*data, batch=len(data[0]))
        assert error() < 0.95 * before


# --- memory ------------------------------------------------------------------------------------


def test_interrupted_learning_goes_on_as_if_it_had_not_been(
    plastic: Program, student: Session, data: Data, tmp_path: Path
) -> None:
    x, y = data
    student.learn(x[:3], y[:3], batch=3)
    np.savez(tmp_path / "memory.npz", **student.memory())
    student.learn(x[2:], y[2:], batch=3)
    with targets.learner(plastic) as again, np.load(tmp_path / "memory.npz") as saved:
        again.restore(dict(saved))
        again.learn(x[2:], y[2:], batch=3)
        after = again.memory()
    for name, value in student.memory().items():
        tolerance = 0 if plastic.graph.quantised else 1e-9
        np.testing.assert_allclose(after[name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.by_turns
def test_a_learnt_program_is_saved_and_learns_on(
    student: Session, data: Data, tmp_path: Path
) -> None:
    result = student.learn(*data, batch=3)
    assert result.commits == 2
    save_program(student.learnt(), tmp_path / "learnt")
    loaded = load_program(tmp_path / "learnt")
    assert loaded.digest() == student.learnt().digest()
    weights = student.weights()
    for name in loaded.graph.ties:
        np.testing.assert_allclose(loaded.graph.arrays[name], weights[name], rtol=0, atol=1e-6)
    with targets.learner(loaded) as session:
        assert session.learn(data[0][:2], data[1][:2]).commits == 2


@pytest.mark.by_turns
def test_learning_reports_what_it_did(student: Session, data: Data) -> None:
    settled = student.settle(*data)
    seen: list[tuple[int, int]] = []
    result = student.learn(
        *data, batch=len(data[0]), progress=lambda done, of: seen.append((done, of))
    )
    np.testing.assert_array_equal(result.predictions, settled.predictions)
    events = sum(int(e.sum()) for p in settled.phases.values() for e in p.events.values())
    assert result.events_per_sample == pytest.approx(events / len(data[0]))
    assert result.synops_per_sample > result.events_per_sample
    assert result.changed > 0
    assert seen[-1] == (len(data[0]), len(data[0]))


# --- who cannot --------------------------------------------------------------------------------


UNABLE = [b for b in targets.backends() if Feature.LEARNING in b.unsupported]


@pytest.mark.parametrize("backend", UNABLE, ids=lambda b: b.name)
def test_a_target_that_cannot_learn_says_why_and_who_can(backend: Backend) -> None:
    program = Program(backend.name, make_plastic(graph_of(random_residual_spec(0))))
    with pytest.raises(TargetError) as caught:
        targets.learner(program)
    said = str(caught.value)
    assert backend.unsupported[Feature.LEARNING].split()[0] in said
    assert "reference" in said
    assert "\n" not in said
