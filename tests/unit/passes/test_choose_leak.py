"""Claims about the spectrum of the recurrent drive and the leak that it allows."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir.graph import Dense, Graded, Graph, Phase, Population, Projection, Source
from compilers.ir.operators import adjoint, apply
from compilers.passes.choose_leak import LeakWarning, choose_leak, recurrent_spectrum
from compilers.passes.fold_boxes import fold_boxes
from compilers.passes.spectrum import CALM, largest_leak
from ep_neuro.errors import GraphError
from tests.helpers.graphs import graph_of, random_residual_spec


def random_recurrent(seed: int) -> Graph:
    """A random residual graph whose scales are 1, so that its drive is symmetric."""
    graph = graph_of(random_residual_spec(seed), seed=seed)
    projections = tuple(replace(p, scale=1.0) for p in graph.projections)
    populations = tuple(replace(p, readout=type(p.readout)()) for p in graph.populations)
    return replace(graph, projections=projections, populations=populations)


def pair(weight: float, boxes: tuple[float, float] = (0.0, 1.0), size: int = 4) -> Graph:
    """Two populations joined one to one: the eigenvalues are +-weight."""
    matrix = (weight * np.eye(size)).astype(np.float32)
    return Graph(
        name="pair",
        populations=(
            Population("input", (size,), Source()),
            Population("a", (size,), Graded(), boxes),
            Population("b", (size,), Graded(), boxes),
        ),
        projections=(
            Projection("input", "a", Dense(), "w"),
            Projection("a", "b", Dense(), "w"),
            Projection("b", "a", adjoint(Dense()), "w"),
        ),
        phases=(Phase("free", 4),),
        output="b",
        arrays={"w": matrix},
    )


def dense_drive(graph: Graph) -> np.ndarray:
    """J as a matrix, one unit vector at a time."""
    sizes = {p.name: p.size for p in graph.neurons}
    rows = []
    for name, size in sizes.items():
        pre, units = graph.population(name), np.eye(size)
        row = {n: np.zeros((size, s)) for n, s in sizes.items()}
        for p in graph.out_of(name):
            post = graph.population(p.post)
            x = units.reshape(-1, *pre.shape)
            y = apply(p.operator, graph.arrays[p.weight], x, post.shape)
            row[p.post] += p.scale * y.reshape(size, -1)
        rows.append(np.hstack(list(row.values())))
    return np.vstack(rows).T


@pytest.mark.parametrize("seed", range(6))
def test_lanczos_finds_both_ends_of_the_spectrum(seed: int) -> None:
    graph = random_recurrent(seed)
    matrix = dense_drive(graph)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    values = np.linalg.eigvalsh(matrix)
    found = recurrent_spectrum(graph)
    width = np.abs(values).max()
    assert found.lowest == pytest.approx(values[0], abs=0.02 * width)
    assert found.highest == pytest.approx(values[-1], abs=0.02 * width)


@given(st.floats(0.1, 0.9), st.floats(-1, 1), st.floats(0.5, 3))
def test_the_spectrum_does_not_depend_on_the_units(
    weight: float, low: float, height: float
) -> None:
    graph = pair(weight, (low, low + height))
    other = graph.population("b")
    graph = replace(graph, populations=(*graph.populations[:2], replace(other, box=(0.0, 7.0))))
    real, folded = recurrent_spectrum(graph), recurrent_spectrum(fold_boxes(graph))
    assert folded.lowest == pytest.approx(real.lowest, abs=1e-6)
    assert real.highest == pytest.approx(weight, abs=0.02)


@pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning")
@pytest.mark.parametrize("weight", [0.3, 0.85, 0.95, 0.995, 5.0, 20.0])
def test_the_chosen_leak_contracts_the_lowest_eigenvector_and_a_larger_one_does_not(
    weight: float,
) -> None:
    graph = choose_leak(pair(weight), maximum=1.0)
    leak = graph.neurons[0].dynamics.leak
    lowest = -weight
    assert abs(1 + leak * (lowest - 1)) < 1
    limit = 2 / (1 - lowest)
    whole = weight < CALM
    assert leak == pytest.approx(1.0 if whole else min(1.0, 0.9 * limit), rel=0.02)
    assert abs(1 + 1.01 * limit * (lowest - 1)) > 1


@pytest.mark.parametrize(("weight", "leak"), [(0.3, 1.0), (0.85, 1.0), (0.95, 1.0), (0.995, 0.8)])
def test_by_default_weakly_coupled_neurons_take_whole_steps_and_others_smaller_ones(
    weight: float, leak: float
) -> None:
    for code in ("graded", "sigma-delta"):
        graph = choose_leak(pair(weight), partial(largest_leak, code))
        assert graph.neurons[0].dynamics.leak == pytest.approx(leak, abs=1e-3)
    spiking = choose_leak(pair(weight), partial(largest_leak, "spike"))
    assert spiking.neurons[0].dynamics.leak == 0.5


def test_the_leak_is_the_maximum_where_the_network_is_stable() -> None:
    graph = choose_leak(pair(0.3))
    assert {p.dynamics.leak for p in graph.neurons} == {0.5}
    assert isinstance(graph.population("input").dynamics, Source)


@given(st.floats(0.01, 1.0))
def test_integers_can_express_the_leak(maximum: float) -> None:
    leak = choose_leak(pair(0.3), maximum).neurons[0].dynamics.leak
    assert leak * 4096 == round(leak * 4096)
    assert 0 < leak <= maximum


def test_an_eigenvalue_of_one_warns_with_its_value_on_one_line() -> None:
    with pytest.warns(LeakWarning, match=r"eigenvalue 2\.000 .* not settle") as caught:
        choose_leak(pair(2.0))
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_leak(pair(0.9))


def test_bounds_and_leak_are_noted() -> None:
    notes = choose_leak(pair(0.5)).provenance
    assert notes["leak"] == "0.5"
    assert float(notes["spectrum.lowest"]) == pytest.approx(-0.5, abs=0.01)
    assert float(notes["spectrum.highest"]) == pytest.approx(0.5, abs=0.01)


def test_a_graph_without_recurrence_has_an_empty_spectrum() -> None:
    graph = pair(0.5)
    graph = replace(graph, projections=graph.projections[:1])
    spectrum = recurrent_spectrum(graph)
    assert (spectrum.lowest, spectrum.highest) == pytest.approx((0, 0))
    assert choose_leak(graph, 1.0).neurons[0].dynamics.leak == 1.0


@pytest.mark.parametrize("maximum", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_leak_is_refused(maximum: float) -> None:
    with pytest.raises(GraphError, match=r"not in \(0, 1\]"):
        choose_leak(pair(0.5), maximum)
