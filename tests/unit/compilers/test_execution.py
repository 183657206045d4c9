"""The executor: narrow numbers and skipped samples change no bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import targets
from compilers.execution import arithmetic, constants, exact_parts, maps, streams
from compilers.execution.engine import Engine
from compilers.execution.maps import FEW, Apply, inward, linear_map, outward
from compilers.ir.graph import (
    Conv,
    Dense,
    DenseTranspose,
    Encoding,
    FixedPoint,
    Graded,
    Graph,
    Operator,
    Population,
    Projection,
    Rescale,
    Shape,
)
from compilers.ir.operators import adjoint, apply
from targets.interface.graph_simulator import GraphSimulator
from targets.interface.protocols import RunResult
from targets.interface.request import prepare
from tests.helpers.cuda import needs_cuda
from tests.helpers.graphs import DYNAMICS, graph_of, random_residual_spec, samples

REFERENCE = targets.get("reference")


def run(graph: Graph, x: np.ndarray, y: np.ndarray | None = None, probe: str = "v") -> RunResult:
    probes = [f"{p.name}.{probe}" for p in graph.neurons]
    with REFERENCE.open(REFERENCE.emit(graph)) as session:
        return session.settle(x, y, probes=probes)


def whole(graph: Graph) -> arithmetic.Integer:
    return arithmetic.Integer(graph, torch.device("cpu"))


def assert_same(one: RunResult, other: RunResult) -> None:
    for name, phase in one.phases.items():
        again = other.phases[name]
        np.testing.assert_array_equal(phase.outputs, again.outputs)
        assert phase.saturations == again.saturations
        for record in ("events", "synops", "probes"):
            for key, values in getattr(phase, record).items():
                np.testing.assert_array_equal(values, getattr(again, record)[key], err_msg=key)


# --- linear maps -------------------------------------------------------------------------------


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Conv, tuple[int, ...], list[tuple]]:
    """Conv, weight shape, shapes of pre and post; odd sizes and unused rows included."""
    kernel, stride, padding = (draw(st.integers(*ends)) for ends in ((1, 4), (1, 3), (0, 3)))
    shortest = max(1, kernel - 2 * padding)
    h, w = (draw(st.integers(shortest, shortest + 6)) for _ in range(2))
    c, o = (draw(st.integers(1, 3)) for _ in range(2))
    sides = [(n + 2 * padding - kernel) // stride + 1 for n in (h, w)]
    return Conv(stride, padding), (o, c, kernel, kernel), [(c, h, w), (o, *sides)]


def mapped(way: Operator, w: np.ndarray, start: Shape, end: Shape, x: np.ndarray) -> np.ndarray:
    """What the executor's map makes of integers `x`."""
    messages, membranes = FixedPoint(24, 0), FixedPoint(24, 0)
    pre = Population("a", start, Graded(), state=membranes, message=messages)
    post = Population("b", end, Graded(), state=membranes, message=messages)
    projection = Projection("a", "b", way, "w", rescale=Rescale(1, 0))
    numbers = arithmetic.Integer(
        Graph("g", (pre, post), projections=(projection,), arrays={"w": w}), torch.device("cpu")
    )
    made = linear_map(projection, start, end, numbers, 0)
    made.load(w)
    largest = float(np.abs(x).max())
    return outward(made.apply(inward(x).to(numbers.narrow), largest))


@given(convolutions(), st.sampled_from([3, 300, 30_000, 3_000_000]), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_maps_of_integers_are_exact_whatever_their_size(
    case: tuple[Conv, tuple[int, ...], list[tuple]], largest: int, seed: int
) -> None:
    """Both ways."""
    operator, weight_shape, (pre, post) = case
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, weight_shape).astype(float)
    for way, start, end in ((operator, pre, post), (adjoint(operator), post, pre)):
        x = rng.integers(-largest, largest, (4, *start)).astype(float)
        np.testing.assert_array_equal(mapped(way, w, start, end, x), apply(way, w, x, end))


@pytest.mark.parametrize("samples", [2, FEW])
def test_dense_maps_of_images_count_neurons_as_the_graph_does(samples: int) -> None:
    rng = np.random.default_rng(0)
    image, flat = (3, 2, 4), (5,)
    w = rng.integers(-9, 10, (5, 24)).astype(float)
    for way, start, end in ((Dense(), image, flat), (DenseTranspose(), flat, image)):
        x = rng.integers(-9, 10, (samples, *start)).astype(float)
        np.testing.assert_array_equal(mapped(way, w, start, end, x), apply(way, w, x, end))


