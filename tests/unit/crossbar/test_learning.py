"""Devices that learn: ideal writes, pulses, and equilibrium propagation with them in the loop."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aihwkit", reason="aihwkit is not installed; pip install 'ep-neuro[crossbar]'")

import compilers
import ep_neuro as ep
import targets
from compilers import Program
from compilers.ir.graph import Conv, Dense
from compilers.ir.operators import pairings
from compilers.passes.make_plastic import make_plastic
from ep_neuro.data import datasets
from ep_neuro.errors import RunError
from ep_neuro.network.network import Network
from ep_neuro.training.config import read_config
from targets.crossbar import study
from targets.crossbar.arrays.array import Array
from targets.crossbar.arrays.layouts import layout
from targets.crossbar.arrays.mapping import ArrayMapping
from targets.crossbar.arrays.options import CELLS, DAY, Options
from targets.crossbar.arrays.tile import Randomness
from targets.experiments.onchip import learning
from targets.experiments.onchip.plastic import plastic
from targets.experiments.onchip.schedule import Plan
from tests.helpers.graphs import graph_of, random_residual_spec, samples

LEARNING = {
    "written": {"scaling": "tile"},
    "plain": {"learning": "plain", "fill": 1.0},
}
"""By constant steps, from weights that take the whole range as those that are written do."""

KINDS = st.sampled_from(["dense", "shared", "unrolled"])


def array_of(
    weight: np.ndarray, operator: Dense | Conv | None = None, conv: str = "shared", **options: Any
) -> Array:
    """An array of a dense `weight`, or of kernels between 5x5 maps."""
    chosen = Options(conv=conv, **options)
    post, pre = weight.shape[:2]
    operator = operator or Dense()
    maps = isinstance(operator, Conv)
    shapes = ((pre, 5, 5), (post, 5, 5)) if maps else ((pre,), (post,))
    mapping = ArrayMapping("w", operator, *shapes, weight.shape, conv)
    return Array(weight, layout(mapping), chosen, Randomness(0))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# --- writing -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), KINDS)
@settings(max_examples=8)
def test_an_ideal_write_adds_what_it_is_told(seed: int, tile: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    if kind == "dense":
        array = array_of(rng.normal(size=(6, 9)), fill=0.1, tile=tile)
    else:
        array = array_of(rng.normal(size=(2, 3, 3, 3)), Conv(1, 1), kind, fill=0.1, tile=tile)
    before = array.weights()
    change = 0.1 * rng.normal(size=before.shape)
    array.update(change)
    np.testing.assert_allclose(array.weights(), before + change, atol=1e-12)
    array.update(-change)
    np.testing.assert_allclose(array.weights(), before, atol=1e-12)


def test_a_write_ends_where_conductances_do_and_reads_follow_it() -> None:
    weight = normal(4, 5)
    array = array_of(weight, fill=0.5, scaling="tile", device="pair", compensation=False)
    array.update(np.full(weight.shape, 100.0))
    largest = np.abs(weight).max()
    np.testing.assert_allclose(array.weights(), 2 * largest)
    np.testing.assert_allclose(array.backward(np.eye(4)), 2 * largest)
    array = array_of(weight, fill=0.5, device="pair", compensation=False)
    array.update(np.full(weight.shape, 100.0))
    own = 2 * np.abs(weight).max(1, keepdims=True) * np.ones(5)
    np.testing.assert_allclose(array.weights(), own)
    endless = array_of(weight)
    endless.update(np.full(weight.shape, 100.0))
    np.testing.assert_allclose(endless.weights(), weight + 100)


@pytest.mark.parametrize("conv", ["shared", "unrolled"])
def test_products_of_lines_are_those_of_the_synapses_at_all_places(conv: str) -> None:
    operator, kernel = Conv(1, 1), normal(2, 3, 3, 3)
    lines = array_of(kernel, operator, conv).layout
    pre, post = normal(4, 3, 5, 5, seed=1), normal(4, 2, 5, 5, seed=2)
    inputs, outputs = lines.inputs(torch.from_numpy(pre)), lines.outputs(torch.from_numpy(post))
    moved, summed = (
        lines.weight((outputs.T @ inputs).numpy()),
        pairings(operator, (2, 3, 3, 3), pre, post),
    )
    if conv == "unrolled":
        # Each cell takes the product of its own place; what is read back is their mean.
        ones = np.ones((1, 3, 5, 5)), np.ones((1, 2, 5, 5))
        summed = summed / pairings(operator, kernel.shape, *ones)
    np.testing.assert_allclose(moved, summed, atol=1e-12)


# --- pulses ------------------------------------------------------------------------------------


def pulsed(cells: str, sign: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """What pulses did to an array, and what they were asked to do."""
    rng = np.random.default_rng(1)
    array = array_of(0.2 * rng.normal(size=(20, 30)), fill=0.3, cells=cells)
    # Puts the weights on the devices.
    array.pulse(np.zeros((1, 30)), np.zeros((1, 20)), 0.1)
    before, rate = array.weights(), 0.01
    pre, post = rng.uniform(0, 1, (200, 30)), rng.normal(size=(200, 20)) + 0.5
    array.pulse(pre, sign * post, rate)
    return array.weights() - before, rate * sign * post.T @ pre


@pytest.mark.parametrize("cells", CELLS)
def test_pulses_go_where_they_are_asked_to_with_the_noise_of_their_devices(cells: str) -> None:
    (up, asked), (down, _) = pulsed(cells), pulsed(cells, sign=-1.0)
    assert asked.mean() > 0
    assert up.mean() > 0 > down.mean()
    assert (up * down).mean() < 0
    assert np.abs(up - asked).mean() > 0.02


@pytest.mark.parametrize("cells", ["constant-step", "ecram"])
def test_steady_devices_are_right_on_average(cells: str) -> None:
    moved, asked = pulsed(cells)
    assert moved.mean() / asked.mean() == pytest.approx(1.0, rel=0.15)
    assert np.corrcoef(moved.ravel(), asked.ravel())[0, 1] > 0.35


def test_both_directions_read_what_pulses_left() -> None:
    array = array_of(0.2 * normal(6, 8), fill=0.3)
    array.pulse(np.abs(normal(50, 8)), normal(50, 6), 0.01)
    front, behind = array.forward(np.eye(8)).T, array.backward(np.eye(6))
    np.testing.assert_allclose(front, behind, atol=1e-12)
    np.testing.assert_allclose(front, array.weights(), atol=1e-12)


# --- equilibrium propagation -------------------------------------------------------------------


@pytest.fixture(scope="module")
def briefly_trained() -> Network:
    """A digits network after a few epochs."""
    return ep.train(read_config("zoo:digits_dense", ["epochs=3"])).model.network


@pytest.mark.parametrize("method", ["written", "plain"])
def test_arrays_learn_some_of_their_errors_away(briefly_trained: Network, method: str) -> None:
    options = {"programming_error": 0.15, "seed": 1, **LEARNING[method]}
    program = study.program_for(briefly_trained, options, steps=24, nudged_steps=12)
    plastic = replace(program, graph=make_plastic(program.graph, lr=0.05))
    digits = datasets.load("digits")
    with targets.learner(plastic) as session:
        before = study.accuracy(session, digits.test)
        taught = digits.train.head(600)
        result = session.learn(taught.x, taught.y, batch=32)
        assert study.accuracy(session, digits.test) > before + 0.03
        assert result.commits == 19
        learnt = session.learnt()
        for name, weights in session.weights().items():
            np.testing.assert_allclose(learnt.graph.arrays[name], weights, atol=1e-6)


def test_learning_goes_on_bit_for_bit_from_its_memory_read_noise_included() -> None:
    spec = random_residual_spec(1)
    x, y = samples(spec, 12)
    graph = make_plastic(graph_of(spec, steps=12), lr=0.1)
    program = Program("crossbar", graph, options={"preset": "pcm", "seconds": DAY, "fill": 0.5})
    with targets.learner(program) as first, targets.learner(program) as second:
        first.learn(x[:6], y[:6], batch=3)
        second.restore(first.memory())
        for session in (first, second):
            session.learn(x[6:], y[6:], batch=3)
        for name, weights in first.weights().items():
            np.testing.assert_array_equal(second.weights()[name], weights)
        with pytest.raises(RunError, match="'noise' is not in the memory"):
            second.restore({k: v for k, v in first.memory().items() if k != "noise"})


def test_a_weight_beyond_the_range_of_its_devices_is_counted() -> None:
    spec = random_residual_spec(1)
    x, y = samples(spec, 4)
    graph = make_plastic(graph_of(spec, steps=12), lr=1e4)
    with targets.learner(Program("crossbar", graph, options={"device": "pair"})) as session:
        assert session.learn(x, y, batch=4).clipped > 0


# --- the study ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network that `ep-neuro train zoo:digits_dense` gives."""
    out = tmp_path_factory.mktemp("dense")
    ep.train(read_config("zoo:digits_dense"), out)
    return out / "best"


