"""Claims about phases in one compiled loop, which comes to the bits of the steps."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import targets
from compilers.execution.arithmetic import Floating
from compilers.execution.compiled.sums import listed, passed_on
from compilers.execution.engine import Engine
from compilers.execution.maps import inward, linear_map
from compilers.ir.graph import (
    Conv,
    ConvTranspose,
    FixedPoint,
    Graded,
    Graph,
    Projection,
    Rescale,
    Spiking,
)
from compilers.ir.operators import apply
from compilers.passes.make_plastic import make_plastic
from targets.interface import graph_simulator
from targets.interface.graph_simulator import GraphSimulator
from targets.interface.protocols import RunResult
from tests.helpers.graphs import digits_like_dense, graph_of, random_residual_spec, samples

REFERENCE = targets.get("reference")


def settled(graph: Graph, *data: np.ndarray | None, loop: bool = True) -> RunResult:
    """All phases of `graph` on the reference, in the compiled loop or step by step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_simulator, "FEW", 0)
        if not loop:
            patch.setattr(Engine, "runs_compiled", False)
        options = {} if graph.quantised else {"precision": "float32"}
        with REFERENCE.open(replace(REFERENCE.emit(graph), options=options)) as session:
            return session.settle(*data, updates=True)


def learning(graph: Graph, bits: int | None) -> Graph:
    """`graph` with the rule of its encoding; `graph_of` notes no bits."""
    noted = replace(graph, provenance={**graph.provenance, "bits": str(bits)} if bits else {})
    return make_plastic(noted, lr=0.1, beta=0.3, steps=9, nudged_steps=5)


def exact(values: np.ndarray) -> np.ndarray:
    """`values` as multiples of 1/64, of which float32 holds the sums here."""
    return np.round(64 * values) / 64


def assert_same(one: RunResult, other: RunResult) -> None:
    for name, phase in one.phases.items():
        for f in fields(phase):
            value, again = getattr(phase, f.name), getattr(other.phases[name], f.name)
            np.testing.assert_equal(again, value, err_msg=f"{name}, {f.name}")


@settings(deadline=None)
@given(
    seed=st.integers(0, 200),
    leak=st.sampled_from([1.0, 0.5, 0.3]),
    reset=st.sampled_from(["soft", "hard"]),
    nudged=st.booleans(),
    bits=st.sampled_from([3, 8]),
)
def test_a_loop_comes_to_the_bits_of_the_steps(
    seed: int, leak: float, reset: str, nudged: bool, bits: int
) -> None:
    graph = graph_of(random_residual_spec(seed), "spike", seed=seed, bits=bits, steps=9)
    graph = replace(
        graph,
        populations=tuple(
            replace(p, dynamics=replace(p.dynamics, leak=leak, reset=reset))
            if isinstance(p.dynamics, Spiking)
            else p
            for p in graph.populations
        ),
    )
    x, y = samples(random_residual_spec(seed), 3, seed)
    data = (x, y if nudged else None)
    in_a_loop = settled(graph, *data)
    assert sum(int(counts.sum()) for counts in in_a_loop.phases["free"].events.values())
    assert_same(in_a_loop, settled(graph, *data, loop=False))


@settings(deadline=None)
@given(
    seed=st.integers(0, 200),
    leak=st.sampled_from([1.0, 0.5, 0.3]),
    nudged=st.booleans(),
    bits=st.sampled_from([3, 8]),
    finer=st.sampled_from([8, 1, 0, -2]),
    low=st.sampled_from([-0.5, 0.0, 0.25]),
)
def test_graded_neurons_that_learn_do_so_too(
    seed: int, leak: float, nudged: bool, bits: int, finer: int, low: float
) -> None:
    """Whatever bits a membrane has more than a message, and whatever is shown at rest."""
    spec = random_residual_spec(seed)
    graph = learning(graph_of(spec, "graded", seed=seed, bits=bits, steps=9), bits)
    graph = replace(
        graph,
        populations=tuple(
            replace(
                p,
                box=(low, 1.0),
                dynamics=replace(p.dynamics, leak=leak),
                message=FixedPoint(16, p.state.frac - finer) if finer > 0 else p.message,
                state=p.state if finer > 0 else FixedPoint(24, p.message.frac + finer),
            )
            if isinstance(p.dynamics, Graded) and p.state and p.message
            else p
            for p in graph.populations
        ),
    )
    x, y = samples(spec, 3, seed)
    data = (x, y if nudged else None)
    in_a_loop = settled(graph, *data)
    assert sum(int(counts.sum()) for counts in in_a_loop.phases["free"].events.values())
    assert_same(in_a_loop, settled(graph, *data, loop=False))


@settings(deadline=None)
@given(seed=st.integers(0, 200), reset=st.sampled_from(["soft", "hard"]), nudged=st.booleans())
def test_in_float32_it_does_so_where_sums_are_exact(seed: int, reset: str, nudged: bool) -> None:
    """Elsewhere the order of the terms decides the last bit."""
    spec = random_residual_spec(seed)
    graph = graph_of(spec, "spike", seed=seed, steps=9)
    graph = replace(
        graph,
        arrays={name: exact(array) for name, array in graph.arrays.items()},
        projections=tuple(replace(p, scale=1.0) for p in graph.projections),
        phases=tuple(replace(p, nudge=np.sign(p.nudge) / 2) for p in graph.phases),
        populations=tuple(
            replace(p, dynamics=replace(p.dynamics, leak=1.0, reset=reset))
            if isinstance(p.dynamics, Spiking)
            else p
            for p in graph.populations
        ),
    )
    x, y = samples(spec, 3, seed)
    data = (exact(x), exact(y) if nudged else None)
    in_a_loop = settled(graph, *data)
    assert sum(int(counts.sum()) for counts in in_a_loop.phases["free"].events.values())
    assert_same(in_a_loop, settled(graph, *data, loop=False))


