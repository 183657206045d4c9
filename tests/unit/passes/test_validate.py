"""Claims about validate: what it refuses, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compilers.hardware.resources import bytes_per_sample
from compilers.ir.graph import (
    Conv,
    Coupling,
    Dense,
    DenseTranspose,
    FixedPoint,
    Graded,
    Graph,
    Partial,
    Projection,
    Readout,
    Rescale,
    SigmaDelta,
    Tile,
)
from compilers.passes.quantize import quantize
from compilers.passes.validate import validate
from ep_neuro.errors import GraphError
from tests.helpers.graphs import digits_like_dense, digits_like_residual, graph_of


@pytest.mark.parametrize("encoding", ["graded", "sigma-delta", "spike"])
@pytest.mark.parametrize("bits", [None, 8])
def test_sound_graphs_come_back_as_they_are(encoding: Any, bits: int | None) -> None:
    for spec in (digits_like_dense(), digits_like_residual()):
        graph = graph_of(spec, encoding, bits=bits)
        assert validate(graph) is graph


def _population(name: str, /, **changes: Any) -> Callable[[Graph], Graph]:
    return lambda g: replace(
        g,
        populations=tuple(replace(p, **changes) if p.name == name else p for p in g.populations),
    )


def _projection(name: str, /, **changes: Any) -> Callable[[Graph], Graph]:
    return lambda g: replace(
        g,
        projections=tuple(replace(p, **changes) if p.name == name else p for p in g.projections),
    )


def _array(name: str, array: np.ndarray | None) -> Callable[[Graph], Graph]:
    def change(g: Graph) -> Graph:
        arrays = {k: a for k, a in g.arrays.items() if k != name}
        return replace(g, arrays=arrays if array is None else {**arrays, name: array})

    return change


def _phase(number: int, /, **changes: Any) -> Callable[[Graph], Graph]:
    return lambda g: replace(
        g,
        phases=tuple(replace(p, **changes) if i == number else p for i, p in enumerate(g.phases)),
    )


def _tile(**changes: Any) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, placement=(replace(Tile("h1", 0, 0, (0, 128)), **changes),))


BROKEN: list[tuple[Callable[[Graph], Graph], str]] = [
    (_population("h1", name="out"), "population 'out': the name stands 2 times"),
    (_population("h1", shape=()), "shape () has no neurons"),
    (_population("h1", box=(1.0, 1.0)), "is no finite interval"),
    (_population("h1", box=(0.0, float("inf"))), "is no finite interval"),
    (_population("h1", bias="nothing"), "array 'nothing' is missing"),
    (_population("h1", state=FixedPoint(0, 0), message=FixedPoint(16, 8)), "bits 0 is not in 1 to"),
    (
        _population("h1", state=FixedPoint(24, 10**9), message=FixedPoint(16, 8)),
        "frac 1000000000 is not in 0 to 40",
    ),
    (_population("h1", shape=(128, 0)), "shape 0 is not in 1 to 2,147,483,647"),
    (_population("h1", shape=(1 << 20, 1 << 20)), "has 1,099,511,627,776 neurons"),
    (_population("h1", readout=Readout(0.0, 0.0)), "gives no real units"),
    (_population("h1", readout=Readout(1e300, 1.0)), "offset 1e+300 is not in -1e+30 to 1e+30"),
    (_phase(1, nudge=1e30), "phase 'nudged+': nudge 1e+30 is not in -1,048,576 to 1,048,576"),
    (_projection("h1->out", rescale=Rescale(1, -(10**9))), "shift -1000000000 is not in -128 to"),
    (_projection("h1->out", rescale=Rescale(10**400, 0)), "multiplier of 401 digits is not in"),
    (_projection("h1->out", operator=Conv(0, 0)), "stride 0 is not in 1 to 65,536"),
    (_projection("h1->out", operator=Conv(1, 10**9)), "padding 1000000000 is not in 0 to 65,536"),
    (_projection("h1->out", operator=Partial(Dense(), 0)), "share 0 is not in 1 to"),
    (_projection("h1->out", delay=10**9), "'h1->out': delay 1000000000 is not in 1 to 1,024"),
    (_population("h1", dynamics=SigmaDelta()), "SigmaDelta neurons in a 'graded' graph"),
    (_population("h1", dynamics=Graded(0.0)), "leak 0.0 is not in (0, 1]"),
    (_population("h1", dynamics=Graded(float("nan"))), "leak nan is not in (0, 1]"),
    (_projection("h1->out", pre="h9"), "population 'h9' does not exist"),
    (_projection("h1->out", post="input"), "'input' is clamped"),
    (_projection("h1->out", operator=Conv()), "a convolution joins"),
    (_projection("h1->out", operator=DenseTranspose()), "weight (10, 128) is not (128, 10)"),
    (_projection("h1->out", weight="nothing"), "array 'nothing' is missing"),
    (_projection("h1->out", delay=0), "delay 0 is not in 1 to 1,024"),
    (_projection("h1->out", scale=float("inf")), "scale inf is not finite"),
    (_projection("out->h1", pre="h1", post="out"), "projection 'h1->out': the name stands 2"),
    (_array("bias/h1", np.zeros(3, np.float32)), "is (3,), not (128,)"),
    (_array("weight/h1->out", np.full((10, 128), np.nan)), "holds NaN or infinity"),
    (_array("weight/h1->out", None), "is missing"),
    (lambda g: replace(g, output="input"), "output 'input': no population of neurons"),
    (lambda g: replace(g, timestep=0.0), "timestep"),
    (lambda g: replace(g, phases=()), "has no phase"),
    (lambda g: replace(g, phases=g.phases[::-1]), "starts from 'free', not an earlier phase"),
    (_phase(1, start="nudged+"), "not an earlier phase"),
    (_phase(0, steps=0), "steps 0 is not in 1 to 1,000,000"),
    (_phase(1, nudge=float("nan")), "nudge nan is not finite"),
    (_phase(0, steps=10**7), "phase 'free': steps 10000000 is not in 1 to 1,000,000"),
    (_phase(1, sign=2), "sign 2 is not in -1 to 1"),
    (_tile(core=-1), "tile of 'h1': core -1 is not in 0 to 1,048,576"),
    (_tile(channels=(0, 10**10)), "tile of 'h1': channels 10000000000 is not in 0 to"),
    (lambda g: replace(g, provenance={"tiles": "x"}), "note 'tiles': 'x' is no number"),
]


@pytest.mark.parametrize(("change", "complaint"), BROKEN, ids=[c for _, c in BROKEN])
def test_a_broken_graph_is_refused_in_one_line(
    change: Callable[[Graph], Graph], complaint: str
) -> None:
    with pytest.raises(GraphError) as caught:
        validate(change(graph_of(digits_like_dense())))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_way_back_of_a_tied_weight_is_the_adjoint_of_the_way_there() -> None:
    graph = graph_of(digits_like_residual())
    # 32 to 32 channels at one size: a second forward convolution fits every shape.
    with pytest.raises(GraphError, match=r"'h3->h2'.*use adjoint operators"):
        validate(_projection("h3->h2", operator=Conv(1, 1))(graph))


def test_projections_that_share_a_weight_share_stride_and_padding() -> None:
    graph = graph_of(digits_like_residual())
    shared = Projection("h3", "h2", Conv(1, 1), "weight/h2->h3")
    others = tuple(p for p in graph.projections if p.name not in ("h2->h3", "h3->h2"))
    pair = (Projection("h2", "h4", Conv(2, 0), "weight/h2->h3"), shared)
    arrays = {**graph.arrays, "weight/h2->h3": np.zeros((32, 32, 3, 3), np.float32)}
    small = tuple(replace(p, shape=(32, 1, 1)) if p.name == "h4" else p for p in graph.populations)
    arrays["bias/h4"] = np.zeros((32, 1, 1), np.float32)
    others = tuple(p for p in others if "h4" not in p.name)
    graph = replace(graph, populations=small, projections=(*others, *pair), arrays=arrays)
    with pytest.raises(GraphError, match=r"'h3->h2'.*share 'weight/h2->h3'"):
        validate(graph)


def test_tied_projections_have_one_exponent() -> None:
    graph = graph_of(digits_like_dense(), bits=8)
    tied = next(p for p in graph.projections if p.exponent and len(graph.ties[p.weight]) == 2)
    with pytest.raises(GraphError, match="exponent is not that of"):
        validate(_projection(tied.name, exponent=None)(graph))


def test_a_float_projection_into_an_integer_population_is_refused() -> None:
    graph = quantize(graph_of(digits_like_dense()))
    with pytest.raises(GraphError, match="run quantize"):
        validate(_projection("h1->out", rescale=None)(graph))


@pytest.mark.parametrize(
    "changes",
    [
        {"box": (0.0, 1e15)},
        {"dynamics": SigmaDelta(start=1e15)},
        {"dynamics": SigmaDelta(end=1e15)},
    ],
)
def test_reals_that_integers_cannot_stand_for_are_refused(changes: dict[str, Any]) -> None:
    graph = graph_of(digits_like_dense(), "sigma-delta")
    change = _population("h1", **changes)
    assert validate(change(graph))
    with pytest.raises(GraphError, match=r"is beyond [0-9,]+, which integers stand for"):
        validate(change(quantize(graph)))


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("bias/h1", np.full(128, 0.5, np.float32), "is float32, in a graph of integers"),
        ("bias/h1", np.full(128, 2**40), "holds integers beyond 2,147,483,647"),
        ("shifts", np.full(10, -1), "shifts of -1 to -1 bits are not in 0 to 31"),
        ("shifts", np.full(10, 64), "shifts of 64 to 64 bits are not in 0 to 31"),
        ("shifts", np.ones(10, np.float32), "is float32, in a graph of integers"),
    ],
)
def test_integers_that_words_do_not_hold_are_refused(
    name: str, array: np.ndarray, complaint: str
) -> None:
    graph = quantize(graph_of(digits_like_dense()))
    tied = tuple(
        replace(p, exponent="shifts") if p.weight == "weight/h1->out" else p
        for p in graph.projections
    )
    arrays = {**graph.arrays, "shifts": np.ones(10, np.int32)}
    graph = validate(replace(graph, projections=tied, arrays=arrays))
    with pytest.raises(GraphError) as caught:
        validate(_array(name, array)(graph))
    assert complaint in str(caught.value)


def test_a_graph_beyond_the_memory_of_the_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = graph_of(digits_like_dense())
    needed = bytes_per_sample(graph)
    monkeypatch.setattr("compilers.passes.validate.memory", lambda: needed)
    assert validate(graph) is graph
    monkeypatch.setattr("compilers.passes.validate.memory", lambda: needed - 1)
    with pytest.raises(GraphError, match=r"one sample takes .* GB, this .*'h1' \(128 neurons\)"):
        validate(graph)
    slow = _projection("h1->out", delay=1024)(graph)
    monkeypatch.setattr("compilers.passes.validate.memory", lambda: 10 * needed)
    with pytest.raises(GraphError, match="or shorten delays"):
        validate(slow)


def test_couplings_are_checked_like_projections() -> None:
    graph = graph_of(digits_like_dense())
    couplings = (Coupling("h1", "out", Dense(), "weight/h1->out"),)
    assert validate(replace(graph, couplings=couplings)).couplings == couplings
    wrong = (Coupling("out", "h1", Dense(), "weight/h1->out"),)
    with pytest.raises(GraphError, match="coupling 'out->h1': weight"):
        validate(replace(graph, couplings=wrong))
