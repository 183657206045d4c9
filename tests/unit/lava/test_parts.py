"""The parts of the Lava target that need no Lava: shared memory, connection, layout."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir.graph import (
    Conv,
    ConvTranspose,
    Dense,
    DenseTranspose,
    FixedPoint,
    Graded,
    Population,
    Projection,
    Rescale,
    Spiking,
)
from compilers.ir.operators import Operator
from ep_neuro.network.architectures import digits_residual
from targets.lava.connections.arithmetic import Integer
from targets.lava.connections.connection import Connection
from targets.lava.runtime.layout import unreached
from targets.lava.runtime.monitor import COUNTS, PopulationMonitor
from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays
from tests.helpers.graphs import graph_of, random_residual_spec

WEIGHT = np.random.default_rng(0).normal(size=(3, 4))

OPERATORS = st.sampled_from([Dense(), DenseTranspose(), Conv(2, 1), ConvTranspose(2, 1)])


def test_what_one_mapping_writes_the_other_reads() -> None:
    layout = {"a": ("float64", (3, 5)), "b": ("int64", (7,))}
    shared = SharedArrays.create(layout)
    other = SharedArrays(os.dup(shared.fd), layout)
    shared["a"][1, 2] = 0.25
    other["b"][:] = 7
    shared.plan = [PhaseCommand(steps=5)] * 2
    shared.plan = [PhaseCommand(0, 1, 0, 9, nudge=-0.5)]
    assert other["a"][1, 2] == 0.25
    assert shared["b"].tolist() == [7] * 7
    assert other.plan == [PhaseCommand(3, 1, 0, 9, nudge=-0.5)]
    assert other.number == 3
    shared.close()
    shared.close()
    assert other["a"][1, 2] == 0.25
    other.close()


@given(
    delay=st.integers(1, 4),
    sent=st.lists(st.lists(st.sampled_from([0.0, 0.5, -1.0]), min_size=4, max_size=4), min_size=8),
)
def test_changes_add_up_to_what_their_sum_would_cause(delay: int, sent: list[list[float]]) -> None:
    projection = Projection("a", "b", Dense(), "w", scale=1.5, delay=delay)
    path = Connection(projection, WEIGHT, (3,), adds_up=True)
    for t, message in enumerate(sent):
        current = path.current(np.array([message]))
        arrived = np.sum(sent[: max(0, t + 2 - delay)], axis=0) + np.zeros(4)
        np.testing.assert_allclose(current[0], 1.5 * WEIGHT @ arrived, atol=1e-12)


@given(bits=st.integers(1, 30), seed=st.integers(0, 99))
def test_integers_are_summed_exactly_in_numbers_that_hold_them(bits: int, seed: int) -> None:
    """Also where float32 no longer does, beyond 24 bits."""
    rng = np.random.default_rng(seed)
    weight, message = rng.integers(-127, 128, (3, 4)), rng.integers(-(1 << bits), 1 << bits, (2, 4))
    p = Projection("a", "b", Dense(), "w", rescale=Rescale(1, 0))
    path = Connection(p, weight.astype(np.float64), (3,))
    np.testing.assert_array_equal(path.apply(message), message @ weight.T)
    path.load(2.0 * weight)
    np.testing.assert_array_equal(path.apply(message), 2 * message @ weight.T)


@given(
    operator=OPERATORS,
    gain=st.builds(Rescale, st.integers(-9, 9), st.integers(-40, 30)),
    seed=st.integers(0, 99),
)
def test_spikes_come_to_what_any_messages_do(operator: Operator, gain: Rescale, seed: int) -> None:
    """Also where 32 bits hold no sum, and where nothing is left of it."""
    rng, ends = np.random.default_rng(seed), ((3, 5, 4), (2, 3, 2))
    pre, post = ends[::-1] if isinstance(operator, ConvTranspose) else ends
    image = isinstance(operator, Conv | ConvTranspose)
    rows, columns = (60, 12) if isinstance(operator, DenseTranspose) else (12, 60)
    weight = rng.integers(-127, 128, (2, 3, 3, 3) if image else (rows, columns))
    spikes = (rng.random((4, *pre)) < rng.random()).astype(np.int8)
    p = Projection("a", "b", operator, "w", rescale=gain)
    senders = Population("a", pre, Spiking(), message=FixedPoint(2, 0))
    plain, fast = (
        Connection(p, weight.astype(np.float64), post, sparse=s) for s in (None, senders)
    )
    np.testing.assert_array_equal(fast.current(spikes), plain.weigh(spikes))


@given(
    operator=OPERATORS,
    gain=st.builds(Rescale, st.integers(-9, 9), st.integers(-40, 30)),
    bits=st.sampled_from([8, 20]),
    seed=st.integers(0, 99),
)
def test_changes_of_messages_come_to_what_whole_ones_do(
    operator: Operator, gain: Rescale, bits: int, seed: int
) -> None:
    """Whatever was sent before, with other weights or of other samples."""
    rng, ends = np.random.default_rng(seed), ((3, 5, 4), (2, 3, 2))
    pre, post = ends[::-1] if isinstance(operator, ConvTranspose) else ends
    image = isinstance(operator, Conv | ConvTranspose)
    rows, columns = (60, 12) if isinstance(operator, DenseTranspose) else (12, 60)
    weights = rng.integers(-127, 128, (2, *((2, 3, 3, 3) if image else (rows, columns))))
    p = Projection("a", "b", operator, "w", rescale=gain)
    senders = Population("a", pre, Graded(), message=FixedPoint(bits, 4))
    first, second = weights.astype(np.float64)
    plain, fast = (Connection(p, first, post, sparse=s) for s in (None, senders))
    most = senders.message.range[1]
    for samples, weight in ((4, None), (4, None), (4, second), (3, None)):
        message = rng.integers(-most, most + 1, (samples, *pre)) * (rng.random(pre) < rng.random())
        for path in (plain, fast):
            if weight is not None:
                path.load(weight)
        np.testing.assert_array_equal(fast.current(message), plain.weigh(message))


@given(
    leak=st.sampled_from([1.0, 0.5, 0.3]),
    reset=st.sampled_from(["soft", "hard"]),
    bits=st.sampled_from([12, 24]),
    seed=st.integers(0, 99),
)
def test_compiled_steps_of_spikes_come_to_the_same_bits(
    leak: float, reset: str, bits: int, seed: int
) -> None:
    """Currents that meet the end of their format are counted, too."""
    rng, state = np.random.default_rng(seed), FixedPoint(bits, 8)
    population = Population(
        "a", (3, 2), Spiking(leak=leak, reset=reset), state=state, message=FixedPoint(8, 0)
    )
    plain, compiled = Integer(population), Integer(population)
    plain.runs_compiled = False
    held = []
    for numbers in (plain, compiled):
        numbers.forget(2)
        held.append([np.zeros((2, 3, 2), np.int64)] * 3)
    for _ in range(9):
        drive = rng.integers(-(1 << 13), 1 << 13, (2, 3, 2))
        spikes = []
        for i, numbers in enumerate((plain, compiled)):
            u, v, sent, rest = numbers.fire(held[i][0], held[i][1], drive, held[i][2])
            held[i] = [u, v, rest]
            spikes.append(sent)
        np.testing.assert_array_equal(spikes[0], spikes[1])
        np.testing.assert_array_equal(held[0][:2], held[1][:2])
        np.testing.assert_array_equal(plain.saturated, compiled.saturated)


@given(
    leak=st.sampled_from([1.0, 0.5, 0.3]),
    message=st.sampled_from([FixedPoint(16, 4), FixedPoint(16, 8), FixedPoint(20, 10)]),
    bits=st.sampled_from([12, 24]),
    seed=st.integers(0, 99),
)
def test_so_do_those_of_graded_neurons(
    leak: float, message: FixedPoint, bits: int, seed: int
) -> None:
    rng, state = np.random.default_rng(seed), FixedPoint(bits, 8)
    population = Population(
        "a", (3, 2), Graded(leak=leak), box=(-0.5, 1.5), state=state, message=message
    )
    plain, compiled = Integer(population), Integer(population)
    assert compiled.runs_compiled
    plain.runs_compiled = False
    held = [[np.zeros((2, 3, 2), np.int64)] * 2 for _ in range(2)]
    for numbers in (plain, compiled):
        numbers.forget(2)
    for _ in range(9):
        drive = rng.integers(-(1 << 13), 1 << 13, (2, 3, 2))
        shown = []
        for i, numbers in enumerate((plain, compiled)):
            v, rest, z = numbers.relax(held[i][0], drive, held[i][1])
            held[i] = [v, rest]
            shown.append(z)
        np.testing.assert_array_equal(*shown)
        np.testing.assert_array_equal(held[0][0], held[1][0])
        np.testing.assert_array_equal(plain.saturated, compiled.saturated)


@given(delay=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_value_arrives_after_its_delay_and_does_not_linger(delay: int, seed: int) -> None:
    path = Connection(Projection("a", "b", Dense(), "w", delay=delay), WEIGHT, (3,))
    path.rest(2)
    sent = np.random.default_rng(seed).normal(size=(6, 2, 4))
    for t, message in enumerate(sent):
        current = path.current(message)
        wanted = sent[t + 1 - delay] @ WEIGHT.T if t + 1 >= delay else np.zeros((2, 3))
        np.testing.assert_allclose(current, wanted, atol=1e-12)


def test_every_feedback_finds_the_projection_it_is_tied_to() -> None:
    graph = graph_of(digits_residual())
    pairs = graph.tied(recurrent=True)
    assert [(tie.pre, tie.post) for tie in pairs] == [
        *(("h1", "h2"), ("h2", "h3"), ("h3", "h4"), ("h2", "h4"), ("h4", "output")),
    ]
    assert all(tie.forward and tie.backward for tie in pairs)
    assert all(p.weight == t.weight for t in pairs for p in (t.forward, t.backward) if p)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_that_neurons_send_to_is_unreached(seed: int) -> None:
    graph = graph_of(random_residual_spec(seed))
    assert unreached(graph) == []


def test_events_and_synaptic_operations_are_counted_per_sample() -> None:
    kinds = (*COUNTS, "updates")
    layout = {f"{kind}/a": ("int64", (2, 2)) for kind in kinds}
    shared = SharedArrays.create(layout)
    records = {name: shared[name] for name in layout}
    met = (np.array([2, 3, 5]), np.array([2, 0, 5]))
    monitor = PopulationMonitor(shared, "a", *met, lambda command: records)
    monitor.begin(PhaseCommand(steps=2, rows=2))
    monitor.count(1, np.array([[0.0, -0.5, 1.0], [1.0, 0.0, 0.0]]), last=True)
    assert shared["events/a"].tolist() == [[2, 1], [0, 0]]
    assert shared["synops/a"].tolist() == [[8, 2], [0, 0]]
    assert shared["nonzero_synops/a"].tolist() == [[5, 2], [0, 0]]
    monitor.compare(2, np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]), np.zeros((2, 3)))
    assert shared["updates/a"].tolist() == [[0, 0], [2, 0]]
    shared.close()