@pytest.mark.parametrize("gain", [Rescale(1, -70), Rescale(3, -33), Rescale(1, 40), Rescale(6, 20)])
def test_gains_that_leave_nothing_or_too_much_are_those_of_the_steps(gain: Rescale) -> None:
    """The largest ones drive currents beyond their format, which is counted."""
    graph = graph_of(digits_like_dense(), "spike", bits=8, steps=6)
    first, *rest = graph.projections
    graph = replace(graph, projections=(first, *(replace(p, rescale=gain) for p in rest)))
    x, _ = samples(digits_like_dense(), 4, 0)
    assert_same(settled(graph, x), settled(graph, x, loop=False))


def test_samples_that_threads_share_come_to_the_same_bits() -> None:
    graph = graph_of(digits_like_dense(), "spike", bits=8, steps=6)
    data, threads = samples(digits_like_dense(), 5, 0), torch.get_num_threads()
    alone = settled(graph, *data)
    try:
        torch.set_num_threads(3)
        assert_same(alone, settled(graph, *data))
    finally:
        torch.set_num_threads(threads)


def test_no_weight_is_no_drive() -> None:
    graph = graph_of(digits_like_dense(), "spike", bits=8, steps=6)
    arrays = {n: a * 0 if n.startswith("weight") else a for n, a in graph.arrays.items()}
    far = tuple(replace(p, rescale=Rescale(1, 60)) for p in graph.projections)
    graph = replace(graph, arrays=arrays, projections=far)
    data = samples(digits_like_dense(), 4, 0)
    assert_same(settled(graph, *data), settled(graph, *data, loop=False))


@st.composite
def projections(draw: st.DrawFn) -> tuple[Projection, np.ndarray, list[tuple[int, ...]]]:
    """A convolution or the adjoint of one, its weight, shapes of both ends."""
    kernel, stride, padding = (draw(st.integers(*ends)) for ends in ((1, 4), (1, 3), (0, 3)))
    shortest = max(1, kernel - 2 * padding)
    h, w = (draw(st.integers(shortest, shortest + 6)) for _ in range(2))
    c, o = (draw(st.integers(1, 5)) for _ in range(2))
    far = (o, *((n + 2 * padding - kernel) // stride + 1 for n in (h, w)))
    weight = np.random.default_rng(draw(st.integers(0, 99))).integers(-9, 9, (o, c, kernel, kernel))
    backward = draw(st.booleans())
    operator = (ConvTranspose if backward else Conv)(stride, padding)
    ends = [far, (c, h, w)] if backward else [(c, h, w), far]
    return Projection("a", "b", operator, "w"), weight.astype(float), ends


@given(given=projections(), seed=st.integers(0, 99))
def test_a_spike_adds_its_weights_to_all_that_its_operator_reaches(
    given: tuple[Projection, np.ndarray, list[tuple[int, ...]]], seed: int
) -> None:
    projection, weight, (pre, post) = given
    spikes = np.random.default_rng(seed).integers(0, 2, (1, *pre)).astype(np.float64)
    numbers = Floating(torch.float64, torch.device("cpu"))
    mapped = linear_map(projection, pre, post, numbers, 1.0)
    mapped.load(weight)
    reach, rows = mapped.reach(), mapped.by_sender()
    sent, drive = inward(spikes).numpy().ravel(), np.zeros(int(np.prod(post)))
    fired = np.zeros(sent.size + 1, np.uint64)
    count = listed(sent, 0, sent.size, fired, 0)
    passed_on(fired, None, count, len(rows), *reach, rows.ravel(), drive, 0)
    wanted = inward(apply(projection.operator, weight, spikes, post)).numpy().ravel()
    np.testing.assert_array_equal(drive, wanted)


@pytest.mark.parametrize(
    ("code", "bits", "dtype", "delays", "learns", "there"),
    [
        ("spike", 8, torch.float64, False, False, True),
        ("spike", 8, torch.float64, True, False, False),
        ("spike", None, torch.float64, False, False, False),
        ("spike", None, torch.float32, False, False, True),
        ("graded", None, torch.float32, False, True, False),
        ("sigma-delta", 8, torch.float64, False, True, False),
        ("graded", 8, torch.float64, False, False, False),
        ("graded", 8, torch.float64, False, True, True),
        ("graded", 8, torch.float64, True, True, False),
    ],
)
def test_what_the_loop_takes(
    code: str,
    bits: int | None,
    dtype: torch.dtype,
    delays: bool,
    learns: bool,
    there: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graph_simulator, "FEW", 0)
    graph = graph_of(digits_like_dense(), code, bits=bits, delays=delays)  # type: ignore[arg-type]
    graph = learning(graph, bits) if learns else graph
    assert (GraphSimulator(graph, Engine(graph, dtype)).loop is not None) == there
