"""Lava's room: how it is found, what crosses its threshold, and that our modules fit in."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path

import numpy as np
import pytest

import targets
from compilers.program import Program
from ep_neuro.errors import TargetError
from targets.interface.supervised.messages import (
    Done,
    Fault,
    Message,
    Progress,
    Run,
    Start,
    Stop,
    receive,
    send,
)
from targets.lava import BACKEND
from targets.lava.runtime import environment
from targets.lava.runtime.layout import FAITHFUL, NetworkLayout, received
from tests.helpers.graphs import graph_of, random_residual_spec
from tests.helpers.targets import needs
from tests.unit.package.test_layering import imports_of

ROOT = Path(__file__).resolve().parents[3]
INSIDE = (
    "interface/supervised/boot",
    "lava/runtime/supervisor",
    "lava/builders/batched",
    "lava/builders/faithful",
)
"""Modules of `targets` with which Lava's own Python begins."""

needs_lava = needs("lava")


def interpreter(folder: Path, says: str, code: int = 0) -> str:
    """A program that answers as a Python would that is asked for its version and for Lava."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho {says}\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


# --- finding it --------------------------------------------------------------------------------


def test_it_is_beside_the_environment_that_runs_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    assert environment.interpreter() == str(
        Path(sys.prefix).parent / ".venv-lava" / "bin" / "python"
    )
    monkeypatch.setenv(environment.VARIABLE, "/opt/lava/bin/python")
    assert environment.interpreter() == "/opt/lava/bin/python"


def test_where_there_is_none_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    reason = BACKEND.available().reason
    assert str(tmp_path / ".venv-lava") in reason
    assert "run `make setup`" in reason
    assert "name a Python 3.10 that has lava-nc==0.10.0 and numba in EP_NEURO_LAVA_PYTHON" in reason
    with pytest.raises(
        TargetError, match="needs an environment of its own, and there is no"
    ) as caught:
        BACKEND.open(Program("lava", graph_of(random_residual_spec(0))))
    assert "\n" not in str(caught.value)


def test_what_is_for_lava_runs_on_the_reference_without_it_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr("targets.lava.backend.missing", lambda: None)
    assert targets.or_reference("lava", told.append) == "lava"
    monkeypatch.setattr("targets.lava.backend.missing", lambda: ("it is not there", "build it"))
    assert targets.or_reference("lava", told.append) == "reference"
    assert told == ["on the reference target alone: it is not there; build it"]


@pytest.mark.parametrize(
    ("says", "code", "reason"),
    [
        ("3.12", 0, "Lava needs Python 3.10 and .* is 3.12"),
        ("3.10 lava", 0, "has no Lava; run `.* -m pip install lava-nc==0.10.0`"),
        ("3.10 numba", 0, "has no Numba; run `.* -m pip install numba`"),
        ("3.10 lava numba", 0, "no Lava and no Numba; run `.* install lava-nc==0.10.0 numba`"),
        ("3.10", 1, "is no Python that runs here"),
        ("", 0, "is no Python that runs here"),
        ("what is this", 0, "is no Python that runs here"),
    ],
)
def test_a_python_that_will_not_do_is_told_with_the_reason(
    says: str, code: int, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(environment.VARIABLE, interpreter(tmp_path, says, code))
    with pytest.raises(TargetError, match=reason):
        BACKEND.open(Program("lava", graph_of(random_residual_spec(0))))


def test_a_named_python_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.VARIABLE, "/nowhere/python")
    assert "EP_NEURO_LAVA_PYTHON=/nowhere/python does not exist" in BACKEND.available().reason


def test_the_listing_says_that_lava_is_archived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is, too."""
    monkeypatch.setattr("targets.lava.backend.missing", lambda: None)
    assert BACKEND.available().available
    assert "archived: since 13 May 2026" in BACKEND.available().reason


# --- what crosses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Start({"numbers": [1, 2.5], "text": "a 'b' \u2192 c", "none": None}),
        *(Run(7), Stop(), Progress(3), Done()),
        Fault("lava process 'a'", "it raised ValueError", "line\nline \udce9"),
    ],
)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    here, there = Pipe()
    send(here, message)
    assert receive(there) == message


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("encoding", ["graded", "sigma-delta", "spike"])
def test_a_layout_arrives_as_it_was_sent(encoding: str, bits: int | None) -> None:
    graph = graph_of(random_residual_spec(2), encoding, bits=bits)
    layout = NetworkLayout(graph, 3, 999, lowering=FAITHFUL)
    shared = layout.allocate()
    here, there = Pipe()
    send(here, Start({**layout.message(shared), "fd": os.dup(shared.fd)}))
    found, other = received(receive(there).argument)
    assert found.graph.digest() == graph.digest()
    assert replace(found, graph=layout.graph) == layout
    other["x"][...] = 0.25
    assert (shared["x"] == 0.25).all()
    for name, array in graph.arrays.items():
        assert found.graph.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.graph.arrays[name], array)
    shared.close()
    other.close()


# --- what is inside ----------------------------------------------------------------------------


def reachable() -> dict[Path, str]:
    """Text of the modules of ours that Lava's Python imports, however far away."""
    found: dict[Path, str] = {}
    left = [ROOT / "targets" / f"{name}.py" for name in INSIDE]
    while left:
        path = left.pop()
        if path in found:
            continue
        found[path] = path.read_text()
        for one in imports_of(found[path], str(path.relative_to(ROOT))):
            parts = one.module.split(".")
            files = [ROOT.joinpath(*parts[:n]).with_suffix(".py") for n in (len(parts), -1)]
            left += [f for f in files if f.is_file() and not one.inside]
    return found


def test_our_modules_inside_are_written_in_lavas_python() -> None:
    modules = reachable()
    assert {path.name for path in modules} >= {
        "graph.py",
        "synapses.py",
        "batched.py",
        "learning_dense.py",
    }
    for path, text in modules.items():
        ast.parse(text, str(path), feature_version=(3, 10))


def test_our_modules_inside_need_lava_and_what_it_brings_along_alone() -> None:
    at_hand = {"ep_neuro", "compilers", "targets", "lava", "numba", "numpy", "scipy"}
    foreign = [
        str(one)
        for path, text in reachable().items()
        for one in imports_of(text, str(path.relative_to(ROOT)))
        if not one.inside and one.package not in at_hand | sys.stdlib_module_names
    ]
    assert foreign == []


@needs_lava
def test_inside() -> None:
    """The tests that import Lava, run on its own Python."""
    python = environment.interpreter()
    probe = "print(all(map(__import__('importlib').util.find_spec, {!r})))"
    needed = ("pytest", "hypothesis", "pytest_timeout")
    found = [python, "-c", "import importlib.util;" + probe.format(needed)]
    if subprocess.run(found, capture_output=True, text=True).stdout.strip() != "True":
        pytest.skip("Lava's environment has no pytest; `make setup` builds one that has")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", str(ROOT / "tests" / "lava")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
