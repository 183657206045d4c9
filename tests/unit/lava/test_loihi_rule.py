"""Learning on the faithful lowering: Lava's own rule makes the EP update of dense couplings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import targets
from compilers import Program, compile_network
from compilers.ir.graph import Encoding, Graph, Phase
from compilers.learning.plastic_weights import PlasticWeights
from compilers.passes.make_plastic import make_plastic
from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import INPUT, CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import TargetError
from ep_neuro.estimators import Centered
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule
from targets.experiments.comparison.compare import on_reference
from targets.lava import BACKEND
from targets.lava.connections.replicas import WeightReplica, copies, unlearnable
from targets.lava.runtime.layout import FAITHFUL
from targets.lava.session import LavaSession
from targets.reference import BACKEND as REFERENCE
from tests.helpers.graphs import random_residual_spec, samples
from tests.helpers.targets import needs

pytestmark = [
    pytest.mark.timeout(120),
    # Random networks need not settle to one point; targets have to agree all the same.
    pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning"),
]

needs_lava = needs("lava")

SPEC = NetworkSpec(
    name="dense_skip",
    input=InputSpec(shape=(1, 3, 3)),
    populations=(
        PopulationSpec(name="h1", shape=(7,)),
        PopulationSpec(name="h2", shape=(6,), box=(-0.5, 1.5)),
        PopulationSpec(name="out", shape=(4,), box=(-0.5, 1.5)),
    ),
    couplings=tuple(
        CouplingSpec(pre=pre, post=post, gain=0.5)
        for pre, post in ((INPUT, "h1"), ("h1", "h2"), ("h2", "out"), ("h1", "out"))
    ),
)
"""Two populations rest below 0, so that biases have folded parts, which follow the weights."""

Samples = tuple[np.ndarray, np.ndarray]
"""Inputs and labels."""

X, Y = samples(SPEC, 3, seed=7)
BETA = 0.2


def network() -> Network:
    """Random weights, and biases that keep most neurons inside their boxes."""
    made = Network(SPEC, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for bias in made.biases.values():
            bias.uniform_(0.1, 0.3, generator=generator)
    return made


def plastic(
    code: Encoding = "graded", steps: int = 6, spec: NetworkSpec = SPEC, **arguments: object
) -> Program:
    """A dense network with a skip, which learns by Lava's own rule."""
    made = network() if spec is SPEC else Network(spec, 0)
    numbers = {name: arguments.pop(name, None) for name in ("bits", "state_frac")}
    program = compile_network(made, BACKEND, code=code, steps=steps, beta=BETA, **numbers)  # type: ignore[arg-type]
    arguments = {"lr": 0.2, "nudged_steps": steps, **arguments}
    graph = make_plastic(program.graph, **arguments)  # type: ignore[arg-type]
    return replace(program, graph=graph, options={"lowering": FAITHFUL})


def on_lava(program: Program) -> LavaSession:
    """`program` where this module is about."""
    session = targets.learner(program)
    assert isinstance(session, LavaSession)
    return session


# --- the update --------------------------------------------------------------------------------


@needs_lava
@pytest.mark.parametrize("code", ["graded", "sigma-delta", "spike"])
def test_lavas_rule_learns_what_the_reference_learns(code: Encoding) -> None:
    """Weights, biases and what is reported, over two batches of which one is not full."""
    program = plastic(code)
    with on_lava(program) as mine, REFERENCE.open(on_reference(program)) as oracle:
        found, wanted = mine.learn(X, Y, batch=2), oracle.learn(X, Y, batch=2)
        memory, expected = mine.memory(), oracle.memory()
        assert_ties_hold(mine)
        settled, other = mine.settle(X), oracle.settle(X)
    for name, value in expected.items():
        np.testing.assert_allclose(memory[name], value, rtol=0, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(settled.free.outputs, other.free.outputs, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.predictions, wanted.predictions)
    assert found.commits == wanted.commits == 2
    assert found.events_per_sample == pytest.approx(wanted.events_per_sample)
    assert found.synops_per_sample == pytest.approx(wanted.synops_per_sample)
    assert found.changed == pytest.approx(wanted.changed)
    assert found.changed > 1e-4


def assert_ties_hold(session: LavaSession) -> None:
    """Each process changed its matrix by itself, and both directions of a weight agree."""
    assert session._host is not None
    graph = session._host.learner.graph
    backward = [c for c in copies(graph).values() if c.backward]
    assert len(backward) == 3
    for copy in backward:
        weight = session.weights()[graph.plasticity[copy.index].weight]
        held = session._network.shared["copy", copy.name]
        np.testing.assert_allclose(held, copy.matrix(weight), rtol=0, atol=1e-12)
        assert np.abs(held - copy.matrix(graph.arrays[copy_weight(graph, copy)])).max() > 1e-6


def copy_weight(graph: Graph, copy: WeightReplica) -> str:
    """Id of the weight that `copy` holds."""
    return graph.plasticity[copy.index].weight


@needs_lava
def test_the_update_is_minus_the_centered_gradient() -> None:
    program, x, y = plastic(steps=80, lr=1.0), X[:1], Y[:1]
    with on_lava(program) as session:
        session.learn(x, y)
        after = session.memory()
    before = PlasticWeights(program.graph)
    change = {
        s.record.weight: (after[s.record.weight] - before.weights[s.record.weight]) * s.unit
        for s in before.synapses
    }
    tight = Schedule(sweeps=2000, tolerance=1e-12)
    estimate = Centered(beta=BETA, free=tight, nudged=tight)(
        network().double(),
        torch.tensor(x),
        one_hot(torch.tensor(y), SPEC.target_shape, torch.float64),
    )
    assert change.keys() == estimate.gradient.keys()
    one = np.concatenate([change[name].ravel() for name in change])
    two = np.concatenate([-estimate.gradient[name].numpy().ravel() for name in change])
    assert one @ two / np.sqrt((one @ one) * (two @ two)) > 0.99999
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-3 * np.abs(two).max())


