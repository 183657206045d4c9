"""Claims about traces: ``run --trace`` writes what every population did at every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compilers import compile as compile_program
from compilers import save_program
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from targets.experiments.comparison.run_record import TRACE_SAMPLES
from tests.cli.conftest import Cli

STEPS = 12


def trace_of(cli: Cli, code: str, bits: int | None = None) -> dict[str, np.ndarray]:
    network = Network(zoo("digits_residual"), 0)
    program = compile_program(network, "reference", code=code, bits=bits, steps=STEPS)
    save_program(program, "p")
    assert cli("run", "p", "--limit", 6, "--trace", "new/trace.npz").code == 0
    with np.load("new/trace.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("code", ["graded", "sigma-delta", "spike"])
def test_a_trace_holds_events_and_states_of_every_population(cli: Cli, code: str) -> None:
    trace = trace_of(cli, code)
    spec = zoo("digits_residual")
    for name, shape in spec.shapes.items():
        assert trace[f"events/{name}"].shape == (STEPS, TRACE_SAMPLES)
        if name != "input":
            state = trace[f"states/{name}.{'v' if code == 'spike' else 'z'}"]
            assert state.shape == (STEPS, TRACE_SAMPLES, *shape)
            assert state.dtype == np.float32
    assert trace["inputs"].shape == (TRACE_SAMPLES, 1, 8, 8)
    assert trace["labels"].shape == (TRACE_SAMPLES,)


@pytest.mark.parametrize("code", ["sigma-delta", "spike"])
def test_the_events_of_a_trace_are_its_nonzero_messages(cli: Cli, code: str) -> None:
    trace = trace_of(cli, code)
    messages = {k: v for k, v in trace.items() if k.endswith(".message")}
    assert messages
    for key, sent in messages.items():
        name = key.removeprefix("states/").removesuffix(".message")
        counted = (sent.reshape(STEPS, TRACE_SAMPLES, -1) != 0).sum(-1)
        np.testing.assert_array_equal(counted, trace[f"events/{name}"])


def test_the_states_of_a_quantised_program_are_integers(cli: Cli) -> None:
    trace = trace_of(cli, "graded", bits=8)
    assert trace["states/output.z"].dtype.kind == "i"


def test_an_older_trace_is_replaced_as_a_whole(cli: Cli, program: Path) -> None:
    for steps in (5, 3):
        cli("run", program, "--limit", 2, "--steps", steps, "--trace", "t.npz")
    with np.load("t.npz") as file:
        assert file["events/h1"].shape == (3, 2)
    assert not list(Path().glob(".t.npz*"))
