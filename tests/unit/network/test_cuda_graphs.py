"""Recorded sweeps: a replay is the sweeps themselves, and what cannot be recorded runs plainly.

There is no GPU here, so a recording is played by a function that runs again on the same memory,
which is what a CUDA graph does.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import pytest
import torch

from ep_neuro.energy.costs import Nudge
from ep_neuro.estimators import FrozenMean
from ep_neuro.network import cuda_graphs
from ep_neuro.network.cuda_graphs import GraphWarning, Recorder, Replay, Sweeps, recorder_of
from ep_neuro.network.network import Landscape
from ep_neuro.network.settling import Schedule, settle
from tests.helpers.cuda import full_precision, needs_cuda
from tests.helpers.problems import pooled, problem

__all__ = ["full_precision"]

FIXED = Schedule(sweeps=20, tolerance=0.0)


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No recording has been checked yet, and none has failed."""
    monkeypatch.setattr(cuda_graphs, "_checked", [])
    monkeypatch.setattr(cuda_graphs, "_failed", [])


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Settling records on the CPU; how often each recording has been replayed."""
    counts: list[int] = []
    everywhere(monkeypatch, recorder(counts))
    return counts


def everywhere(monkeypatch: pytest.MonkeyPatch, chosen: Recorder | None) -> None:
    """Let all that settles use the recorder `chosen`."""
    for name in ("ep_neuro.network.settling", "ep_neuro.estimators.frozen_mean"):
        # By the table of modules: the package shows the function `settle` under that name.
        monkeypatch.setattr(sys.modules[name], "recorder_of", lambda *_: chosen)


def recorder(counts: list[int]) -> Recorder:
    """Like a CUDA graph, nothing runs while it records."""

    def record(function: Callable[[], None]) -> Replay:
        counts.append(0)
        mine = len(counts) - 1

        def replay() -> None:
            counts[mine] += 1
            function()

        return replay

    return record


@pytest.mark.parametrize("nudged", [False, True])
def test_recorded_settling_has_the_bits_of_plain_settling(
    replays: list[int], monkeypatch: pytest.MonkeyPatch, nudged: bool
) -> None:
    """20 sweeps: the first three of each relaxation plainly, whole threes by replay, two left."""
    network, x, y = problem(1, pooled("max"))
    nudge = Nudge(0.3, y) if nudged else None
    with torch.no_grad():
        recorded = settle(Landscape(network, x), FIXED, nudge=nudge)
        played = list(replays)
        everywhere(monkeypatch, None)
        plain = settle(Landscape(network, x), FIXED, nudge=nudge)
    # Three early threes and three late ones; the first recording is played once more, as a check.
    assert played == [3, 2]
    assert recorded.sweeps == plain.sweeps == 20
    assert torch.equal(recorded.residual, plain.residual)
    for name, state in plain.state.items():
        assert torch.equal(recorded.state[name], state)


def test_a_gradient_by_recorded_sweeps_has_the_bits_of_a_plain_one(
    replays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The max-pool's choice too: what it was at an earlier replay is not taken for the present."""
    network, x, y = problem(1, pooled("max"))
    estimator = FrozenMean(free=FIXED, nudged=FIXED, fallback=False)
    recorded = estimator(network, x, y).gradient
    assert len(replays) == 4
    everywhere(monkeypatch, None)
    plain = estimator(network, x, y).gradient
    for name, gradient in plain.items():
        assert torch.equal(recorded[name], gradient)


def halving() -> tuple[dict[str, torch.Tensor], Callable[[tuple[float, ...]], torch.Tensor]]:
    """A state, and sweeps that take a share of it away."""
    state = {"z": torch.tensor([[8.0], [4.0]])}

    def sweeps(steps: tuple[float, ...]) -> torch.Tensor:
        for step in steps:
            state["z"] = state["z"] * (1 - step)
        return state["z"].abs().amax(1)

    return state, sweeps


def test_a_replay_that_differs_is_refused_once_and_the_states_stay_right() -> None:
    """A recording that does nothing leaves other states than the sweeps do."""
    state, sweeps = halving()
    run = Sweeps(sweeps, [state], lambda function: lambda: None)
    run((0.5,))
    with pytest.warns(GraphWarning, match="a replay leaves other states of 'z' than the sweeps"):
        run((0.5,))
    assert state["z"].tolist() == [[2.0], [1.0]]
    assert recorder_of(0.0, torch.device("cuda")) is None


def test_what_cannot_be_recorded_runs_plainly() -> None:
    """A failing capture changes nothing but the speed, and is not tried again."""
    state, sweeps = halving()

    def fail(function: Callable[[], None]) -> Replay:
        function()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    run = Sweeps(sweeps, [state], fail)
    run((0.5,))
    with pytest.warns(GraphWarning, match="not permitted when stream is capturing"):
        run((0.5,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run((0.5,))
    assert state["z"].tolist() == [[1.0], [0.5]]
    assert found.tolist() == [1.0, 0.5]


def test_only_a_fixed_number_of_sweeps_on_a_gpu_is_recorded() -> None:
    """Samples that leave as they settle change the shapes that a recording serves."""
    assert recorder_of(0.0, torch.device("cuda")) is cuda_graphs.CudaGraph
    assert recorder_of(1e-3, torch.device("cuda")) is None
    assert recorder_of(0.0, torch.device("cpu")) is None


@needs_cuda
@pytest.mark.usefixtures("full_precision")
def test_a_cuda_graph_settles_where_plain_sweeps_do() -> None:
    """On a GPU the recording passes its own check, and the states agree."""
    network, x, _ = problem(1, pooled("max"))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        here = settle(Landscape(network, x), FIXED)
        there = settle(Landscape(network.cuda(), x.cuda()), FIXED)
    assert cuda_graphs._checked
    for name, state in here.state.items():
        assert torch.allclose(there.state[name].cpu(), state, atol=1e-4)
