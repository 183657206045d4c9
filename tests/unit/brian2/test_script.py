"""Claims about the Brian2 script of a graph: what it says, and when there is none."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilers.hardware.limits import Quantity
from compilers.ir import graph as ir
from compilers.ir.operators import apply
from compilers.passes.make_plastic import make_plastic
from compilers.program import Program
from ep_neuro.cli import main
from ep_neuro.errors import ConfigError, ProgramError, TargetError
from targets.brian2 import session as session_module
from targets.brian2.backend import BACKEND
from targets.brian2.codegen.equations import plain
from targets.brian2.codegen.script import script
from targets.brian2.monitors import raster
from tests.helpers.graphs import digits_like_dense, graph_of, random_residual_spec


def calls(text: str, function: str) -> list[dict[str, str]]:
    """Keyword arguments of each call of `function` in a script, as source."""
    found = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
    return [
        {str(k.arg): ast.unparse(k.value) for k in n.keywords}
        for n in found
        if ast.unparse(n.func) == function
    ]


def helpers(text: str) -> dict[str, Any]:
    """The functions of a script that need NumPy only."""
    wanted = ("dense", "conv", "turned", "through", "schedule")
    functions: list[ast.stmt] = [
        n
        for n in ast.parse(text).body
        if (isinstance(n, ast.FunctionDef) and n.name in wanted)
        or (isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "PHASES")
    ]
    namespace: dict[str, Any] = {"np": np, "math": math}
    exec(compile(ast.Module(functions, []), "script", "exec"), namespace)
    return namespace


# --- the text ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ir.ENCODINGS)
@pytest.mark.parametrize("seed", range(4))
def test_each_tied_weight_is_one_synapses_object_for_both_directions(
    code: ir.Encoding, seed: int
) -> None:
    graph = graph_of(random_residual_spec(seed), code)
    text, recurrent = script(graph), {p.weight for p in graph.projections if p.pre != "input"}
    groups, joined = calls(text, "NeuronGroup"), calls(text, "Synapses")
    assert [g["name"] for g in groups] == [f"'p_{p.name}'" for p in graph.neurons]
    assert len({s["name"] for s in joined}) == len(joined) == len(recurrent)
    for s in joined:
        assert code == "graded" or {"on_pre", "on_post"} <= set(s)
    if code == "graded":
        summed = re.findall(r"I_\w+_(pre|post) = .* : 1 \(summed\)", text)
        assert summed.count("pre") == summed.count("post") == len(joined)


def test_equations_name_the_unit_of_every_variable() -> None:
    for code in ir.ENCODINGS:
        for block in re.findall(
            r'NeuronGroup\(\n.*?"""\n(.*?)\n\s+"""',
            script(graph_of(digits_like_dense(), code)),
            re.S,
        ):
            assert all(re.search(r" : (1|integer)( \(.*\))?$", line) for line in block.split("\n"))


@pytest.mark.parametrize("code", ir.ENCODINGS)
def test_what_learns_has_its_rule_in_its_synapses(code: ir.Encoding) -> None:
    graph = make_plastic(graph_of(random_residual_spec(1), code))
    joined = calls(script(graph), "Synapses")
    recurrent = {p.weight for p in graph.projections if p.pre != "input"}
    assert len(joined) == len(recurrent)
    for s in joined:
        assert "'learn': 'tag = tag + gate_post * x_pre * x_post'" in s["on_post"]
        assert "'learn': 'learn'" in s["on_event"]
    for group in calls(script(graph), "NeuronGroup"):
        assert "'learn': 'gate != 0 and i >= 0'" in group["events"]
    still = replace(graph, plasticity=())
    assert "tag" not in script(still)
    frozen = make_plastic(graph, only=["bias/out"])
    assert not any("tag" in s.get("on_post", "") for s in calls(script(frozen), "Synapses"))


def test_a_rule_that_runs_at_every_step_is_a_violation() -> None:
    graph = make_plastic(graph_of(digits_like_dense()), "continual")
    (violation,) = BACKEND.check(graph)
    assert "every step" in violation.subject
    assert violation.value == len(graph.plasticity)
    assert "contrastive" in violation.remedy


def test_a_weight_without_a_way_back_keeps_its_one_direction() -> None:
    graph = graph_of(digits_like_dense(), "spike")
    forward, back = (p for p in graph.projections if p.pre != "input")
    arrays = {**graph.arrays, "weight/back": graph.arrays[back.weight]}
    untied = replace(
        graph,
        projections=(
            *(p for p in graph.projections if p is not back),
            replace(back, weight="weight/back"),
        ),
        arrays=arrays,
    )
    one, other = calls(script(untied), "Synapses")
    assert ("on_pre" in one, "on_post" in one) == (True, False)
    assert ("on_pre" in other, "on_post" in other) == (False, True)
    assert one["name"] != other["name"]
    assert {t.weight for t in untied.tied(recurrent=True)} == {forward.weight, "weight/back"}


@given(
    side=st.integers(3, 7),
    wide=st.integers(0, 2),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_the_listed_synapses_are_those_of_the_operator_and_of_its_adjoint(
    side: int,
    wide: int,
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    padding: int,
    seed: int,
) -> None:
    parts, rng = helpers(script(graph_of(digits_like_dense()))), np.random.default_rng(seed)
    pre = (channels[0], side, side + wide)
    post = (channels[1], *((n + 2 * padding - kernel) // stride + 1 for n in pre[1:]))
    weight = rng.normal(size=(channels[1], channels[0], kernel, kernel))
    sites = parts["conv"](weight.shape, pre, post, stride, padding)
    x, y = rng.normal(size=(2, *pre)), rng.normal(size=(2, *post))
    there = parts["through"](x, weight, sites, math.prod(post))
    back = parts["through"](y, weight, parts["turned"](sites), math.prod(pre))
    np.testing.assert_allclose(
        there, apply(ir.Conv(stride, padding), weight, x, post).reshape(2, -1), atol=1e-12
    )
    np.testing.assert_allclose((there * y.reshape(2, -1)).sum(), (back * x.reshape(2, -1)).sum())
    flat = rng.normal(size=(math.prod(post), math.prod(pre)))
    dense = parts["through"](x, flat, parts["dense"](pre, post), math.prod(post))
    np.testing.assert_allclose(dense, apply(ir.Dense(), flat, x, post).reshape(2, -1), atol=1e-12)


def test_phases_stand_one_after_another_and_age_counts_from_rest() -> None:
    graph = graph_of(digits_like_dense(), "sigma-delta", steps=12)
    spans, constants = helpers(script(graph))["schedule"]()
    assert spans == {"free": (0, 12), "nudged+": (12, 24), "nudged-": (24, 36)}
    ages = [
        k - sum(constants[f"skip_{i}"] for i in (1, 2) if k >= constants[f"begin_{i}"])
        for k in (0, 11, 12, 23, 24, 35)
    ]
    assert ages == [0, 11, 12, 23, 12, 23]


@settings(max_examples=20)
@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=6))
def test_every_name_becomes_one_that_c_plus_plus_takes_and_stays_unique(names: list[str]) -> None:
    found = plain(names)
    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in found.values())


def test_spikes_and_changes_become_a_raster() -> None:
    record = {
        "h/step": np.array([0, 2]),
        "h/neuron": np.array([1, 3]),
        "g/step": np.array([1]),
        "g/neuron": np.array([0]),
        "g/value": np.array([-0.25]),
    }
    spikes = raster(record, "h", (2, 2), 3)
    assert spikes.shape == (3, 2, 2)
    assert list(zip(*np.nonzero(spikes), strict=True)) == [(0, 0, 1), (2, 1, 1)]
    assert raster(record, "g", (1, 2), 3)[1, 0, 0] == -0.25


# --- what it refuses ---------------------------------------------------------------------------


def broken(what: str) -> ir.Graph:
    """A graph with one thing that a script cannot say."""
    graph = graph_of(digits_like_dense(), "graded")
    h1 = graph.population("h1")
    others = tuple(p for p in graph.populations if p is not h1)
    if what == "undirected couplings":
        return replace(graph, couplings=(ir.Coupling("h1", "out", ir.Dense(), "weight/h1->out"),))
    if what == "inputs besides one":
        return replace(
            graph, populations=(*graph.populations, ir.Population("x", (1,), ir.Source()))
        )
    if what == "further encodings":
        return replace(graph, populations=(*others, replace(h1, dynamics=ir.Spiking())))
    if what == "delays of other than 1 step":
        late = tuple(replace(p, delay=2) for p in graph.projections)
        return replace(graph, projections=late)
    return replace(graph, populations=(*others, replace(h1, box=(0.2, 1.0))))


@pytest.mark.parametrize(
    "what",
    [
        *("undirected couplings", "inputs besides one", "further encodings"),
        *("delays of other than 1 step", "boxes without 0"),
    ],
)
def test_what_a_script_cannot_say_is_a_violation_and_is_refused(what: str) -> None:
    graph = broken(what)
    (violation,) = BACKEND.check(graph)
    assert what in violation.subject
    assert BACKEND.emit(graph).files == {}
    if BACKEND.available().available:
        with pytest.raises(TargetError, match=what):
            BACKEND.open(BACKEND.emit(graph))


def test_more_synapses_than_a_host_can_list_are_a_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = {"synapses": Quantity(1279, "synapses", "")}
    monkeypatch.setattr(BACKEND, "bounds", few)
    (violation,) = BACKEND.check(graph_of(digits_like_dense()))
    assert (violation.value, violation.limit) == (128 * 10, 1279)


def test_integers_have_no_script(tmp_path: Path) -> None:
    graph = graph_of(digits_like_dense(), bits=8)
    with pytest.raises(TargetError, match="--bits"):
        BACKEND.emit(graph)
    with pytest.raises(TargetError, match="--bits"):
        BACKEND.export(Program(BACKEND.name, graph), tmp_path / "net.py")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "cuda"},
        {"compilers": 0},
        {"time_limit": "long"},
        {"time_limit": -1.0},
        {"time_limit": 10**400},
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        BACKEND.passes(options)


def test_a_script_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProgramError, match="cannot be written"):
        BACKEND.export(BACKEND.emit(graph_of(digits_like_dense())), tmp_path / "file" / "net.py")


def test_without_brian2_it_is_unavailable_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    state = BACKEND.available()
    assert not state.available
    assert "pip install 'brian2" in state.reason
    with pytest.raises(TargetError, match="pip install"):
        BACKEND.open(BACKEND.emit(graph_of(digits_like_dense())))


def test_without_a_compiler_it_is_available_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    state = BACKEND.available()
    assert state.available
    assert "make not found" in state.reason
    assert "make not found" in session_module.missing_tools()


def test_compiling_to_a_python_file_writes_the_script_and_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "net.py"
    argv = ["compile", "zoo:digits_dense", "--target", "brian2", "--code", "spike"]
    monkeypatch.setattr("sys.argv", ["ep-neuro", *argv, "--out", str(place)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(place.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    packages = {name.partition(".")[0] for name in imported}
    assert packages == {"argparse", "json", "math", "pathlib", "numpy", "brian2"}
    with np.load(tmp_path / "net.npz") as file:
        assert any(name.startswith("weight/") for name in file.files)
