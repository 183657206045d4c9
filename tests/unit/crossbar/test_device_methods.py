"""Pulses by the methods made for real devices: what they learn, keep, and refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("aihwkit", reason="aihwkit is not installed; pip install 'ep-neuro[crossbar]'")

import targets
from compilers import Program
from compilers.ir.plasticity import Rule
from compilers.passes.make_plastic import make_plastic
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset
from ep_neuro.errors import ConfigError, GraphError
from targets.crossbar import device_study
from targets.crossbar.arrays.array import Array
from targets.crossbar.arrays.options import CELLS, DAY, METHODS, ONE_WAY, TRANSFERS, read_options
from targets.crossbar.arrays.pulsed_devices import PulsedDevices
from targets.crossbar.device_study import Row
from tests.helpers.graphs import graph_of, random_residual_spec, samples


def taught(
    draws: int = 1, updates: int = 150, size: int = 16, **options: Any
) -> tuple[float, float]:
    """Mean error of devices before and after they were taught random weights by rank-one pulses.

    aihwkit takes a seed for devices and none for pulses. So the mean is over as many `draws` as it
    takes for a bound to be 8 standard deviations of it away or more; each has devices and weights
    of its own.
    """
    errors = np.zeros(2)
    for seed in range(draws):
        rng = torch.Generator().manual_seed(seed)
        first, wanted = (0.2 * torch.randn(size, size, generator=rng).double() for _ in range(2))
        devices = PulsedDevices(first, read_options(options), seed=seed)
        before = (devices.weights() - wanted).abs().mean()
        for _ in range(updates):
            x = torch.randn(10, size, generator=rng).double()
            devices.pulse(x, x @ (wanted - devices.weights()).T, 0.004)
        errors += [before, (devices.weights() - wanted).abs().mean()]
    before, after = errors / draws
    return float(before), float(after)


@pytest.mark.parametrize("method", METHODS[1:])
def test_every_method_teaches_reram_of_four_cells_a_weight(method: str) -> None:
    before, after = taught(device="reram", copies=4, learning=method, updates=400)
    assert after < 0.9 * before


def test_mixed_precision_teaches_pcm_where_plain_pulses_lose_the_weights() -> None:
    before, plain = taught(20, device="pcm", learning="plain")
    _, mixed = taught(20, device="pcm", learning="mixed-precision")
    assert mixed < 0.95 * before < 1.3 * before < plain


def test_transfer_methods_learn_on_an_array_of_reram_where_plain_pulses_hardly_do() -> None:
    device = {"device": "reram-om", "updates": 400}
    before, plain = taught(20, **device, learning="plain")
    assert plain > 0.75 * before
    for method in ("chopped", "mixed-precision"):
        before, after = taught(4, **device, learning=method)
        assert after < 0.75 * before


def test_where_steps_are_asymmetric_plain_pulses_diverge_and_mixed_precision_learns() -> None:
    device = {"device": "capacitor", "asymmetry": 0.9, "updates": 400}
    before, plain = taught(**device, learning="plain")
    _, mixed = taught(**device, learning="mixed-precision")
    assert mixed < 0.7 * before < 2 * before < plain


def test_more_cells_a_weight_err_less() -> None:
    one, many = (taught(device="reram", learning="mixed-precision", copies=n)[1] for n in (1, 16))
    assert many < 0.7 * one


def test_fewer_states_leave_a_larger_error() -> None:
    few, many = (
        taught(device="idealized", learning="plain", states=states)[1] for states in (8, 1000)
    )
    assert few > 2 * many


def test_dead_cells_hold_what_they_hold() -> None:
    weights = torch.zeros(20, 20).double()
    devices = PulsedDevices(weights, read_options({"learning": "plain", "dead": 0.3}), seed=0)
    before = devices.weights()
    devices.pulse(torch.ones(50, 20).double(), torch.ones(50, 20).double(), 0.05)
    stuck = float((devices.weights() == before).double().mean())
    assert 0.2 < stuck < 0.4


def test_devices_are_restored_with_all_that_a_transfer_method_holds() -> None:
    options = read_options({"device": "ecram", "learning": "agad"})
    first, second = (PulsedDevices(torch.zeros(6, 8).double(), options, 0) for _ in range(2))
    for _ in range(40):
        first.pulse(torch.rand(10, 8).double(), torch.randn(10, 6).double(), 0.02)
    state = first.state()
    second.restore(state)
    for name, value in second.state().items():
        np.testing.assert_array_equal(value, state[name])


# --- a program that learns by pulses -----------------------------------------------------------


def plastic(**options: Any) -> tuple[Program, np.ndarray, np.ndarray]:
    spec = random_residual_spec(3)
    graph = make_plastic(graph_of(spec, steps=16), lr=0.02)
    return Program("crossbar", graph, options=options), *samples(spec, 12)


def test_pulses_are_asked_for_what_an_ideal_write_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    program, x, y = plastic(fill=0.05)
    options = {"learning": "plain", "device": "idealized", "fill": 0.05, "scaling": "line"}

    def exactly(array: Array, pre: np.ndarray, post: np.ndarray, rate: float) -> None:
        inputs, outputs = array.layout.inputs(tensor(pre)), array.layout.outputs(tensor(post))
        array.update(array.layout.weight(rate * (outputs.T @ inputs).numpy()))

    tensor = torch.from_numpy
    monkeypatch.setattr(Array, "pulse", exactly)
    with (
        targets.learner(replace(program, options=options)) as pulsed,
        targets.learner(program) as written,
    ):
        before = written.weights()
        for session in (pulsed, written):
            session.learn(x, y, batch=12)
        for name, wanted in written.weights().items():
            assert np.abs(wanted - before[name]).max() > 1e-5
            np.testing.assert_allclose(pulsed.weights()[name], wanted, atol=1e-6)
        for name, bias in written.simulator.biases.items():
            np.testing.assert_allclose(pulsed.simulator.biases[name], bias, atol=1e-6)


def test_a_batch_of_black_images_pulses_nothing_that_the_input_drives() -> None:
    program, x, y = plastic(learning="plain", device="idealized")
    with targets.learner(program) as session:
        session.learn(np.zeros_like(x), y, batch=12)
        assert session.learner.commits == 1


def test_a_run_that_pulses_goes_on_from_its_memory() -> None:
    program, x, y = plastic(learning="chopped", device="ecram")
    with targets.learner(program) as first, targets.learner(program) as second:
        first.learn(x, y, batch=4)
        second.restore(first.memory())
        for name, value in first.memory().items():
            np.testing.assert_array_equal(second.memory()[name], value, err_msg=name)
        np.testing.assert_array_equal(first.settle(x).predictions, second.settle(x).predictions)
        second.learn(x, y, batch=4)
        assert second.learner.commits == 6


@pytest.mark.parametrize("device", ["reram", "pcm"])
def test_what_was_learnt_by_mixed_precision_is_restored_too(device: str) -> None:
    program, x, y = plastic(learning="mixed-precision", device=device)
    with targets.learner(program) as first, targets.learner(program) as second:
        first.learn(x, y, batch=4)
        second.restore(first.memory())
        for name, weights in first.weights().items():
            np.testing.assert_array_equal(second.weights()[name], weights)
        second.learn(x, y, batch=4)


def test_a_day_changes_what_pcm_holds_and_nothing_is_said_of_ecram() -> None:
    program, x, y = plastic(learning="mixed-precision", device="pcm")
    with targets.learner(program) as session:
        session.learn(x, y, batch=4)
        before = session.weights()
        session.wait(DAY)
        after = session.weights()
        assert all(not np.allclose(after[name], before[name]) for name in before)
        session.learn(x, y, batch=4)
    program, x, y = plastic(learning="plain", device="ecram")
    with targets.learner(program) as session, pytest.raises(ConfigError, match="choose from pcm"):
        session.wait(DAY)


def test_pulses_refuse_rules_and_masks_that_they_cannot_follow_in_one_line() -> None:
    program, x, y = plastic(learning="plain")
    decay = Rule("odd", "phase", "tag + sign * post", "rate * tag")
    records = tuple(replace(r, rule=decay) for r in program.graph.plasticity)
    odd = replace(program, graph=replace(program.graph, plasticity=records))
    with targets.learner(odd) as session, pytest.raises(GraphError, match=r"'odd'.*contrastive"):
        session.learn(x, y, batch=4)


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", TRANSFERS)
@pytest.mark.parametrize("cells", ONE_WAY)
def test_one_way_devices_are_refused_to_methods_that_need_both(cells: str, method: str) -> None:
    with pytest.raises(ConfigError, match=r"only goes up.*choose mixed-precision"):
        read_options({"cells": cells, "learning": method})


def test_a_device_brings_its_own_cells_and_lines_of_one_range() -> None:
    for device in CELLS:
        options = read_options({"device": device, "learning": "plain"})
        assert options.pulsed_cells == device
        assert options.scaling == "tile"
    assert read_options({"learning": "plain", "scaling": "line"}).scaling == "line"
    assert read_options({}).pulsed_cells == "constant-step"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"learning": "sgd"}, "'learning' is 'sgd'"),
        ({"states": 1}, "'states' is 1"),
        ({"asymmetry": 1.0}, "'asymmetry' is 1.0"),
        ({"dead": 1.0}, "'dead' is 1.0"),
        ({"on_off": 1.0}, "'on_off' is 1.0"),
    ],
)
def test_what_no_device_has_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_options(options)
    assert says in str(refused.value).replace(":", "")


# --- the study ---------------------------------------------------------------------------------


def test_a_study_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Row] = []

    def measured(digits: Dataset, row: Row) -> dict[str, list[float]]:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(row)
        return {"validation": [0.5], "test": [0.25 + 0.5 * row.seed]}

    monkeypatch.setattr(device_study, "measure", measured)
    words = [str(tmp_path), "--only", "on_off", "--seeds", "2"]
    with pytest.raises(KeyboardInterrupt):
        device_study.main(words)
    monkeypatch.setattr(
        device_study, "measure", lambda digits, row: {"validation": [0], "test": [row.seed]}
    )
    device_study.main(words)
    said = capsys.readouterr()
    assert "3 of 12 jobs are in" in said.err
    assert "12/12 on_off" in said.out
    rows = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 12
    assert [row["test"] for row in rows[:4]] == [[0.25], [0.25], [0.25], [0]]
    assert "<svg" in (tmp_path / "on_off.svg").read_text(encoding="utf-8")
    device_study.main([str(tmp_path), "--only", "dead", "--seeds", "2"])
    rows = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))["rows"]
    assert {row["figure"] for row in rows} == {"on_off", "dead"}


def test_the_table_has_a_row_a_device_and_nothing_where_none_was_measured() -> None:
    rows = [
        {**Row("methods", "plain", "ecram", {}, seed=seed).job.facts, "test": [accuracy]}
        for seed, accuracy in enumerate((0.9, 0.95))
    ]
    lines = device_study.table(rows).splitlines()
    assert "| ecram | 92.5 % |  |  |  |  |" in lines
    assert len(lines) == 2 + len(device_study.DEVICES)


def test_a_row_learns_on_its_device() -> None:
    row = Row("methods", "plain", "idealized", {"device": "idealized", "learning": "plain"}, 300)
    (found,) = device_study.compute(datasets.load("digits"), row.job, lambda row: None)
    assert found["test"][0] > 0.4
    assert found["options"] == row.options
