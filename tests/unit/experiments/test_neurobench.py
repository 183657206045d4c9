"""Claims about NeuroBench's figures: by hand, by its own harness, and within their bounds."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import targets
from compilers import Program, compile_network
from compilers.ir import graph as ir
from ep_neuro.data.datasets import Split
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import GraphError
from ep_neuro.network.network import Network
from ep_neuro.results import NeuroBench
from targets.experiments.comparison.neurobench import neurobench, whole_bytes
from targets.interface.protocols import Backend
from tests.helpers import toy_target
from tests.helpers.graphs import digits_like_dense, graph_of, random_residual_spec, samples
from tests.helpers.problems import residual
from tests.unit.experiments.test_compare import CODES


def by_hand(dynamics: ir.Dynamics) -> ir.Graph:
    """Two inputs, two neurons and one neuron, whose feedback reads the same weight; three steps."""
    box, back = (0.0, 1.0), ir.DenseTranspose()
    return ir.Graph(
        "by hand",
        populations=(
            ir.Population("x", (2,), ir.Source()),
            ir.Population("a", (2,), dynamics, box),
            ir.Population("b", (1,), dynamics, box),
        ),
        projections=(
            ir.Projection("x", "a", ir.Dense(), "W"),
            ir.Projection("a", "b", ir.Dense(), "V"),
            ir.Projection("b", "a", back, "V"),
        ),
        phases=(ir.Phase("free", 3),),
        output="b",
        arrays={
            "W": np.array([[1, 0], [0.5, 0.5]], np.float32),
            "V": np.array([[0.5, 0]], np.float32),
        },
    )


GRADED, SPIKES = by_hand(ir.Graded(leak=1.0)), by_hand(ir.Spiking(leak=1.0))
COUNTED = [
    # a says 1 and 0.75 three times, b says 0, 0.5, 0.5. b changes in step 2, the first of a in 3.
    (GRADED, [1.0, 0.5], NeuroBench(24, 3 / 8, 1 / 9, 3 + 3 + 2, 0, 4 + 6 + 6, 3 + 1 + 1)),
    # a spikes three times, b in step 2; so b changes in steps 2 and 3, the first of a in 3.
    (SPIKES, [1.0, 1.0], NeuroBench(24, 3 / 8, 2 / 9, 0, 3 + 3 + 1, 4 + 6 + 6, 3 + 1 + 2)),
]


def ours(graph: ir.Graph, x: np.ndarray, backend: Backend | None = None) -> NeuroBench:
    backend = backend or targets.get("reference")
    with backend.open(Program(backend.name, graph)) as session:
        return neurobench(graph, session.settle(x, updates=True), x)


def compiled(spec: NetworkSpec, code: str, bits: int | None, steps: int = 6) -> ir.Graph:
    network, reference = Network(spec, 1), targets.get("reference")
    return compile_network(network, reference, code=code, bits=bits, steps=steps).graph


@pytest.mark.parametrize(("graph", "x", "counted"), COUNTED, ids=["graded", "spikes"])
def test_two_populations_are_as_counted_by_hand(
    graph: ir.Graph, x: list[float], counted: NeuroBench
) -> None:
    assert ours(graph, np.array([x])) == counted


@pytest.mark.parametrize(("graph", "x", "counted"), COUNTED, ids=["graded", "spikes"])
def test_the_harness_counts_two_populations_in_both_directions(
    graph: ir.Graph, x: list[float], counted: NeuroBench
) -> None:
    assert harness_of(graph, np.array([x])) == counted


def harness_of(graph: ir.Graph, x: np.ndarray) -> NeuroBench:
    pytest.importorskip("neurobench", reason="NeuroBench is not installed")
    from targets.experiments.comparison.harness import harness

    return harness(graph, Split(x.astype(np.float32), np.zeros(len(x), np.int64)))


def figures(found: NeuroBench, digits: int = 16) -> dict[str, float]:
    """The figures, the sparsity of connections to so many digits."""
    rounded = replace(found, connection_sparsity=round(found.connection_sparsity, digits))
    return {name: value for name, value in asdict(rounded).items() if name != "reason"}


def in_harness(found: NeuroBench) -> object:
    """Our figures as the harness has them, which rounds one, and takes means of means."""
    return pytest.approx(figures(found, digits=4), rel=1e-14)


@pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning")
@pytest.mark.parametrize("bits", [None, 8, 3])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("make", [digits_like_dense, residual])
def test_our_figures_are_those_of_the_harness(make, code: str, bits: int | None) -> None:
    """It calls a step of a batch in which all changes are those of a full box an AC."""
    spec = make()
    graph, x = compiled(spec, code, bits), samples(spec, 24)[0].astype(np.float32)
    found, theirs = ours(graph, x), harness_of(graph, x)
    if code == "sigma-delta":
        macs = (theirs.effective_macs or 0) + (theirs.effective_acs or 0)
        theirs = replace(theirs, effective_macs=macs, effective_acs=0)
    assert figures(theirs) == in_harness(found)


@pytest.mark.parametrize("code", CODES)
def test_messages_that_are_late_arrive_late_in_the_harness_too(code: ir.Encoding) -> None:
    spec = random_residual_spec(3)
    graph = graph_of(spec, code, bits=8, delays=True)
    x = samples(spec, 8)[0].astype(np.float32)
    assert figures(harness_of(graph, x)) == in_harness(ours(graph, x))


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("code", CODES)
def test_modules_of_the_harness_compute_what_the_reference_does(
    code: str, bits: int | None
) -> None:
    pytest.importorskip("neurobench", reason="NeuroBench is not installed")
    from targets.experiments.comparison.harness import NeuroBenchNetwork

    graph, x = compiled(residual(), code, bits), samples(residual(), 5)[0]
    with targets.open(Program("reference", graph)) as session:
        expected = session.settle(x).free.outputs
    found = NeuroBenchNetwork(graph)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, atol=0 if bits else 1e-12)


def test_sums_that_are_split_over_cores_are_refused() -> None:
    pytest.importorskip("neurobench", reason="NeuroBench is not installed")
    from targets.experiments.comparison.harness import NeuroBenchNetwork

    first = replace(GRADED.projections[0], operator=ir.Partial(ir.Dense(), 1))
    split = replace(GRADED, projections=(first, *GRADED.projections[1:]))
    with pytest.raises(GraphError, match="split over cores; compile it for reference"):
        NeuroBenchNetwork(split)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), code=st.sampled_from(CODES), spared=st.floats(0, 1))
def test_effective_operations_are_some_of_the_dense_ones(
    seed: int, code: ir.Encoding, spared: float
) -> None:
    spec, rng = random_residual_spec(seed), np.random.default_rng(seed)
    graph = graph_of(spec, code, steps=4)
    pruned = {k: a * (rng.random(a.shape) < spared) for k, a in graph.arrays.items()}
    found = ours(replace(graph, arrays=pruned), samples(spec, 2, seed)[0])
    assert found.effective_macs is not None
    assert found.effective_acs is not None
    assert found.membrane_updates is not None
    assert 0 <= found.effective_macs + found.effective_acs <= found.dense
    assert 0 <= found.activation_sparsity <= 1
    assert 0 <= found.connection_sparsity <= 1
    neurons = sum(p.size for p in graph.neurons)
    assert neurons <= found.membrane_updates <= 4 * neurons


def test_a_target_of_steps_has_the_figures_of_the_reference() -> None:
    assert ours(GRADED, np.array([[1.0, 0.5]]), toy_target.BACKEND) == COUNTED[0][2]


def test_what_a_target_does_not_count_is_left_out_with_the_reason() -> None:
    x = np.array([[1.0, 0.5]])
    with targets.open(Program("reference", GRADED)) as session:
        result = session.settle(x)
    found = neurobench(GRADED, result, x)
    assert found.membrane_updates is None
    assert found.reason == "the target does not count membrane updates"
    bare = replace(result, phases={"free": replace(result.free, nonzero_synops={})})
    found = neurobench(GRADED, bare, x)
    assert (found.effective_macs, found.effective_acs) == (None, None)
    assert found.reason == "the target does not count effective operations and membrane updates"


@pytest.mark.parametrize(("bits", "size"), [(2, 1), (8, 1), (9, 2), (16, 2), (24, 4), (32, 4)])
def test_a_parameter_takes_whole_bytes(bits: int, size: int) -> None:
    assert whole_bytes(bits) == size
