"""Claims about expand_couplings and fold_boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir import graph as ir
from compilers.ir.operators import adjoint, apply
from compilers.passes.expand_couplings import expand_couplings
from compilers.passes.fold_boxes import fold_boxes
from compilers.passes.validate import validate

boxes = st.none() | st.tuples(
    st.floats(-2, 2).map(lambda x: round(x, 3)), st.floats(0.1, 3).map(lambda x: round(x, 3))
).map(lambda b: (b[0], b[0] + b[1]))


def coupled(boxes: tuple[tuple[float, float] | None, ...], biased: bool = True) -> ir.Graph:
    """input -> a -> b -> out with a skip input -> b, odd sizes and a strided convolution."""
    rng = np.random.default_rng(1)
    shapes = {"input": (1, 5, 6), "a": (2, 5, 6), "b": (3, 2, 3), "out": (4,)}
    couplings = (
        ir.Coupling("input", "a", ir.Conv(1, 1), "w1"),
        ir.Coupling("a", "b", ir.Conv(2, 0), "w2"),
        ir.Coupling("input", "b", ir.Conv(2, 0), "w3"),
        ir.Coupling("b", "out", ir.Dense(), "w4"),
    )
    sizes = {"w1": (2, 1, 3, 3), "w2": (3, 2, 3, 2), "w3": (3, 1, 3, 2), "w4": (4, 18)}
    arrays = {k: rng.normal(size=s).astype(np.float32) for k, s in sizes.items()}
    arrays |= {f"bias/{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    neurons = tuple(
        ir.Population(k, shapes[k], ir.Graded(0.5), box, f"bias/{k}" if biased else None)
        for k, box in zip(("a", "b", "out"), boxes, strict=True)
    )
    graph = ir.Graph(
        name="g",
        populations=(ir.Population("input", shapes["input"], ir.Source()), *neurons),
        couplings=couplings,
        phases=(ir.Phase("free", 4),),
        output="out",
        arrays=arrays,
    )
    return validate(graph.with_arrays())


def step(graph: ir.Graph, v: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """One synchronous step of graded neurons, as `compilers.ir.graph` writes it."""
    z = {"input": x}
    z |= {p.name: v[p.name] if p.box is None else v[p.name].clip(*p.box) for p in graph.neurons}
    after = {}
    for post in graph.neurons:
        assert isinstance(post.dynamics, ir.Graded)
        total = np.zeros(post.shape) if post.bias is None else graph.arrays[post.bias]
        for p in graph.into(post.name):
            weight = graph.arrays[p.weight]
            total = total + p.scale * apply(p.operator, weight, z[p.pre], post.shape)
        after[post.name] = v[post.name] + post.dynamics.leak * (total - v[post.name])
    return after


@given(st.tuples(boxes, boxes, boxes), st.booleans(), st.integers(0, 99))
def test_a_folded_step_is_the_real_step_in_other_units(
    sides: tuple[tuple[float, float] | None, ...], biased: bool, seed: int
) -> None:
    real = expand_couplings(coupled(sides, biased))
    folded = validate(fold_boxes(real))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *real.population("input").shape))
    v = {p.name: rng.normal(size=(2, *p.shape)) for p in folded.neurons}
    units = {p.name: p.readout for p in folded.neurons}
    mapped = {k: units[k].offset + units[k].gain * a for k, a in v.items()}
    expected = step(real, mapped, x)
    for name, value in step(folded, v, x).items():
        found = units[name].offset + units[name].gain * value
        np.testing.assert_allclose(found, expected[name], atol=2e-5, rtol=2e-5)


@given(st.tuples(boxes, boxes, boxes))
def test_folding_bounds_every_box_by_0_and_1_and_happens_once(
    sides: tuple[tuple[float, float] | None, ...],
) -> None:
    folded = fold_boxes(expand_couplings(coupled(sides)))
    for before, p in zip(sides, folded.neurons, strict=True):
        assert p.box == (None if before is None else (0.0, 1.0))
        if before is None:
            assert p.readout == ir.Readout()
    assert fold_boxes(folded).digest() == folded.digest()


def test_folding_keeps_ties_and_weights() -> None:
    before = expand_couplings(coupled(((0.0, 2.0), (-1.0, 1.0), None)))
    after = fold_boxes(before)
    assert after.ties == before.ties
    for weight in after.ties:
        assert after.arrays[weight] is before.arrays[weight]
    scales = {p.name: p.scale for p in after.projections}
    assert scales["a->b"] * scales["b->a"] == pytest.approx(1)


def test_folding_composes_with_a_readout_that_is_there_already() -> None:
    graph = expand_couplings(coupled((None, None, (1.0, 3.0))))
    out = replace(graph.population("out"), readout=ir.Readout(-1.0, 10.0))
    folded = fold_boxes(replace(graph, populations=(*graph.populations[:-1], out)))
    assert folded.population("out").readout == ir.Readout(9.0, 20.0)


def test_each_coupling_becomes_two_tied_projections_and_a_clamped_one_becomes_one() -> None:
    graph = coupled(((0.0, 1.0),) * 3)
    expanded = expand_couplings(graph)
    assert expanded.couplings == ()
    assert expanded.ties == {
        "w1": ("input->a",),
        "w2": ("a->b", "b->a"),
        "w3": ("input->b",),
        "w4": ("b->out", "out->b"),
    }
    forward, backward = (p for p in expanded.projections if p.weight == "w2")
    assert backward.operator == adjoint(forward.operator)
    assert expand_couplings(expanded).digest() == expanded.digest()


def test_the_passes_leave_their_input_as_it_is() -> None:
    graph = coupled(((0.0, 1.0), (-1.0, 1.0), (-0.5, 1.5)))
    before = graph.digest()
    expanded = expand_couplings(graph)
    assert graph.digest() == before
    middle = expanded.digest()
    fold_boxes(expanded)
    assert expanded.digest() == middle
