"""Figures that commands print against a plain run of the same network, with nothing shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compilers import load_program
from compilers.hardware.cost import Activity
from ep_neuro.data import datasets
from ep_neuro.network.checkpoint import load_model
from targets.interface import energy, graph_simulator
from targets.interface.graph_simulator import _GraphRecorder
from targets.interface.protocols import PhaseResult, RunResult
from tests.cli.conftest import Cli
from tests.helpers.recount import Figures, plain_run, recount

SAMPLES, STEPS = 6, 20
CODES = ["graded", "sigma-delta", "spike"]
ON_DATA = ("--data", "digits", "--limit", SAMPLES, "--json")

Change = Callable[[pytest.MonkeyPatch], None]


def digits() -> tuple[np.ndarray, np.ndarray]:
    test = datasets.load("digits").test.head(SAMPLES)
    return test.x, test.y


def made(cli: Cli, code: str, bits: int | None) -> Path:
    width = () if bits is None else ("--bits", bits)
    words = ("--target", "reference", "--code", code, *width, "--steps", STEPS, "--out", "p")
    assert cli("compile", "model", *words).code == 0
    return Path("p")


def recounted(program: Path) -> Figures:
    graph = load_program(program).graph
    x, y = digits()
    messages, outputs = plain_run(graph, x)
    return recount(graph, x, y, [messages], outputs)


def printed(cli: Cli, code: str, bits: int | None) -> list[dict[str, Any]]:
    """The figures by `run`, and by `compare`."""
    ran = cli("run", "p", *ON_DATA).answer
    word = f"reference:{code}" + (f":{bits}" if bits else "")
    row = cli("compare", "model", "--with", word, "--steps", STEPS, *ON_DATA).answer["rows"][1]
    by_run = {
        "accuracy": ran["accuracy"],
        "events": ran["events_per_sample"],
        "synops": ran["synops_per_sample"],
    }
    return [by_run, {key: row[key] for key in (*by_run, "energy_joule")}]


def agree(found: list[dict[str, Any]], figures: Figures) -> bool:
    return all(
        row == pytest.approx({key: getattr(figures, key) for key in row}, rel=1e-12)
        for row in found
    )


@pytest.mark.parametrize(("bits", "kept"), [(None, 128), (8, 128), (8, 7)])
@pytest.mark.parametrize("code", CODES)
def test_figures_of_run_and_compare_are_those_of_a_plain_run(
    cli: Cli, model: Path, code: str, bits: int | None, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the messages of all steps are not counted at once."""
    monkeypatch.setattr(graph_simulator, "STEPS", kept)
    program = made(cli, code, bits)
    assert agree(printed(cli, code, bits), recounted(program))


# --- proof that it would be seen ---------------------------------------------------------------


def _one_event_more(patch: pytest.MonkeyPatch) -> None:
    record = _GraphRecorder.record

    def more(self: _GraphRecorder) -> Any:
        done = record(self)
        next(iter(done.result.events.values()))[-1, 0] += 1
        return done

    patch.setattr(_GraphRecorder, "record", more)


def _one_synapse_more(patch: pytest.MonkeyPatch) -> None:
    take = _GraphRecorder._count

    def more(self: _GraphRecorder, p: Any, said: Any) -> None:
        self.fanouts = {name: fanout + (name == "h1") for name, fanout in self.fanouts.items()}
        take(self, p, said)

    patch.setattr(_GraphRecorder, "_count", more)


def _one_right_more(patch: pytest.MonkeyPatch) -> None:
    accuracy = RunResult.accuracy
    patch.setattr(RunResult, "accuracy", lambda self, y: accuracy(self, y) + 1 / len(y))


def _one_step_more(patch: pytest.MonkeyPatch) -> None:
    of = energy.activity

    def longer(phase: PhaseResult) -> Activity:
        return replace(of(phase), steps=of(phase).steps + 1)

    patch.setattr(energy, "activity", longer)


@pytest.mark.parametrize(
    "change", [_one_event_more, _one_synapse_more, _one_right_more, _one_step_more]
)
def test_a_counter_that_is_off_by_one_is_seen(
    cli: Cli, model: Path, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = made(cli, "spike", 8)
    change(monkeypatch)
    assert not agree(printed(cli, "spike", 8), recounted(program))


def test_the_accuracy_of_evaluate_is_that_of_the_plain_fixed_point(cli: Cli, model: Path) -> None:
    """``z = clip(drive)`` by damped iteration in float64, of a dense network."""
    network = load_model(model).network
    spec = network.spec
    w = {k: v.detach().double().numpy() for k, v in network.weights.items()}
    b = {k: v.detach().double().numpy().ravel() for k, v in network.biases.items()}
    x, y = digits()
    hidden, out = (p for p in spec.populations)
    first, second = w[f"input->{hidden.name}"], w[f"{hidden.name}->{out.name}"]
    h, o = np.zeros((len(x), first.shape[0])), np.zeros((len(x), second.shape[0]))
    driven = x.reshape(len(x), -1) @ first.T + b[hidden.name]
    for _ in range(2000):
        h += 0.5 * (np.clip(driven + o @ second, *hidden.box) - h)
        o += 0.5 * (np.clip(h @ second.T + b[out.name], *out.box) - o)
    right = int((o.argmax(1) == y).sum())
    assert cli("evaluate", "model", *ON_DATA).answer["accuracy"] == pytest.approx(right / len(x))