# --- memory ------------------------------------------------------------------------------------


@needs_lava
def test_interrupted_learning_goes_on_in_another_session_and_in_the_same() -> None:
    assert_goes_on(plastic("sigma-delta"), (X[:2], Y[:2]), (X[2:], Y[2:]), atol=1e-9)


def assert_goes_on(program: Program, first: Samples, rest: Samples, atol: float) -> None:
    """Learning is the same after an interruption in another session, and again in this one."""
    with on_lava(program) as session:
        start = session.memory()
        session.learn(*first, batch=2)
        saved, learnt = session.memory(), session.learnt()
        session.learn(*rest)
        wanted = session.memory()
        session.restore(start)
        session.learn(*first, batch=2)
        same = session.memory()
    with on_lava(learnt) as other:
        other.restore(saved)
        other.learn(*rest)
        found = other.memory()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=atol, err_msg=name)
        np.testing.assert_allclose(same[name], saved[name], rtol=0, atol=atol, err_msg=name)


# --- what it cannot ----------------------------------------------------------------------------


def commits_early(program: Program) -> Program:
    """`program` with a second lesson in its phases."""
    free, plus, minus = program.graph.phases
    again = Phase("again", plus.steps, plus.nudge, "free", 1)
    last = Phase("last", minus.steps, minus.nudge, "free", -1, commit=True)
    return replace(program, graph=replace(program.graph, phases=(free, plus, minus, again, last)))


@needs_lava
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: plastic(spec=random_residual_spec(1)), "unshare .*freeze .*learn it off chip"),
        (lambda: plastic(bits=8), "no stock process: .*state-frac 20, or use lowering batched"),
        (lambda: plastic("spike", bits=8, state_frac=20), "spiking populations of integers"),
        (lambda: plastic(bits=8, state_frac=20, keep=True), "rounding that is kept"),
        (lambda: plastic(rule="continual"), "rule 'continual' of another form"),
        (lambda: plastic(decay=0.1), "a decay"),
        (lambda: commits_early(plastic()), "commits before its end"),
    ],
)
def test_what_lavas_rule_cannot_do_is_refused_in_one_line(
    make: Callable[[], Program], said: str
) -> None:
    program = make()
    assert unlearnable(program.graph)
    with on_lava(program) as session, pytest.raises(TargetError, match=said) as caught:
        session.learn(X, Y)
    assert "\n" not in str(caught.value)


@needs_lava
@pytest.mark.slow
def test_frozen_convolutions_are_no_obstacle() -> None:
    spec = random_residual_spec(1)
    x, y = samples(spec, 2, seed=7)
    program = plastic(spec=spec, only=("weight/b1->out", "bias/out"))
    with on_lava(program) as mine, REFERENCE.open(on_reference(program)) as oracle:
        found, wanted = mine.learn(x, y, batch=2), oracle.learn(x, y, batch=2)
        memory, expected = mine.memory(), oracle.memory()
        settled, other = mine.settle(x), oracle.settle(x)
    assert found.changed == pytest.approx(wanted.changed)
    assert found.changed > 1e-4
    for name, value in expected.items():
        np.testing.assert_allclose(memory[name], value, rtol=0, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(settled.free.outputs, other.free.outputs, rtol=0, atol=1e-9)


# --- the pieces --------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    scale=st.sampled_from([0.5, 1.0, 2.0]),
    backward=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_matrix_of_a_copy_leads_back_to_the_weight(
    rows: int, columns: int, scale: float, backward: bool, seed: int
) -> None:
    weight = np.random.default_rng(seed).normal(size=(rows, columns))
    shape = (columns, rows) if backward else (rows, columns)
    copy = WeightReplica("c", 0, shape, scale, backward)
    assert copy.matrix(weight).shape == shape
    np.testing.assert_array_equal(copy.weight(copy.matrix(weight), weight.shape), weight)


def test_the_program_lists_what_learns_by_lavas_rule() -> None:
    program = plastic()
    listed = BACKEND.emit(program.graph).files["layers.txt"].splitlines()
    learning = {line.split()[1] for line in listed if line.split()[0] == "LearningDense"}
    assert learning == set(copies(program.graph))
    assert "bias/out" in learning
    assert "out->h1" in learning