# --- graphs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", DYNAMICS)
def test_narrow_numbers_change_no_bit(code: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against int64, which adds as the definition says."""
    spec = random_residual_spec(3)
    graph = graph_of(spec, code, bits=8)
    x, y = samples(spec, 5)
    assert whole(graph).narrow == torch.float32
    narrow = run(graph, x, y)
    monkeypatch.setattr(constants, "DOUBLE", 0.0)
    assert whole(graph).narrow == torch.int64
    assert_same(narrow, run(graph, x, y))


@pytest.mark.parametrize("code", DYNAMICS)
def test_leaving_out_who_says_nothing_changes_no_bit(
    code: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Black and faint images fall silent before others do."""
    spec = random_residual_spec(4)
    graph = graph_of(spec, code, bits=8, steps=24)
    x, y = samples(spec, 6)
    x = x * np.array([0, 1, 0.01, 1, 0, 0.1]).reshape(-1, 1, 1, 1)
    monkeypatch.setattr(streams, "SMALL", 0)
    skipping = run(graph, x, y)
    monkeypatch.setattr(streams, "SMALL", 1 << 40)
    assert_same(skipping, run(graph, x, y))


def test_words_too_long_for_float64_fall_back_to_int64() -> None:
    graph = graph_of(random_residual_spec(3), bits=8)
    assert whole(graph).wide == torch.float64
    long = [replace(p.rescale, multiplier=1 << 30) for p in graph.projections if p.rescale]
    projections = tuple(replace(p, rescale=r) for p, r in zip(graph.projections, long, strict=True))
    assert whole(replace(graph, projections=projections)).wide == torch.int64


# --- what an executor can be made of -----------------------------------------------------------


def outputs(engine: Engine, x: np.ndarray) -> dict[str, np.ndarray]:
    """The output at the end of each phase, without targets."""
    simulator, job = GraphSimulator(engine.graph, engine), prepare(engine.graph, x)
    simulator.begin(job)
    return {p.name: simulator.run(p, ()).result.outputs for p in job.phases}


@pytest.mark.parametrize("code", ["graded", "sigma-delta"])
def test_float32_settles_where_float64_does(code: Encoding) -> None:
    spec = random_residual_spec(3)
    graph = graph_of(spec, code)
    x, _ = samples(spec, 3)
    narrow, wide = (outputs(Engine(graph, kind), x) for kind in (torch.float32, torch.float64))
    for name, found in narrow.items():
        # A message of sigma-delta near its threshold may be sent a step later.
        np.testing.assert_allclose(found, wide[name], atol=1e-5 if code == "graded" else 0.05)


def by_numpy(graph: Graph, p: Projection) -> Apply:
    """The operator of `p` as `compilers.ir.operators` has it."""
    weight, post = graph.arrays[p.weight].astype(float), graph.population(p.post).shape
    return lambda x: inward(apply(p.operator, weight, outward(x), post))


@pytest.mark.parametrize("code", DYNAMICS)
def test_given_maps_stand_in_for_the_operators(code: Encoding) -> None:
    """They hear whole states: of sigma-delta neurons the sum of what was sent."""
    spec = random_residual_spec(3)
    graph = graph_of(spec, code)
    x, _ = samples(spec, 3)
    given = {p.name: by_numpy(graph, p) for p in graph.projections}
    found, wanted = outputs(Engine(graph, maps=given), x), outputs(Engine(graph), x)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-9)


Case = tuple[Graph, np.ndarray, np.ndarray]


@pytest.fixture(params=DYNAMICS)
def integers(request: pytest.FixtureRequest) -> Case:
    """A graph of 8 bits, with images and labels."""
    spec = random_residual_spec(5)
    return graph_of(spec, request.param, bits=8), *samples(spec, 3)


def test_numbers_as_on_a_gpu_change_no_bit(integers: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in float32 and no sample left out."""
    graph, x, y = integers
    wanted = run(graph, x, y)
    monkeypatch.setattr(arithmetic, "SINGLE_BITS", 0)
    monkeypatch.setattr(maps, "SINGLE", 0.0)
    monkeypatch.setattr(exact_parts, "SINGLE", 0.0)
    monkeypatch.setattr(streams, "SMALL", 1 << 40)
    assert_same(wanted, run(graph, x, y))


def test_sums_in_parts_change_no_bit(integers: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x, y = integers
    wanted = run(graph, x, y)
    made: list[object] = []
    split_of = exact_parts.exact_parts

    def noted(*arguments: Any) -> exact_parts.Split | None:
        made.append(arguments)
        return split_of(*arguments)

    monkeypatch.setattr(maps, "SINGLE", 0.0)
    monkeypatch.setattr(maps, "exact_parts", noted)
    assert_same(wanted, run(graph, x, y))
    assert made


@needs_cuda
def test_a_gpu_settles_to_the_same_bits(integers: Case) -> None:
    graph, x, _ = integers
    there, here = (outputs(Engine(graph, device=device), x) for device in ("cuda", "cpu"))
    for name in here:
        np.testing.assert_array_equal(there[name], here[name])
