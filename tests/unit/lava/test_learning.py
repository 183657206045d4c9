"""Learning on the batched lowering of Lava: it is that of the reference, in other processes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

import targets
from compilers import Program, compile_network
from compilers.ir.graph import Encoding, Graded, Graph, Phase
from compilers.learning.plastic_weights import Memory
from compilers.passes.make_plastic import make_plastic
from ep_neuro.data import datasets
from ep_neuro.energy.spec import INPUT, CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import ConfigError, RunError
from ep_neuro.network.architectures import digits_dense
from ep_neuro.network.network import Network
from targets.experiments.onchip import learning
from targets.experiments.onchip.schedule import Plan
from targets.interface.protocols import LearnResult
from targets.interface.request import variables
from targets.interface.session import Session
from targets.interface.supervised.messages import Message, Start, send
from targets.lava import BACKEND
from targets.lava.runtime.layout import homes
from targets.lava.session import LavaSession
from targets.reference import BACKEND as REFERENCE
from tests.helpers.graphs import random_residual_spec, samples
from tests.helpers.targets import needs
from tests.unit.lava.test_integers import assert_equal

pytestmark = [
    pytest.mark.timeout(120),
    # Random networks need not settle to one point; targets have to agree all the same.
    pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning"),
]

needs_lava = needs("lava")

SPEC, DEEP = random_residual_spec(312), random_residual_spec(1)
"""One block, and two: what a run costs is mostly by populations."""

X, Y = samples(SPEC, 5, seed=7)


def plastic(
    code: Encoding,
    bits: int | None,
    rule: str | None = None,
    *,
    steps: int = 6,
    **arguments: object,
) -> Program:
    """A small residual network of convolutions on Lava, which learns."""
    network = Network(SPEC, 0)
    program = compile_network(network, BACKEND, code=code, bits=bits, steps=steps, beta=0.5)
    arguments = {"lr": 0.2, "seed": 3, **arguments}
    graph = make_plastic(program.graph, rule, **arguments)  # type: ignore[arg-type]
    return replace(program, graph=graph)


def on_lava(program: Program) -> LavaSession:
    """`program` where this module is about."""
    session = targets.learner(program)
    assert isinstance(session, LavaSession)
    return session


def on_reference(program: Program) -> Session:
    """`program` on the oracle."""
    return REFERENCE.open(replace(program, target="reference", files={}))


def assert_learns_like_the_reference(
    program: Program, batch: int = 3, data: tuple[np.ndarray, np.ndarray] = (X, Y)
) -> tuple[Memory, Graph]:
    """Weights, true biases, tags and what is reported, bit for bit in integers; what is learnt."""
    with on_lava(program) as mine, on_reference(program) as oracle:
        found, wanted = mine.learn(*data, batch=batch), oracle.learn(*data, batch=batch)
        memory, expected = mine.memory(), oracle.memory()
        settled, other = mine.settle(data[0]), oracle.settle(data[0])
        learnt = mine.learnt().graph
    assert memory.keys() == expected.keys()
    tolerance = 0 if program.graph.quantised else 1e-9
    for name, value in expected.items():
        assert memory[name].dtype == value.dtype
        np.testing.assert_allclose(memory[name], value, rtol=0, atol=tolerance, err_msg=name)
    np.testing.assert_allclose(settled.free.outputs, other.free.outputs, rtol=0, atol=1e-9)
    assert_same_report(found, wanted)
    return memory, learnt


def assert_same_report(found: LearnResult, wanted: LearnResult) -> None:
    np.testing.assert_array_equal(found.predictions, wanted.predictions)
    assert (found.commits, found.clipped) == (wanted.commits, wanted.clipped)
    assert found.events_per_sample == pytest.approx(wanted.events_per_sample)
    assert found.synops_per_sample == pytest.approx(wanted.synops_per_sample)
    assert found.changed == pytest.approx(wanted.changed)
    assert found.changed > 0


# --- the same numbers --------------------------------------------------------------------------


@needs_lava
@pytest.mark.parametrize(
    ("code", "bits", "rule"),
    [
        ("graded", 8, None),
        pytest.param("graded", None, "continual", marks=pytest.mark.slow),
        ("sigma-delta", 8, "continual"),
        pytest.param("sigma-delta", None, "one-sided", marks=pytest.mark.slow),
        ("spike", 8, None),
    ],
)
def test_it_learns_what_the_reference_learns(
    code: Encoding, bits: int | None, rule: str | None
) -> None:
    """Shared kernels, boxes that start below 0, and a last batch that is not full."""
    assert_learns_like_the_reference(plastic(code, bits, rule))


@needs_lava
def test_it_learns_in_units_what_the_reference_learns() -> None:
    """Rates, tags and messages of a residual network whose units shrink by 4 a population."""
    last = len(DEEP.populations) - 1
    shrinking = tuple(
        p.model_copy(update={"unit": 4.0 ** (last - i)}) for i, p in enumerate(DEEP.populations)
    )
    network = Network(DEEP.model_copy(update={"populations": shrinking}), 0)
    program = compile_network(
        network, BACKEND, bits=8, headroom=2, steps=6, beta=0.5, learn="contrastive"
    )
    assert len({r.power for r in program.graph.plasticity}) > 3
    assert any(r.coarser for r in program.graph.plasticity)
    assert min(p.message.frac for p in program.graph.populations if p.message) >= 14
    assert_learns_like_the_reference(program, data=samples(DEEP, 5, seed=7))


@needs_lava
def test_weights_that_change_between_phases_are_in_force_at_once() -> None:
    """Also for the input and the biases, whose drive is constant in between."""
    program = plastic("graded", 8)
    free, plus, minus = program.graph.phases
    again = Phase("again", plus.steps, plus.nudge, "free", 1)
    last = Phase("last", minus.steps, minus.nudge, "free", -1, commit=True)
    phases = (free, plus, replace(minus, commit=True), again, last)
    assert_learns_like_the_reference(
        replace(program, graph=replace(program.graph, phases=phases)), batch=5
    )


@needs_lava
@pytest.mark.parametrize(
    ("code", "rule"),
    [("graded", "difference"), ("graded", None), ("sigma-delta", None), ("spike", None)],
)
@pytest.mark.parametrize("room", [9, 10])
def test_nudged_phases_run_side_by_side_where_there_is_room(
    code: Encoding, rule: str | None, room: int
) -> None:
    """Either way all that they record and teach is the same, with messages in flight for longer."""
    program = plastic(code, 8, rule)
    slow = tuple(
        p if p.pre == INPUT else replace(p, delay=1 + i % 3)
        for i, p in enumerate(program.graph.projections)
    )
    graph = replace(program.graph, projections=slow)
    program = replace(program, graph=graph, options={"batch": room})
    probes = [f"{p.name}.{v}" for p in graph.populations for v in variables(p)]
    with on_lava(program) as mine, on_reference(replace(program, options={})) as oracle:
        for _ in range(2):
            found, wanted = mine.settle(X, Y, probes=probes), oracle.settle(X, Y, probes=probes)
            together = [command.beside for command in mine._network.shared.plan]
            assert together == [0, 0, int(room == 10)]
            assert_equal(found, wanted)
            mine.learn(X, Y, batch=5)
            oracle.learn(X, Y, batch=5)
        memory, expected = mine.memory(), oracle.memory()
    for name, value in expected.items():
        np.testing.assert_array_equal(memory[name], value, err_msg=name)


@needs_lava
def test_what_rounding_leaves_stays_in_the_tag_and_frozen_weights_stay() -> None:
    names = ("weight/b0->out", "weight/a0->b0", "bias/out")
    program = plastic("graded", 8, only=names, keep=True, lr=0.5)
    memory, learnt = assert_learns_like_the_reference(program, batch=5)
    assert memory["tag/weight/b0->out"].any()
    assert memory["tag/weight/a0->b0"].any()
    for name in program.graph.ties:
        same = np.array_equal(learnt.arrays[name], program.graph.arrays[name])
        assert same == (name not in names)


# --- one network, and what is left when it ends ------------------------------------------------


@needs_lava
def test_batches_and_calls_share_one_network_and_a_lost_one_costs_one_call() -> None:
    program = plastic("graded", 8)
    with on_lava(program) as whole:
        whole.learn(X[:4], Y[:4], batch=2)
        group = process_of(whole)
        whole.learn(X[2:4], Y[2:4], batch=2)
        whole.settle(X[:2])
        assert process_of(whole) == group
        wanted = whole.memory()
    with on_lava(program) as session:
        session.learn(X[:4], Y[:4], batch=2)
        kept = session.memory()
        with pytest.raises(RunError, match="session has ended"):
            session.learn(X, Y, batch=2, progress=lambda *_: kill(session))
        assert session.memory()["commits"] == kept["commits"]
        np.testing.assert_array_equal(session.memory()["bias/out"], kept["bias/out"])
        session.learn(X[2:4], Y[2:4], batch=2)
        found = session.memory()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("target", [pytest.param("lava", marks=needs_lava), "reference"])
def test_a_lesson_that_diverges_leaves_the_weights_of_before_the_call(target: str) -> None:
    """The first batch is learnt before the second has no finite answer."""
    program = plastic("graded", None, steps=60)
    free = tuple(
        replace(p, box=None, dynamics=Graded(leak=1.0)) if p in program.graph.neurons else p
        for p in program.graph.populations
    )
    graph = replace(program.graph, populations=free)
    x = np.concatenate([1e-9 * X[:1], 1e300 * X[1:2]])
    opened = on_lava if target == "lava" else on_reference
    with opened(replace(program, graph=graph)) as session:
        before = session.memory()
        with pytest.raises(RunError, match="the output is not finite"):
            session.learn(x, Y[:2])
        for name, value in session.memory().items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)
        assert session.learn(x[:1], Y[:1]).commits == 1


@needs_lava
def test_learning_settling_and_looking_take_turns_without_a_restart() -> None:
    program = plastic("graded", 8)
    probe = f"{program.graph.output}.z"
    groups = []
    with on_lava(program) as looked_at, on_lava(program) as undisturbed:
        for first in (0, 2, 0):
            part = slice(first, first + 2)
            undisturbed.learn(X[part], Y[part], batch=2)
            looked_at.learn(X[part], Y[part], batch=2)
            groups.append(process_of(looked_at))
            looked_at.settle(X)
            groups.append(process_of(looked_at))
            looked_at.settle(X[:1], probes=[probe])
            groups.append(process_of(looked_at))
        wanted, found = undisturbed.memory(), looked_at.memory()
    assert len(set(groups)) == 1
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@needs_lava
def test_a_whole_learning_run_starts_lava_once_and_learns_what_the_reference_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With tests, validation and the cost of samples between lessons; interrupted and resumed."""
    digits = datasets.load("digits").each(lambda split: split.head(45))
    graph = compile_network(Network(digits_dense(), 0), BACKEND, bits=8, steps=6).graph
    program = replace(BACKEND.emit(graph), graph=make_plastic(graph, lr=0.4))
    plan, starts = Plan(samples=40, batch=10, points=2), []

    def told(connection: Connection, command: Message) -> None:
        starts.append(isinstance(command, Start))
        send(connection, command)

    monkeypatch.setattr("targets.interface.supervised.process.send", told)
    half = replace(plan, samples=20, points=1)
    learning.learn(program, digits, half, out=tmp_path / "run")
    assert sum(starts) == 1
    found = learning.learn(program, digits, plan, out=tmp_path / "run", resume=True)
    assert sum(starts) == 2
    wanted = learning.learn(replace(program, target="reference", files={}), digits, plan)
    for name, value in wanted.program.graph.arrays.items():
        np.testing.assert_array_equal(found.program.graph.arrays[name], value, err_msg=name)
    for mine, theirs in zip(found.history, wanted.history, strict=True):
        for key in theirs.keys() - {"seconds"}:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-12, nan_ok=True), key
    assert found.accuracy_after == wanted.accuracy_after
    assert found.energy_joule == wanted.energy_joule


