"""Devices that learn: ideal writes, pulses, and equilibrium propagation with them in the loop."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
from ep_neuro.errors import GraphError, RunError, TargetError
from ep_neuro.network.network import Network
from ep_neuro.training.config import read_config
from targets.crossbar import study
from targets.crossbar.arrays.array import Array
from targets.crossbar.arrays.layouts import layout
from targets.crossbar.arrays.mapping import ArrayMapping, is_forward
from targets.crossbar.arrays.options import CELLS, DAY, Options
from targets.crossbar.arrays.tile import Randomness
from targets.crossbar.on_device_learning import DeviceRule, learn, step
from targets.experiments.onchip import learning
from targets.experiments.onchip.schedule import Plan
from tests.helpers.graphs import graph_of, random_residual_spec, samples

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
def test_learning_from_activities_adds_their_products_over_all_places(conv: str) -> None:
    operator, kernel = Conv(1, 1), normal(2, 3, 3, 3)
    array = array_of(kernel, operator, conv, fill=0.01)
    pre, post = normal(4, 3, 5, 5, seed=1), normal(4, 2, 5, 5, seed=2)
    before = array.weights()
    array.learn(pre, post, 0.01, pulsed=False)
    moved, summed = array.weights() - before, 0.01 * pairings(operator, kernel.shape, pre, post)
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
    array.learn(np.zeros((1, 30)), np.zeros((1, 20)), 0.1, pulsed=True)
    before, rate = array.weights(), 0.01
    pre, post = rng.uniform(0, 1, (200, 30)), rng.normal(size=(200, 20)) + 0.5
    array.learn(pre, sign * post, rate, pulsed=True)
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
    array.learn(np.abs(normal(50, 8)), normal(50, 6), 0.01, pulsed=True)
    front, behind = array.forward(np.eye(8)).T, array.backward(np.eye(6))
    np.testing.assert_allclose(front, behind, atol=1e-12)
    np.testing.assert_allclose(front, array.weights(), atol=1e-12)


# --- equilibrium propagation -------------------------------------------------------------------


def test_a_step_is_the_centered_contrast_of_the_states_that_the_reference_settles_to() -> None:
    spec = random_residual_spec(3)
    graph, (x, y) = graph_of(spec, steps=24), samples(spec, 6)
    rate, beta = 0.05, graph.phase("nudged+").nudge
    probes = [f"{p.name}.z" for p in graph.neurons]
    phases = targets.get("reference").open(Program("reference", graph)).settle(x, y, probes=probes)
    ends = {}
    for sign, name in ((1, "nudged+"), (-1, "nudged-")):
        ends[sign] = {p.name: phases.phases[name].probes[f"{p.name}.z"][-1] for p in graph.neurons}
        ends[sign][graph.sources[0].name] = x
    options = {"fill": 0.01}
    with targets.open(Program("crossbar", graph, options=options)) as session:
        biases = {name: bias.copy() for name, bias in session.simulator.biases.items()}
        before = session.weights()
        step(session, x, y, DeviceRule(rate))
        after = session.weights()
        for p in filter(is_forward, graph.projections):
            gains = [graph.population(n).readout.gain for n in (p.pre, p.post)]
            products = {
                s: pairings(p.operator, before[p.weight].shape, z[p.pre], z[p.post])
                for s, z in ends.items()
            }
            expected = np.prod(gains) * (products[1] - products[-1]) / (2 * beta * len(x))
            moved = (after[p.weight] - before[p.weight]) / rate
            np.testing.assert_allclose(moved, expected, atol=1e-6)
            assert np.abs(expected).max() > 1e-4
        for name, bias in session.simulator.biases.items():
            expected = (ends[1][name] - ends[-1][name]).mean(0) / (2 * beta)
            np.testing.assert_allclose((bias - biases[name]) / rate, expected, atol=1e-9)


@pytest.fixture(scope="module")
def briefly_trained() -> Network:
    """A digits network after a few epochs."""
    return ep.train(read_config("zoo:digits_dense", ["epochs=3"])).model.network


@pytest.mark.parametrize("pulses", [False, True], ids=["written", "pulsed"])
def test_arrays_learn_some_of_their_errors_away(briefly_trained: Network, pulses: bool) -> None:
    options = {"programming_error": 0.15, "scaling": "tile", "seed": 1}
    program = study.program_for(briefly_trained, options, steps=24, nudged_steps=12)
    digits = datasets.load("digits")
    with targets.open(program) as session:
        before = study.accuracy(session, digits.test)
        for _ in learn(session, digits.train.head(600), DeviceRule(pulsed=pulses)):
            pass
        assert study.accuracy(session, digits.test) > before + 0.03


def test_the_rule_of_a_plastic_graph_learns_errors_away_too(briefly_trained: Network) -> None:
    options = {"programming_error": 0.15, "scaling": "tile", "seed": 1}
    program = study.program_for(briefly_trained, options, steps=24, nudged_steps=12)
    plastic = replace(program, graph=make_plastic(program.graph, lr=0.05))
    digits = datasets.load("digits")
    with targets.learner(plastic) as session:
        before = (session.settle(digits.test.x).predictions == digits.test.y).mean()
        taught = digits.train.head(600)
        result = session.learn(taught.x, taught.y, batch=32)
        after = (session.settle(digits.test.x).predictions == digits.test.y).mean()
        assert after > before + 0.03
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


def test_spiking_neurons_and_phases_that_do_not_mirror_are_refused_in_one_line() -> None:
    spec = random_residual_spec(1)
    x, y = samples(spec, 2)
    with (
        targets.open(Program("crossbar", graph_of(spec, "spike"))) as session,
        pytest.raises(TargetError, match="compile it as graded"),
    ):
        step(session, x, y, DeviceRule())
    graph = graph_of(spec)
    one_sided = replace(graph, phases=(*graph.phases[:2], replace(graph.phases[2], nudge=-0.1)))
    with (
        targets.open(Program("crossbar", one_sided)) as session,
        pytest.raises(GraphError, match=r"sign -1 and nudge -0\.1.*default phases"),
    ):
        step(session, x, y, DeviceRule())


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
@pytest.mark.parametrize("pulses", [False, True], ids=["written", "pulsed"])
def test_ten_percent_of_programming_error_are_learnt_away(trained: Path, pulses: bool) -> None:
    network, digits = ep.load_model(trained).network, datasets.load("digits")
    found = study.recover(network, digits, {"programming_error": 0.1}, pulsed=pulses)
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
    after = learning.learn(learning.plastic(before), digits, plan).program
    assert [len(p.files["tiles.txt"].splitlines()) for p in (before, after)] == [1, 2]
    assert [p.graph.provenance["tiles"] for p in (before, after)] == ["1", "2"]
