"""Claims about NEST at work: what it computes beyond the conformance suite, and what it refuses."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import compilers
import targets
from compilers.hardware.limits import Quantity
from compilers.ir import graph as ir
from compilers.passes.encode import UNBOUNDED, with_spiking
from compilers.passes.make_plastic import make_plastic
from compilers.program import Program
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError, RunError, TargetError
from ep_neuro.network.architectures import digits_dense
from ep_neuro.network.network import Network
from targets.interface.fanout import sites
from targets.interface.protocols import RunResult
from targets.nest import BACKEND
from targets.nest.backend import plain_spikes
from targets.nest.network import REACH
from tests.helpers.graphs import graph_of, random_residual_spec, samples
from tests.helpers.oracle import unrolled
from tests.helpers.targets import needs

needs_nest = needs("nest")

SPEC = random_residual_spec(4)


def run(graph: ir.Graph, target: str = "nest", **options: object) -> RunResult:
    """All phases of two samples with every membrane."""
    program = Program(target, graph, options)
    probes = [f"{p.name}.v" for p in graph.neurons]
    with targets.open(program) as session:
        return session.settle(*samples(SPEC, 2, seed=4), probes=probes)


def assert_equals_the_reference(graph: ir.Graph, **options: object) -> None:
    mine, other = run(graph, **options), run(graph, "reference")
    for name, phase in other.phases.items():
        for probe, values in phase.probes.items():
            np.testing.assert_allclose(mine.phases[name].probes[probe], values, rtol=0, atol=1e-12)


def linear_output(graph: ir.Graph) -> ir.Graph:
    """`graph`, whose output has no box."""
    free = [replace(p, box=None) if p.name == "out" else p for p in graph.populations]
    return replace(graph, populations=tuple(free))


# --- what it computes --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_synapses_of_a_projection_are_its_matrix(seed: int) -> None:
    graph = graph_of(random_residual_spec(seed))
    for p in graph.projections:
        pre, post = graph.population(p.pre), graph.population(p.post)
        matrix, met = np.zeros((post.size, pre.size)), np.zeros((post.size, pre.size), int)
        for early, late, weights in sites(graph, p):
            np.add.at(matrix, (late, early), weights)
            np.add.at(met, (late, early), 1)
        np.testing.assert_array_equal(matrix, unrolled(graph, p))
        assert met.max() == 1


@needs_nest
def test_a_linear_output_is_computed_within_a_window_that_it_must_not_leave() -> None:
    graph = linear_output(graph_of(SPEC))
    assert_equals_the_reference(graph)
    output = graph.population("out")
    assert output.bias is not None
    far = {**graph.arrays, output.bias: graph.arrays[output.bias] + 3 * REACH}
    with pytest.raises(RunError, match=r"'out': a state is beyond 64.*give it a box"):
        run(replace(graph, arrays=far))


@needs_nest
@pytest.mark.parametrize("code", ["graded", "spike"])
def test_threads_change_no_result(code: ir.Encoding) -> None:
    assert_equals_the_reference(plain_spikes(graph_of(SPEC, code)), threads=2)


@needs_nest
def test_leaks_and_boxes_of_their_own_are_kept() -> None:
    graph = graph_of(SPEC)
    shaped = [
        replace(
            p, dynamics=ir.Graded(leak=(0.3, 1.0)[i % 2]), box=((-0.5, 1.5), (-1.0, 0.1))[i % 2]
        )
        for i, p in enumerate(graph.neurons)
    ]
    assert_equals_the_reference(replace(graph, populations=(*graph.sources, *shaped)))


def test_compiling_spikes_leaves_out_filter_and_bound() -> None:
    program = compilers.compile(Network(digits_dense(), 0), target="nest", code="spike")
    assert {p.dynamics for p in program.graph.neurons} == {ir.Spiking(1.0, UNBOUNDED)}
    assert not BACKEND.check(program.graph)


@needs_nest
def test_membranes_that_spikes_change_are_counted_without_a_probe_of_them() -> None:
    graph, (x, _), found = plain_spikes(graph_of(SPEC, "spike")), samples(SPEC, 2, seed=4), []
    for target in ("nest", "reference"):
        with targets.open(Program(target, graph)) as session:
            found.append(session.settle(x, updates=True).free.updates)
    assert found[0].keys() == found[1].keys()
    for name, counts in found[1].items():
        np.testing.assert_array_equal(found[0][name], counts)


@needs_nest
def test_what_nest_prints_reaches_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    run(graph_of(SPEC))
    assert capfd.readouterr() == ("", "")


# --- what it refuses ---------------------------------------------------------------------------


def spiking(**changes: object) -> ir.Graph:
    return with_spiking(plain_spikes(graph_of(SPEC, "spike")), **changes)


def late(graph: ir.Graph) -> ir.Graph:
    return replace(graph, projections=tuple(replace(p, delay=2) for p in graph.projections))


def boxed(graph: ir.Graph) -> ir.Graph:
    return replace(graph, populations=tuple(replace(p, box=(0.5, 1.0)) for p in graph.populations))


REFUSED: dict[str, tuple[Callable[[], ir.Graph], str]] = {
    "integers": (lambda: graph_of(SPEC, bits=8), "real numbers.*compile without --bits"),
    "sigma-delta": (lambda: graph_of(SPEC, "sigma-delta"), "sigma-delta populations"),
    "learning": (lambda: make_plastic(graph_of(SPEC)), "weights that learn"),
    "leak": (lambda: spiking(leak=0.5), "spiking leaks below 1"),
    "reset": (lambda: spiking(reset="hard"), "hard resets"),
    "bound": (lambda: spiking(bound=1.0), "bounds of spiking membranes"),
    "box": (lambda: boxed(graph_of(SPEC)), "boxes without 0.*fold_boxes"),
    "delay": (lambda: late(graph_of(SPEC)), "delays of other than 1 step"),
}


@needs_nest
@pytest.mark.parametrize("what", REFUSED)
def test_what_its_neurons_cannot_do_is_refused_in_one_line(what: str) -> None:
    make, said = REFUSED[what]
    with pytest.raises(TargetError, match=said) as caught:
        BACKEND.open(BACKEND.emit(make()))
    assert "\n" not in str(caught.value)


def test_more_synapses_than_a_host_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"synapses": Quantity(10, "synapses", "")}
    monkeypatch.setattr(BACKEND, "bounds", few)
    (found,) = BACKEND.check(graph_of(SPEC))
    assert found.limit == 10
    assert "narrow the feature maps" in found.remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", 0), ("threads", 1.5), ("threads", True), ("time_limit", 0), ("time_limit", "x")],
)
def test_an_option_out_of_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"target 'nest', option '{name}': is {value!r}"):
        compilers.compile(Network(digits_dense(), 0), target="nest", options={name: value})


def test_without_nest_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TargetError, match=r"not installed; `pip install 'ep-neuro\[nest\]'`"):
        BACKEND.open(BACKEND.emit(graph_of(SPEC)))


# --- what goes wrong ---------------------------------------------------------------------------


@needs_nest
def test_a_phase_that_takes_too_long_is_ended_and_the_next_call_begins_anew() -> None:
    graph = graph_of(SPEC)
    with BACKEND.open(Program("nest", graph, {"time_limit": 1e-6})) as session:
        for _ in range(2):
            with pytest.raises(RunError, match="the limit 'time_limit'; raise time_limit"):
                session.settle(samples(SPEC, 1, seed=4)[0], steps=20_000)


@needs_nest
def test_a_network_that_diverges_says_so() -> None:
    spec: NetworkSpec = SPEC
    graph = graph_of(spec)
    huge = {name: 1e300 * np.ones_like(a, np.float64) for name, a in graph.arrays.items()}
    with pytest.raises(RunError) as caught:
        run(replace(linear_output(graph), arrays=huge))
    assert "\n" not in str(caught.value)