def kill(session: LavaSession) -> None:
    """End the running network."""
    session._network.process.kill()


def process_of(session: LavaSession) -> int:
    """Process group of the running network."""
    return session._network.process.pid


# --- refusals ----------------------------------------------------------------------------------


def chain() -> Program:
    """Three populations of four neurons, two weights of the same shape."""
    spec = NetworkSpec(
        name="chain",
        input=InputSpec(shape=(1, 2, 2)),
        populations=(PopulationSpec(name="h", shape=(4,)), PopulationSpec(name="out", shape=(4,))),
        couplings=(CouplingSpec(pre=INPUT, post="h"), CouplingSpec(pre="h", post="out")),
    )
    program = compile_network(Network(spec, 0), BACKEND, steps=4, beta=0.5)
    return replace(program, graph=make_plastic(program.graph))


def test_a_plastic_weight_in_two_processes_is_a_violation() -> None:
    graph = chain().graph
    assert not BACKEND.check(graph)
    names: Collection[str] = tuple(graph.ties)
    shared = tuple(replace(p, weight=min(names)) for p in graph.projections)
    records = tuple(r for r in graph.plasticity if r.weight not in names or r.weight == min(names))
    graph = replace(graph, projections=shared, plasticity=records)
    assert homes(graph, min(names)) == 2
    (violation,) = BACKEND.check(graph)
    assert (violation.value, violation.limit) == (2, 1)
    assert min(names) in violation.subject
    assert not BACKEND.check(replace(graph, plasticity=records[1:]))


@needs_lava
def test_more_samples_at_once_than_the_option_allows_are_refused() -> None:
    with (
        on_lava(replace(plastic("graded", None), options={"batch": 4})) as session,
        pytest.raises(ConfigError, match="5 samples exceed the 4 that settle at once"),
    ):
        session.learn(X, Y, batch=5)


@needs_lava
def test_a_closed_session_does_not_learn() -> None:
    session = on_lava(plastic("graded", None))
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.learn(X, Y)
