"""Lava in integers: equal to the reference bit for bit, saturations counted alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir.graph import FixedPoint, Graded, Graph, Population, Projection, Rescale, Spiking
from compilers.ir.integers import nearest, shift
from compilers.program import Program
from targets.interface.protocols import RunResult
from targets.interface.request import variables
from targets.lava import BACKEND
from targets.lava.connections.arithmetic import Integer, gain
from targets.reference import BACKEND as REFERENCE
from tests.helpers.graphs import graph_of, random_residual_spec, samples
from tests.helpers.targets import needs

pytestmark = pytest.mark.timeout(60)

needs_lava = needs("lava")


def both(graph: Graph, x: np.ndarray, y: np.ndarray, **options: Any) -> tuple[RunResult, RunResult]:
    """The run of `graph` on Lava and on the reference, with every probe."""
    probes = [f"{p.name}.{v}" for p in graph.populations for v in variables(p)]
    with BACKEND.open(Program("lava", graph, options)) as session:
        mine = session.settle(x, y, probes=probes)
    with REFERENCE.open(Program("reference", graph)) as oracle:
        return mine, oracle.settle(x, y, probes=probes)


def assert_equal(mine: RunResult, wanted: RunResult) -> None:
    """States, counts, saturations and outputs of all phases are the same numbers."""
    assert list(mine.phases) == list(wanted.phases)
    for name, phase in mine.phases.items():
        other = wanted.phases[name]
        for kind in ("probes", "events", "synops"):
            mine_by_name, wanted_by_name = getattr(phase, kind), getattr(other, kind)
            assert mine_by_name.keys() == wanted_by_name.keys()
            for key, values in mine_by_name.items():
                np.testing.assert_array_equal(values, wanted_by_name[key], err_msg=f"{name} {key}")
        np.testing.assert_array_equal(phase.outputs, other.outputs)
        assert phase.saturations == other.saturations


# --- the law of the integers -------------------------------------------------------------------

POPULATION = Population(
    "p", (3,), Graded(leak=0.3), (0.0, 1.0), state=FixedPoint(24, 16), message=FixedPoint(16, 8)
)
WORDS = st.integers(-(2**40), 2**40)


@given(values=st.lists(WORDS, min_size=1), bits=st.integers(-20, 8))
def test_a_shift_rounds_to_nearest(values: list[int], bits: int) -> None:
    exact = [v * 2.0**bits for v in values]
    assert shift(np.array(values), bits).tolist() == nearest(exact).tolist()


@given(
    v=st.integers(-(2**22), 2**22), drive=st.integers(-(2**22), 2**22), rest=st.integers(0, 4095)
)
def test_the_leak_loses_nothing(v: int, drive: int, rest: int) -> None:
    numbers = Integer(POPULATION)
    after, carried = numbers.integrate(np.array([v]), np.array([drive]), np.array([rest]))
    assert 4096 * (int(after[0]) - v) + int(carried[0]) == round(4096 * 0.3) * (drive - v) + rest
    assert numbers.saturated.tolist() == [0]


@given(drive=st.integers(-(2**22), 2**22))
def test_a_membrane_settles_at_its_drive_exactly(drive: int) -> None:
    numbers = Integer(POPULATION)
    v, rest, target = np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([drive])
    for _ in range(120):
        v, rest = numbers.integrate(v, target, rest)
    assert abs(int(v[0]) - drive) <= 3  # where the leak moves less than one unit a step
    for _ in range(40):
        v, rest = numbers.integrate(v, target, rest)
    assert v[0] == drive


def test_what_leaves_its_format_is_held_and_counted_by_sample() -> None:
    numbers = Integer(POPULATION)
    numbers.forget(2)
    held = numbers.send(np.array([[40_000, 0, -40_000], [7, 32_768, 0]]))
    assert held.tolist() == [[32_767, 0, -32_768], [7, 32_767, 0]]
    assert numbers.saturated.tolist() == [2, 1]


def test_an_integer_gain_multiplies_and_rounds() -> None:
    p = Projection("a", "b", rescale=Rescale(3, -2), operator=None, weight="w")  # type: ignore[arg-type]
    assert gain(p, np.array([1.0, 2.0, -1.0])).tolist() == [1, 2, -1]


# --- equal to the reference --------------------------------------------------------------------


@needs_lava
@pytest.mark.parametrize("encoding", ["graded", "sigma-delta", "spike"])
def test_delays_and_exponents_by_channel_equal_the_reference(encoding: Any) -> None:
    spec = random_residual_spec(4)
    graph = graph_of(spec, encoding, bits=8, delays=True)
    assert any(p.exponent for p in graph.projections)
    assert_equal(*both(graph, *samples(spec, 3)))


@needs_lava
@pytest.mark.parametrize("encoding", ["graded", "sigma-delta", "spike"])
def test_saturations_are_those_of_the_reference_whatever_the_batching(encoding: Any) -> None:
    spec = random_residual_spec(3)
    graph = narrow(graph_of(spec, encoding, bits=8))
    mine, wanted = both(graph, *samples(spec, 5), batch=3)
    assert_equal(mine, wanted)
    assert all(mine.free.saturations.values()), "every population is to meet its limits"
    later = list(mine.phases.values())[1:]
    assert all(phase.saturations["input"] == 0 for phase in later)


def narrow(graph: Graph) -> Graph:
    """`graph` with formats so narrow, and biases so large, that inputs and states saturate."""
    populations = []
    for p in graph.populations:
        spiking = isinstance(p.dynamics, Spiking)
        message = FixedPoint(2, 0) if spiking else FixedPoint(8, 8)
        state = None if p.state is None else FixedPoint(17, 16)
        populations.append(replace(p, state=state, message=message))
    arrays = {name: a + (name.startswith("bias/") * (3 << 16)) for name, a in graph.arrays.items()}
    return replace(graph, populations=tuple(populations), arrays=arrays)


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("encoding", ["graded", "sigma-delta", "spike"])
@pytest.mark.parametrize("seed", range(10, 20))
def test_further_random_networks_equal_the_reference(encoding: Any, seed: int) -> None:
    """Ten more beside those of the conformance suite, some with weights of 3 bits."""
    spec = random_residual_spec(seed)
    graph = graph_of(spec, encoding, bits=8 if seed % 2 else 3, seed=seed)
    assert_equal(*both(graph, *samples(spec, 2)))
