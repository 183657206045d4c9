"""Claims about other tools: what they compute from our NIR files, in an environment of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ep_neuro as ep
import targets
from compilers import compile_network
from ep_neuro.data import datasets
from ep_neuro.training.config import read_config
from targets.nir.backend import BACKEND

SCRIPT = Path(__file__).parents[2] / "helpers" / "nir_readers.py"
PYTHON = os.environ.get("NIR_READERS_PYTHON", sys.executable)
"""Python of an environment with nir, nirtorch, norse, sinabs and snntorch."""

FILES = {"graded": ("graded", 0.5), "spike": ("spike", 0.5), "spike1": ("spike", 1.0)}
"""Code and leak by file."""

pytestmark = pytest.mark.slow

Row = dict[str, Any]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Row]:
    """What each tool made of each file, by (tool, how, file)."""
    state = BACKEND.available()
    if not state.available:
        pytest.skip(state.reason)
    needed = "import nirtorch, norse, sinabs, snntorch"
    if subprocess.run([PYTHON, "-c", needed], capture_output=True, check=False).returncode:
        pytest.skip("no environment of readers; set NIR_READERS_PYTHON to its Python")
    folder = tmp_path_factory.mktemp("readers")
    _write_files(folder)
    done = subprocess.run(
        [PYTHON, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=300, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(row["tool"], row["how"], row["file"]): row for row in rows}


def _write_files(folder: Path) -> None:
    network = ep.train(read_config("zoo:digits_dense", ["epochs=4"])).model.network
    test = datasets.load("digits").test
    wanted: dict[str, np.ndarray] = {"x": test.x, "y": test.y}
    for name, (code, leak) in FILES.items():
        program = compile_network(network, BACKEND, code=code, leak=leak)  # type: ignore[arg-type]
        BACKEND.export(program, folder / f"{name}.nir")
        readout = program.graph.population(program.graph.output).readout
        with targets.open(program) as session:
            outputs = session.settle(test.x).free.outputs
        wanted[name] = (outputs - readout.offset) / readout.gain
    np.savez(folder / "data.npz", **wanted)


def test_nirtorch_computes_the_graded_network_when_it_honours_the_box(table: Any) -> None:
    with_box = table["nirtorch", "with LI and its box", "graded"]
    without = table["nirtorch", "with LI, no box", "graded"]
    assert with_box["difference"] < 1e-5
    assert with_box["agreement"] == 1
    assert without["difference"] > 0.01


def test_sinabs_runs_every_file_and_the_unfiltered_spikes_as_they_are(table: Any) -> None:
    assert all(row["runs"] for (tool, *_), row in table.items() if tool == "sinabs")
    assert table["sinabs", "as it is", "spike1"]["agreement"] > 0.97
    # One spike more or less in the 32 steps that count: its membranes start at 0, ours at 0.5.
    assert table["sinabs", "as it is", "spike1"]["difference"] <= 2 / 32
    assert table["sinabs", "norm_input=True", "spike"]["agreement"] > 0.97
    assert table["sinabs", "as it is", "graded"]["agreement"] < 0.9


def test_norse_and_snntorch_run_unfiltered_spikes_only(table: Any) -> None:
    assert table["norse", "as it is", "spike1"]["agreement"] > 0.9
    assert table["snntorch", "init_hidden, beta=1", "spike1"]["agreement"] > 0.97
    for tool, how in (("norse", "as it is"), ("snntorch", "as it is")):
        assert not any(table[tool, how, name]["loads"] for name in ("graded", "spike"))
