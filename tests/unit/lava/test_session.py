"""The Lava session: one network for many calls, equal to the reference whatever the batching."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compilers.ir.graph import Graded, Graph
from compilers.program import Program
from ep_neuro.errors import ConfigError, RunError, TargetError
from ep_neuro.network.architectures import digits_dense
from targets.interface.protocols import Backend
from targets.interface.request import Probe
from targets.interface.supervised.process import members
from targets.lava import BACKEND
from targets.lava.runtime.layout import NetworkLayout
from targets.lava.runtime.shared_memory import size_of
from targets.lava.session import LavaSession
from targets.reference import BACKEND as REFERENCE
from tests.helpers.graphs import graph_of, random_residual_spec, samples
from tests.helpers.targets import needs

pytestmark = pytest.mark.timeout(60)

needs_lava = needs("lava")


def small_graph(encoding: Any = "graded", **options: Any) -> Graph:
    return graph_of(random_residual_spec(3), encoding, **options)


def opened(graph: Graph, **options: Any) -> LavaSession:
    return BACKEND.open(Program("lava", graph, options))


@pytest.fixture
def session() -> Iterator[LavaSession]:
    with opened(small_graph()) as session:
        yield session


def reference(graph: Graph, *args: Any, **options: Any) -> Any:
    with REFERENCE.open(Program("reference", graph)) as session:
        return session.settle(*args, **options)


# --- equal to the reference --------------------------------------------------------------------


@needs_lava
@pytest.mark.parametrize("encoding", ["graded", "sigma-delta", "spike"])
def test_delays_and_projections_without_partner_equal_the_reference(encoding: str) -> None:
    graph = small_graph(encoding, delays=True)
    _, *kept = graph.projections[::-1]
    graph = replace(graph, projections=tuple(kept[::-1]))
    x, y = samples(random_residual_spec(3), 5)
    probes = [f"{p.name}.v" for p in graph.neurons]
    with opened(graph) as session:
        result = session.settle(x, y, probes=probes)
    wanted = reference(graph, x, y, probes=probes)
    for name, phase in result.phases.items():
        for probe in probes:
            np.testing.assert_allclose(
                phase.probes[probe], wanted.phases[name].probes[probe], atol=1e-12
            )
        for population in phase.events:
            np.testing.assert_array_equal(
                phase.synops[population], wanted.phases[name].synops[population]
            )


@needs_lava
def test_the_batching_changes_nothing_and_progress_counts_samples() -> None:
    graph = small_graph("sigma-delta")
    x, y = samples(random_residual_spec(3), 7)
    done: list[tuple[int, int]] = []
    with opened(graph, batch=3) as session:
        result = session.settle(x, y, progress=lambda *counts: done.append(counts))
    wanted = reference(graph, x, y)
    for name, phase in result.phases.items():
        np.testing.assert_allclose(phase.outputs, wanted.phases[name].outputs, atol=1e-12)
        for population in phase.events:
            np.testing.assert_array_equal(
                phase.events[population], wanted.phases[name].events[population]
            )
    assert done == [(3, 7), (6, 7), (7, 7)]


# --- one network for many calls ----------------------------------------------------------------


@needs_lava
def test_samples_steps_probes_and_a_nudge_need_no_other_network(session: LavaSession) -> None:
    x, y = samples(random_residual_spec(3), 4)
    first, groups = session.settle(x, y), {session._network.process.pid}
    again = session.settle(x[:2], steps=3)
    assert again.free.events["out"].shape == (3, 2)
    probed = session.settle(x, y, probes=["out.z", "out.v"])
    assert session.settle(x[:1], steps=90).free.events["out"].shape == (90, 1)
    last = session.settle(x, y)
    groups.add(session._network.process.pid)
    assert len(groups) == 1
    for name, phase in first.phases.items():
        for other in (probed, last):
            np.testing.assert_array_equal(other.phases[name].outputs, phase.outputs)
            np.testing.assert_array_equal(other.phases[name].events["out"], phase.events["out"])
    assert last.free.probes == {}
    assert list(probed.free.probes) == ["out.z", "out.v"]


@needs_lava
def test_records_beyond_the_memory_divide_the_samples_or_else_start_with_more(
    session: LavaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("targets.lava.session.SHARED_BYTES", 2_000)
    x, _ = samples(random_residual_spec(3), 5)
    done: list[tuple[int, int]] = []
    session.settle(x, steps=12, progress=lambda *counts: done.append(counts))
    assert len(done) > 1
    group = session._network.process.pid
    assert session.settle(x, steps=900).free.events["out"].shape == (900, 5)
    assert session._network.process.pid != group
    assert members(group) == []


def test_batches_are_equal_in_size_and_within_the_memory_for_records() -> None:
    layout = NetworkLayout(graph_of(digits_dense()), 128, 1 << 20)
    assert layout.rows(300, 10, ()) == 100
    probes = [Probe("h1", "v")]
    few = layout.rows(300, 50, probes)
    assert 15 < few < 100
    assert size_of(layout.records(50, few, probes)) <= 1 << 20


# --- failures ----------------------------------------------------------------------------------


def settle_for(seconds: float, session: LavaSession, x: np.ndarray) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        session.settle(x)


@needs_lava
def test_a_killed_process_is_an_error_in_time_and_the_session_recovers() -> None:
    graph = graph_of(digits_dense())
    x, _ = samples(digits_dense(), 4)
    with opened(graph) as session:
        wanted = session.settle(x).free.outputs
        group = session._network.process.pid
        victim = sorted(set(members(group)) - {group})[3]
        threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
        began = time.monotonic()
        with pytest.raises(RunError, match="was killed by SIGKILL during '"):
            settle_for(10.0, session, x)
        assert time.monotonic() - began < 10
        assert members(group) == []
        np.testing.assert_array_equal(session.settle(x).free.outputs, wanted)


@needs_lava
def test_an_array_that_does_not_fit_names_the_process_and_the_cause() -> None:
    graph = graph_of(digits_dense())
    (weight,) = {p.weight for p in graph.into(graph.output)}
    arrays = {**graph.arrays, weight: graph.arrays[weight][:, :-1]}
    x, _ = samples(digits_dense(), 2)
    with (
        opened(replace(graph, arrays=arrays)) as session,
        pytest.raises(RunError, match="lava process 'h1<->output': it raised ValueError"),
    ):
        session.settle(x)


@needs_lava
def test_a_phase_has_a_time_limit() -> None:
    x, _ = samples(digits_dense(), 2)
    with (
        opened(graph_of(digits_dense(), steps=5000), time_limit=0.2) as session,
        pytest.raises(RunError, match=r"had not ended after 0\.2 s, the limit 'time_limit'"),
    ):
        session.settle(x)


@needs_lava
def test_a_diverging_network_is_an_error() -> None:
    graph = graph_of(digits_dense(), steps=400)
    populations = tuple(
        replace(p, box=None, dynamics=Graded(leak=1.0)) if p in graph.neurons else p
        for p in graph.populations
    )
    arrays = {name: 50 * a for name, a in graph.arrays.items()}
    x, _ = samples(digits_dense(), 2)
    with (
        opened(replace(graph, populations=populations, arrays=arrays)) as session,
        pytest.raises(RunError, match="the output is not finite after 400 steps"),
    ):
        session.settle(x)


@needs_lava
def test_a_closed_session_refuses_work_and_leaves_nothing(session: LavaSession) -> None:
    x, _ = samples(random_residual_spec(3), 2)
    session.settle(x)
    group = session._network.process.pid
    session.close()
    session.close()
    assert members(group) == []
    with pytest.raises(RunError, match="it is closed"):
        session.settle(x)


@needs_lava
def test_lava_writes_nothing_to_standard_output_or_error(
    session: LavaSession, capfd: pytest.CaptureFixture[str]
) -> None:
    session.settle(samples(random_residual_spec(3), 2)[0])
    session.close()
    assert capfd.readouterr() == ("", "")


# --- the backend -------------------------------------------------------------------------------


def test_it_is_a_backend_that_names_what_it_lacks() -> None:
    assert isinstance(BACKEND, Backend)
    assert set(BACKEND.unsupported) == set()


def test_all_violations_are_found_at_once() -> None:
    graph = small_graph()
    graph = replace(graph, projections=(replace(graph.projections[-1], delay=0),))
    alone = replace(graph.neurons[0], name="alone", bias=None)
    graph = replace(graph, populations=(*graph.populations, alone))
    found = [str(v) for v in BACKEND.check(graph)]
    assert len(found) == 2
    assert "feedback loops without a buffer" in found[0]
    assert "alone" in found[1]
    with pytest.raises(TargetError, match="2 violations in all"):
        opened(graph)


def test_a_feedback_loop_without_a_buffer_is_refused_before_anything_starts() -> None:
    graph = small_graph()
    *others, last = graph.projections
    graph = replace(graph, projections=(*others, replace(last, delay=0)))
    with pytest.raises(TargetError, match=f"delay {last.name} by 1 step") as caught:
        opened(graph)
    assert "\n" not in str(caught.value)


def test_a_graph_that_is_quantised_in_part_is_refused() -> None:
    graph = small_graph(bits=8)
    _, *others = graph.populations
    first, *rest = others
    bare = replace(graph, populations=(graph.populations[0], replace(first, state=None), *rest))
    assert [v.value for v in BACKEND.check(bare)] == [1]
    assert "without a number format" in str(BACKEND.check(bare)[0])


def test_integers_that_could_overflow_are_refused() -> None:
    graph = small_graph(bits=8)
    tied = {name: a for name, a in graph.arrays.items() if name in graph.ties}
    wide = {name: a.astype(np.int64) * 2**40 for name, a in tied.items()}
    violations = BACKEND.check(replace(graph, arrays={**graph.arrays, **wide}))
    assert violations
    assert all("exceed the limit" in str(v) for v in violations)


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0},
        {"batch": 1.5},
        {"time_limit": -1},
        {"time_limit": 10**400},
        {"start_limit": "soon"},
        {"lowering": "slow"},
    ],
)
def test_an_option_out_of_range_is_refused(options: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"target 'lava', option '{next(iter(options))}'"):
        BACKEND.passes(options)


def test_a_program_lists_its_processes_one_for_each_coupling() -> None:
    program = BACKEND.emit(graph_of(digits_dense(), "spike"))
    lines = [line.split(maxsplit=1) for line in program.files["processes.txt"].splitlines()]
    assert lines == [
        ["Source", "input [1, 8, 8]"],
        ["Spiking", "h1 [128]"],
        ["Spiking", "output [10]"],
        ["FromInput", "input->h1"],
        ["Coupling", "h1<->output"],
    ]


def test_the_energy_of_a_run_grows_with_its_events() -> None:
    graph = graph_of(digits_dense(), "sigma-delta")
    x, _ = samples(digits_dense(), 3)
    program = BACKEND.emit(graph)
    few, many = (reference(graph, x, steps=n) for n in (4, 40))
    costs = [BACKEND.estimate(program, result) for result in (few, many)]
    assert 0 < costs[0].energy_joule < costs[1].energy_joule
    assert "Davies" in costs[0].source
