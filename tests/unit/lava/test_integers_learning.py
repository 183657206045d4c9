"""Learning on the faithful lowering in integers: Lava's own rule, right on average in 7 bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import targets
from compilers import Program, compile_network
from compilers.ir.graph import Encoding
from compilers.passes.make_plastic import RATE
from ep_neuro.data import datasets
from ep_neuro.errors import DataError
from ep_neuro.network.architectures import digits_dense
from ep_neuro.network.network import Network
from targets.experiments.comparison.compare import on_reference
from targets.interface.session import Session
from targets.lava import BACKEND
from targets.lava.connections.loihi_rule import LEVELS, payload, rate_of, resting, seen
from targets.lava.connections.replicas import copies, unlearnable
from targets.lava.runtime.layout import FAITHFUL
from targets.reference import BACKEND as REFERENCE
from tests.helpers.graphs import samples
from tests.helpers.targets import needs
from tests.helpers.traced import neurons
from tests.unit.lava.test_loihi_rule import SPEC, assert_goes_on, on_lava, plastic

pytestmark = [
    pytest.mark.timeout(120),
    # Random networks need not settle to one point; targets have to agree all the same.
    pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning"),
]

needs_lava = needs("lava")

X, Y = samples(SPEC, 8, seed=7)


def integers(code: Encoding = "graded", **arguments: object) -> Program:
    """The dense network with a skip in integers, all of whose couplings are stock processes."""
    return plastic(code, bits=8, state_frac=20, **arguments)


def mean_update(session: Session, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Change of the weights by one sample, mean over all, each from the same start."""
    start = session.memory()
    total = {name: np.zeros(start[name].shape) for name in session.weights()}
    for i in range(len(x)):
        session.restore(start)
        session.learn(x[i : i + 1], y[i : i + 1])
        after = session.memory()
        for name in total:
            total[name] += (after[name] - start[name]) / len(x)
    session.restore(start)
    return total


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two updates of one weight."""
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@needs_lava
@pytest.mark.parametrize("code", ["graded", pytest.param("sigma-delta", marks=pytest.mark.slow)])
def test_the_update_is_that_of_the_reference_but_for_its_rounding(code: Encoding) -> None:
    """Both copies of a weight hold the same, and the learnt program computes the same elsewhere."""
    program = integers(code, steps=8)
    assert unlearnable(program.graph) == []
    with on_lava(program) as mine, REFERENCE.open(on_reference(program)) as oracle:
        update, expected = mean_update(mine, X, Y), mean_update(oracle, X, Y)
        found, wanted = mine.learn(X, Y), oracle.learn(X, Y)
        memory, learnt, here = mine.memory(), mine.learnt(), mine.settle(X)
        for copy in copies(program.graph).values():
            weight = memory[program.graph.plasticity[copy.index].weight]
            np.testing.assert_array_equal(
                mine._network.shared["copy", copy.name], copy.matrix(weight)
            )
    for name, change in expected.items():
        assert cosine(update[name], change) > 0.95, name
    assert found.changed == pytest.approx(wanted.changed, rel=0.2)
    assert found.commits == wanted.commits == len(X)
    with REFERENCE.open(on_reference(learnt)) as elsewhere:
        np.testing.assert_array_equal(here.free.outputs, elsewhere.settle(X).free.outputs)


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_over_a_hundred_digits_the_update_is_the_one_in_floating_point() -> None:
    """From fresh weights, with the beta at which a chip learns from scratch."""
    network, digits = Network(digits_dense(), 0), datasets.load("digits").train
    x, y = digits.x[:100].astype(np.float64), digits.y[:100]
    integer: dict[str, Any] = {"bits": 8, "state_frac": 20, "message_frac": 8}
    programs = [
        compile_network(network, BACKEND, beta=0.5, learn="contrastive", **numbers)
        for numbers in (integer, {})
    ]
    # At the output's own rate the noise of rounding would be a larger part of the mean.
    programs = [targets.plastic(program, output_rate=4 * RATE) for program in programs]
    with (
        on_lava(replace(programs[0], options={"lowering": FAITHFUL})) as mine,
        REFERENCE.open(programs[0]) as exact,
        REFERENCE.open(programs[1]) as oracle,
    ):
        update, others, expected = (mean_update(s, x, y) for s in (mine, exact, oracle))
    for name, change in expected.items():
        for which, found in (("Lava's rule", update), ("exact integers", others)):
            print(f"{name}, {which}: {cosine(found[name], change):.4f}")
            assert cosine(found[name], change) > 0.95


@needs_lava
def test_interrupted_learning_draws_the_same_random_numbers() -> None:
    """Two commits, of a batch and of what is left of one; again in the session and in another."""
    assert_goes_on(integers(), (X[:3], Y[:3]), (X[3:4], Y[3:4]), atol=0)


@needs_lava
@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_an_input_that_no_trace_holds_is_refused_before_anything_learns(wrong: float) -> None:
    x = X.copy()
    x.flat[3] = wrong
    with on_lava(integers()) as session, pytest.raises(DataError, match=r"7 bits hold 0 to 1"):
        session.learn(x, Y)


# --- the arithmetic ----------------------------------------------------------------------------


@given(z=st.floats(0, 1), offset=st.sampled_from([0.0, -0.5, -1.0]), frac=st.integers(6, 12))
def test_a_trace_is_the_real_state_in_seven_bits(z: float, offset: float, frac: int) -> None:
    population = neurons(offset, frac)
    shown = np.array([round(z * 2**frac)])
    found = seen(population, payload(population, shown))[0]
    assert abs(found / 128 - (z + offset / 2)) <= 1 / 128 + 2.0**-frac
    assert resting(population) <= found <= resting(population) + 127


@given(rate=st.floats(1e-4, 10.0), scale=st.floats(0.1, 1.0))
def test_a_level_is_the_rate_within_a_fifteenth(rate: float, scale: float) -> None:
    graph = integers(lr=rate).graph
    for index, record in enumerate(graph.plasticity):
        if record.weight not in graph.ties:
            continue
        found = rate_of(graph, index)
        wanted = found.exact * scale
        assert found.exact <= LEVELS
        assert found.exact > LEVELS / 2 or found.shift == 0
        assert abs(found.level(scale) - wanted) <= 0.5 or wanted < 0.5


def test_a_rate_below_the_least_that_a_gate_opens_by_is_refused() -> None:
    """Units that shrink make some rates small; the gate would open by a whole level, too wide."""
    program = integers(lr=0.2)
    faint = tuple(replace(record, power=-12) for record in program.graph.plasticity)
    problems = unlearnable(replace(program.graph, plasticity=faint))
    assert {p.subject.partition(",")[0] for p in problems} == {
        f"plasticity of '{weight}'" for weight in program.graph.ties
    }
    assert all(p.value > p.limit for p in problems)
    assert "raise the rate, or use lowering batched" in str(problems[0])


@needs_lava
def test_the_program_says_what_it_takes_to_be_stock() -> None:
    """With coarse membranes the gains would cut bits off, and no stock process learns."""
    coarse = plastic(bits=8)
    problems = [str(v) for v in unlearnable(coarse.graph)]
    assert problems
    assert all("no stock process" in p for p in problems)
    frozen = replace(coarse, graph=replace(coarse.graph, plasticity=()))
    with targets.open(frozen) as session:
        assert session.settle(X[:1]).free.outputs.shape == (1, 4)
