"""Claims about what a run says of settling: which samples still move, against the plain oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import targets
from compilers.ir import graph as ir
from targets.interface import graph_simulator
from targets.interface.protocols import PhaseResult, RunResult
from tests.helpers.graphs import graph_of, random_residual_spec, samples
from tests.helpers.oracle import Sample

REFERENCE = targets.get("reference")
STEP = 2.0**-8
"""A message step, in heights of the box."""


def run(graph: ir.Graph, x: np.ndarray, **how: Any) -> RunResult:
    with REFERENCE.open(REFERENCE.emit(graph)) as session:
        return session.settle(x, **how)


def told(graph: ir.Graph, x: np.ndarray) -> list[bool]:
    found = run(graph, x).free.unsettled
    assert found is not None
    return [bool(one) for one in found]


def at_rest(graph: ir.Graph, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """By the membranes and states of one sample after the last two steps."""
    for p in graph.neurons:
        fine, coarse = (1 if f is None else f.one for f in (p.state, p.message))
        v, before = (step[f"{p.name}.v"] / fine for step in (now, then))
        z, shown = (step[f"{p.name}.z"] / coarse for step in (now, then))
        drive = before + (v - before) / p.dynamics.leak  # type: ignore[union-attr]
        pulled = drive if p.box is None else np.clip(drive, *p.box)
        if max(np.abs(z - shown).max(), np.abs(z - pulled).max()) > STEP:
            return False
    return True


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("encoding", ["graded", "sigma-delta"])
def test_the_samples_that_still_move_are_those_of_the_plain_oracle(
    encoding: ir.Encoding, bits: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are not settled as one batch."""
    monkeypatch.setattr(graph_simulator, "CHUNK_BYTES", 1)
    spec, seen = random_residual_spec(0), set()
    x, _ = samples(spec, 4)
    for steps in (2, 8, 14, 20, 40):
        graph = graph_of(spec, encoding, bits=bits, steps=steps)
        runs = [next(Sample(graph, one).phases())[1] for one in x]
        expected = [not at_rest(graph, *steps[-2:]) for steps in runs]
        assert told(graph, x) == expected
        seen |= set(expected)
    assert seen == {True, False}


def one_neuron(dynamics: ir.Dynamics, steps: int = 40, back: float = -1.0) -> ir.Graph:
    """``z = clip(0.8 - z)``: at rest at 0.4, and from 0 by whole steps 0.8, 0, 0.8, ..."""
    return ir.Graph(
        "one",
        (
            ir.Population("input", (1,), ir.Source()),
            ir.Population("n", (1,), dynamics, (0.0, 1.0)),
        ),
        projections=(
            ir.Projection("input", "n", ir.Dense(), "in"),
            ir.Projection("n", "n", ir.Dense(), "back"),
        ),
        phases=(ir.Phase("free", steps),),
        output="n",
        encoding="graded",
        arrays={"in": np.ones((1, 1), np.float32), "back": np.full((1, 1), back, np.float32)},
    )


X = np.full((1, 1), 0.8)


@pytest.mark.parametrize(
    ("dynamics", "steps", "expected"),
    [
        (ir.Graded(0.5), 40, False),
        (ir.Graded(0.5), 1, True),
        pytest.param(
            ir.Graded(1.0), 40, True, id="it swings, always where its last drive pulls it"
        ),
        pytest.param(ir.Graded(0.001), 40, True, id="it creeps, by less than a message step each"),
        (ir.SigmaDelta(0.5, start=0.0, end=0.0), 40, False),
        (ir.SigmaDelta(1.0, start=0.0, end=0.0), 40, True),
    ],
)
def test_a_network_that_is_not_at_rest_is_told(
    dynamics: ir.Dynamics, steps: int, expected: bool
) -> None:
    assert told(one_neuron(dynamics, steps), X) == [expected]


def test_nothing_is_said_of_spikes_and_of_nudged_runs() -> None:
    assert run(one_neuron(ir.Spiking(0.5)), X).unsettled is None
    graph = graph_of(random_residual_spec(0))
    x, y = samples(random_residual_spec(0), 2)
    assert run(graph, x, y=y).unsettled is None
    assert run(graph, x).unsettled is not None


def test_a_run_of_which_one_part_tells_nothing_tells_nothing() -> None:
    part = PhaseResult(np.zeros((1, 2)), {}, {}, unsettled=np.array([True]))
    assert RunResult({"free": PhaseResult.joined([part, part])}, 1.0).unsettled == 1.0
    assert PhaseResult.joined([part, replace(part, unsettled=None)]).unsettled is None
