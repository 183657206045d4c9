"""The faithful lowering: layers of stock processes that compute what the reference computes."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compilers.ir.graph import FixedPoint, Graph, Rescale, Source
from compilers.ir.operators import apply
from compilers.passes.quantize import quantize
from compilers.pipeline import compile_network
from compilers.program import Program
from ep_neuro.errors import ConfigError, RunError
from ep_neuro.network.architectures import digits_dense, digits_residual
from ep_neuro.network.network import Network
from targets.interface.protocols import RunResult
from targets.interface.request import variables
from targets.interface.supervised.process import members
from targets.lava import BACKEND
from targets.lava.connections.native import OWN, kind, largest_message, matrix, misfit
from targets.lava.runtime.layout import FAITHFUL
from targets.lava.session import LavaSession
from targets.reference import BACKEND as REFERENCE
from tests.helpers.graphs import graph_of, random_residual_spec, samples
from tests.helpers.targets import needs

pytestmark = pytest.mark.timeout(60)

needs_lava = needs("lava")

ENCODINGS = ["graded", "sigma-delta", "spike"]


def opened(graph: Graph) -> LavaSession:
    return BACKEND.open(Program("lava", graph, {"lowering": FAITHFUL}))


def both(graph: Graph, x: np.ndarray, y: np.ndarray) -> tuple[RunResult, RunResult]:
    """The run of `graph` on Lava and on the reference, with every probe."""
    probes = [f"{p.name}.{v}" for p in graph.populations for v in variables(p)]
    with opened(graph) as session:
        mine = session.settle(x, y, probes=probes)
    with REFERENCE.open(Program("reference", graph)) as oracle:
        return mine, oracle.settle(x, y, probes=probes)


def assert_equal(mine: RunResult, wanted: RunResult, tolerance: float) -> None:
    assert list(mine.phases) == list(wanted.phases)
    for name, phase in mine.phases.items():
        other = wanted.phases[name]
        np.testing.assert_allclose(phase.outputs, other.outputs, rtol=0, atol=tolerance)
        for probe, values in phase.probes.items():
            np.testing.assert_allclose(
                values, other.probes[probe], rtol=0, atol=tolerance, err_msg=f"{name} {probe}"
            )
        for population, counts in phase.events.items():
            np.testing.assert_array_equal(counts, other.events[population])
            np.testing.assert_array_equal(phase.synops[population], other.synops[population])
        assert phase.saturations == other.saturations


def stock_graph(graph: Graph) -> Graph:
    """`graph` in integers with gains that stock processes compute right, inputs in 9 bits."""
    populations = tuple(
        replace(p, message=FixedPoint(9, 8)) if isinstance(p.dynamics, Source) else p
        for p in graph.populations
    )
    shift = 8 if graph.encoding == "spike" else 1
    projections = tuple(
        replace(p, rescale=Rescale(1, shift), exponent=None) for p in graph.projections
    )
    return replace(graph, populations=populations, projections=projections)


# --- equal to the reference --------------------------------------------------------------------


@needs_lava
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_states_in_floating_point_equal_the_reference(encoding: Any) -> None:
    spec = random_residual_spec(3)
    assert_equal(*both(graph_of(spec, encoding), *samples(spec, 2)), BACKEND.tolerance)


@needs_lava
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_integers_of_stock_processes_equal_the_reference(encoding: Any) -> None:
    spec = random_residual_spec(3)
    graph = stock_graph(graph_of(spec, encoding, bits=8))
    assert {kind(graph, p) for p in graph.projections} == {"Dense", "Sparse"}
    assert_equal(*both(graph, *samples(spec, 2)), 0.0)


@needs_lava
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_integers_of_our_own_synapses_equal_the_reference(encoding: Any) -> None:
    spec = random_residual_spec(3)
    graph = graph_of(spec, encoding, bits=8)
    assert {kind(graph, p) for p in graph.projections} == {OWN}
    assert_equal(*both(graph, *samples(spec, 2)), 0.0)


@needs_lava
@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bits", [None, 8])
def test_the_digits_network_starts_and_steps_in_time(encoding: Any, bits: int | None) -> None:
    """At most 5 s and 3 ms on two idle cores; the best of several samples counts."""
    graph = graph_of(digits_residual(), encoding, bits=bits, steps=64)
    x, _ = samples(digits_residual(), 16)
    with opened(graph) as session:
        began = time.perf_counter()
        session.settle(x[:1])
        assert time.perf_counter() - began < 5 + 64 * 3e-3
        best = min(session.settle(x[n : n + 1]).seconds for n in range(1, len(x)))
    assert best / 64 < 3e-3


# --- what stock processes can do ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_matrix_computes_what_its_operator_computes(seed: int) -> None:
    pytest.importorskip("scipy")
    graph = graph_of(random_residual_spec(seed))
    rng = np.random.default_rng(seed)
    for p in graph.projections:
        pre, post = graph.population(p.pre).shape, graph.population(p.post).shape
        x = rng.normal(size=(1, *pre))
        weight = graph.arrays[p.weight].astype(np.float64)
        wanted = apply(p.operator, weight, x, post).ravel()
        np.testing.assert_allclose(matrix(p, weight, pre, post) @ x.ravel(), wanted, atol=1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_message_exceeds_the_bound_that_rules_out_an_overflow(encoding: Any) -> None:
    spec = random_residual_spec(6)
    graph = graph_of(spec, encoding, bits=8, steps=40)
    probes = [f"{p.name}.message" for p in graph.neurons]
    with REFERENCE.open(Program("reference", graph)) as session:
        result = session.settle(*samples(spec, 8), probes=probes)
    for phase in result.phases.values():
        for p in graph.neurons:
            assert np.abs(phase.probes[f"{p.name}.message"]).max() <= largest_message(p)


@pytest.mark.parametrize("encoding", ["graded", "sigma-delta"])
def test_more_fractional_bits_of_state_make_more_projections_stock(encoding: str) -> None:
    """With 16, most gains of the digits network shift to the right, which stock processes floor."""
    floating = compile_network(Network(digits_residual(), 0), REFERENCE, code=encoding).graph
    stock = []
    for frac in (16, 20):
        graph = quantize(floating, 8, state=FixedPoint(24, frac))
        stock.append(sum(kind(graph, p) != OWN for p in graph.projections))
    assert stock[0] < len(floating.projections) / 2
    assert stock[1] > len(floating.projections) / 2


@needs_lava
def test_with_21_fractional_bits_the_digits_network_is_stock_and_every_bit_is_right() -> None:
    network = Network(digits_residual(), 0)
    graph = compile_network(
        network, REFERENCE, code="sigma-delta", bits=8, state_frac=21, steps=12
    ).graph
    assert all(kind(graph, p) != OWN for p in graph.projections)
    x, y = samples(network.spec, 1, 0)
    mine, wanted = both(graph, x, y)
    assert_equal(mine, wanted, 0)
    assert wanted.phases["free"].events["h3"].sum() > 0


def test_every_reason_against_a_stock_process_is_told() -> None:
    graph = stock_graph(graph_of(random_residual_spec(3), bits=8))
    p = graph.projections[-1]
    assert misfit(graph, p) is None
    channels = np.zeros(len(graph.arrays[p.weight]), np.int32)
    changes: dict[str, dict[str, Any]] = {
        "exponents of their own": {"exponent": "e"},
        "no power of two": {"rescale": Rescale(3, 1)},
        "cut bits off": {"rescale": Rescale(1, -1)},
        "exceed 32 bits": {"rescale": Rescale(1, 24)},
        "no integer gain": {"rescale": None},
    }
    for reason, change in changes.items():
        changed = replace(graph, arrays={**graph.arrays, "e": channels})
        assert reason in str(misfit(changed, replace(p, **change)))
    wide = {p.weight: graph.arrays[p.weight] + 128}
    assert "exceed 127" in str(misfit(replace(graph, arrays={**graph.arrays, **wide}), p))


def test_a_program_lists_its_layers_with_what_is_inside() -> None:
    program = BACKEND.emit(graph_of(digits_dense(), "spike", bits=8))
    lines = program.files["layers.txt"].splitlines()
    assert [line.split()[0] for line in lines] == [
        *("Source", "HopfieldLayer", "Synapses", "Synapses", "HopfieldLayer", "Synapses"),
        "Nudge",
    ]
    assert "  Synapses       input->h1: its gain is no power of two" in lines
    floating = BACKEND.emit(graph_of(digits_dense(), "spike")).files["layers.txt"]
    assert "  Dense          h1->output" in floating


# --- refusals and failures ---------------------------------------------------------------------


def test_a_delay_that_stock_processes_cannot_hold_is_refused() -> None:
    if not BACKEND.available().available:
        pytest.skip(BACKEND.available().reason)
    with pytest.raises(ConfigError, match=r"exceed the 1 that .*; use lowering batched"):
        opened(graph_of(random_residual_spec(3), delays=True))


def settle_again_and_again(session: LavaSession, x: np.ndarray) -> None:
    for _ in range(1000):
        session.settle(x)


@needs_lava
def test_a_killed_projection_inside_a_layer_is_an_error_in_time() -> None:
    x, _ = samples(digits_dense(), 1)
    with opened(graph_of(digits_dense(), steps=20)) as session:
        session.settle(x)
        group = session._network.process.pid
        victims = sorted(set(members(group)) - {group})
        threading.Timer(0.3, os.kill, (victims[4], signal.SIGKILL)).start()
        began = time.monotonic()
        with pytest.raises(RunError, match="was killed by SIGKILL during '"):
            settle_again_and_again(session, x)
        assert time.monotonic() - began < 10
        assert members(group) == []