def test_a_sweep_is_drawn_with_a_line_a_series(tmp_path: Path) -> None:
    values = (0.0, 0.1, 0.2)
    found = {"a": [[0.9, 0.95], [0.8, 0.7], [0.5, 0.6]], "b": [[0.9], [0.6], [0.3]]}
    figure = study.draw(study.DeviceSweep("error", "programming error", values, found))
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    np.testing.assert_allclose(lines["a"], [92.5, 75.0, 55.0])
    np.testing.assert_allclose(lines["b"], [90.0, 60.0, 30.0])


@pytest.mark.slow
def test_pcm_answers_as_well_after_a_day_only_with_compensation(trained: Path) -> None:
    network, test = ep.load_model(trained).network, datasets.load("digits").test
    aged = {"preset": "pcm", "seconds": DAY}
    compensated = np.mean(study.measured(network, test, aged, 3))
    left_alone = np.mean(study.measured(network, test, {**aged, "compensation": False}, 3))
    assert compensated >= 0.95
    assert left_alone < compensated - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("method", ["written", "plain"])
def test_ten_percent_of_programming_error_are_learnt_away(trained: Path, method: str) -> None:
    network, digits = ep.load_model(trained).network, datasets.load("digits")
    found = study.recover(network, digits, {"programming_error": 0.1, **LEARNING[method]})
    assert found.erroneous < found.exact - 0.03
    assert found.learnt[-1] >= found.exact - 0.015


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("m", "mine"), "error: mine: is a directory with other content (no study.json in it)"),
        (("m", "mine/letter"), "error: mine/letter: is a file, not a folder"),
    ],
)
def test_the_study_refuses_a_place_that_it_did_not_make(
    words: tuple[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/letter").write_text("dear")
    monkeypatch.setattr(sys, "argv", ["study", *words])
    with pytest.raises(SystemExit) as left, pytest.warns(RuntimeWarning, match="sys.modules"):
        runpy.run_module("targets.crossbar.study", run_name="__main__")
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(says)
    assert [p.name for p in Path("mine").iterdir()] == ["letter"]


@pytest.mark.slow
def test_the_study_writes_its_figures_and_numbers(trained: Path, tmp_path: Path) -> None:
    for _ in range(2):
        study.main([str(trained), str(tmp_path), "--seeds", "1"])
    for name in ("error", "bits", "time"):
        assert "<svg" in (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
    assert (tmp_path / "study.json").stat().st_size > 1000


def test_a_learnt_program_lists_the_arrays_that_it_learnt_on() -> None:
    network = Network(ep.zoo("digits_dense"), 0)
    before = compilers.compile(network, "crossbar", steps=2, options={"digital": "input"})
    digits = datasets.load("digits")
    digits = replace(digits, val=digits.val.head(2), test=digits.test.head(2))
    plan = Plan(samples=2, batch=2, points=1)
    after = learning.learn(plastic(before), digits, plan).program
    assert [len(p.files["tiles.txt"].splitlines()) for p in (before, after)] == [1, 2]
    assert [p.graph.provenance["tiles"] for p in (before, after)] == ["1", "2"]
