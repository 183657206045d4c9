"""Arrays on aihwkit: two directions of one array, its errors, its converters, its randomness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aihwkit", reason="aihwkit is not installed; pip install 'ep-neuro[crossbar]'")

import torch

import targets
from compilers import Program, compile_network
from compilers.ir.graph import Conv, Dense
from compilers.ir.operators import adjoint, apply
from ep_neuro.errors import GraphError
from ep_neuro.network.network import Network
from targets.crossbar.arrays.array import Array
from targets.crossbar.arrays.conductance_pair import ConductancePair
from targets.crossbar.arrays.layouts import layout
from targets.crossbar.arrays.mapping import ArrayMapping, array_mappings, input_mean
from targets.crossbar.arrays.options import DAY, Options, read_options
from targets.crossbar.arrays.tile import Randomness, make_tile
from targets.crossbar.simulator import CrossbarSimulator
from targets.interface.request import prepare
from tests.helpers.graphs import (
    digits_like_residual,
    graph_of,
    random_residual_spec,
    samples,
    standardised_in_units,
    whitened_in_units,
)


def dense(weight: np.ndarray, seed: int = 0, **options: Any) -> Array:
    """An array of a dense weight (post, pre)."""
    outputs, inputs = weight.shape
    lines = layout(ArrayMapping("w", Dense(), (inputs,), (outputs,), weight.shape))
    return Array(weight, lines, Options(**options, seed=seed), Randomness(seed), seed)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def matrices(array: Array, outputs: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights as unit inputs read them from the front, and from behind."""
    return array.forward(np.eye(inputs)).T, array.backward(np.eye(outputs))


# --- exact arrays ------------------------------------------------------------------------------


@given(st.integers(0, 40), st.sampled_from(["shared", "unrolled"]), st.integers(3, 64))
@settings(max_examples=10)
def test_reads_are_the_operator_and_its_adjoint(seed: int, conv: str, tile: int) -> None:
    graph = graph_of(random_residual_spec(seed), seed=seed)
    options, rng = Options(tile=tile, conv=conv), np.random.default_rng(seed)
    for mapping in array_mappings(graph, Options(conv=conv)):
        weight = graph.arrays[mapping.weight]
        array = Array(weight, layout(mapping), options, Randomness(0))
        pre, post = (rng.normal(size=(3, *shape)) for shape in (mapping.pre, mapping.post))
        forward = apply(mapping.operator, weight, pre, mapping.post)
        np.testing.assert_allclose(array.forward(pre), forward, atol=1e-12)
        backward = apply(adjoint(mapping.operator), weight, post, mapping.pre)
        np.testing.assert_allclose(array.backward(post), backward, atol=1e-12)
        used = apply(
            mapping.operator, np.ones(mapping.kernel), np.ones((1, *mapping.pre)), mapping.post
        )
        if conv == "shared" or used.min() > 0:
            np.testing.assert_allclose(array.weights(), weight, atol=1e-7)


def test_a_weight_of_zeros_is_an_array_that_reads_zero() -> None:
    array = dense(np.zeros((4, 5)), device="pcm", dac_bits=8, adc_bits=8)
    assert np.isfinite(array.forward(normal(2, 5))).all()
    np.testing.assert_array_equal(dense(np.zeros((4, 5))).forward(normal(2, 5)), 0.0)


# --- one array, two directions -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"programming_error": 0.1},
        {"device": "pcm", "seconds": DAY},
        {"device": "reram", "seconds": DAY},
        {"device": "pair", "seconds": DAY},
        {"device": "pcm", "seconds": DAY, "tile": 7},
    ],
    ids=str,
)
def test_both_directions_see_the_same_errors(options: dict[str, Any]) -> None:
    weight = normal(12, 20)
    array = dense(weight, **options)
    front, behind = matrices(array, 12, 20)
    np.testing.assert_allclose(front, behind, atol=1e-12)
    np.testing.assert_allclose(front, array.weights(), atol=1e-12)
    assert np.abs(front - weight).mean() > 0.01


def test_compensation_restores_what_drift_took_in_both_directions() -> None:
    weight = normal(64, 100)
    drifted, restored, fresh = (
        dense(weight, device="pcm", seconds=t, compensation=c)
        for t, c in ((DAY, False), (DAY, True), (0.0, False))
    )
    lost, given_back, young = (
        [np.abs(m).mean() for m in matrices(array, 64, 100)] for array in (drifted, restored, fresh)
    )
    for direction in range(2):
        assert lost[direction] < 0.75 * young[direction]
        assert given_back[direction] == pytest.approx(young[direction], rel=0.02)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["forward", "backward"]))
@settings(max_examples=10)
def test_what_devices_and_converters_do_to_a_line_does_not_depend_on_how_large_it_is(
    seed: int, way: str
) -> None:
    rng = np.random.default_rng(seed)
    weight, sizes = rng.normal(size=(6, 30)), np.exp2(rng.integers(-9, 9, size=(6, 1)))
    options = dict(device="pcm", seconds=DAY, adc_bits=8, dac_bits=8)
    even, uneven = (dense(w, **options) for w in (weight, sizes * weight))
    np.testing.assert_allclose(uneven.weights(), sizes * even.weights(), rtol=1e-12)
    if way == "forward":
        lines = rng.normal(size=(3, 30))
        np.testing.assert_allclose(uneven.forward(lines), sizes.T * even.forward(lines), rtol=1e-12)
    else:
        lines = rng.normal(size=(3, 6))
        np.testing.assert_allclose(uneven.backward(lines / sizes.T), even.backward(lines))


def test_lines_that_share_a_range_lose_the_smaller_one_to_the_errors_of_the_larger() -> None:
    weight = normal(2, 200) * np.array([[1.0], [0.02]])

    def error(scaling: str) -> np.ndarray:
        found = dense(weight, device="pcm", scaling=scaling).weights()
        return np.linalg.norm(found - weight, axis=1) / np.linalg.norm(weight, axis=1)

    assert error("tile")[0] == pytest.approx(error("line")[0], rel=0.2)
    assert error("tile")[1] > 0.5
    assert error("line")[1] < 0.2


def test_unrolled_kernels_err_apart_and_no_device_stands_where_no_synapse_is() -> None:
    kernel = normal(2, 1, 3, 3)
    lines = layout(ArrayMapping("w", Conv(1, 1), (1, 5, 5), (2, 5, 5), kernel.shape, "unrolled"))
    array = Array(kernel, lines, Options(programming_error=0.05), Randomness(0))
    matrix = array.forward(np.eye(25).reshape(25, 1, 5, 5)).reshape(25, 50).T
    exact = lines.matrix(kernel)
    np.testing.assert_array_equal(matrix[~lines.formed], 0.0)
    middle = np.isclose(exact, kernel[0, 0, 1, 1])
    assert middle.sum() == 25
    assert np.ptp(matrix[middle]) > 0.05
    assert array.weights()[0, 0, 1, 1] == pytest.approx(matrix[middle].mean())


# --- aihwkit's own tile ------------------------------------------------------------------------


def both_tiles(weight: np.ndarray, options: Options) -> Any:
    """A matrix behind the same converters on our tile, and on aihwkit's compiled one."""
    from aihwkit.simulator.configs import InferenceRPUConfig
    from aihwkit.simulator.tiles.inference import InferenceTile

    ours = make_tile(*weight.shape, options).tile
    ours.set_weights(torch.from_numpy(weight))
    ours.fit_converters()
    config = InferenceRPUConfig(forward=replace(ours._f_io, out_bound=ours.reach[0]))
    config.backward = replace(ours._f_io, out_bound=ours.reach[1])
    theirs = InferenceTile(*weight.shape, config)
    theirs.tile.set_weights(torch.from_numpy(weight).float())
    return ours, theirs


def reads(ours: Any, theirs: Any, pre: np.ndarray, post: np.ndarray) -> list[tuple[Any, Any]]:
    """What both tiles read, from the front and from behind."""
    x, d = torch.from_numpy(pre), torch.from_numpy(post)
    return [
        (
            ours.forward(x).numpy(),
            theirs.tile.forward(x.float(), False, False, False, True, False).numpy(),
        ),
        (
            ours.backward(d).numpy(),
            theirs.tile.backward(d.float(), False, False, False, False).numpy(),
        ),
    ]


@pytest.mark.parametrize(
    "options",
    [{"dac_bits": 6}, {"adc_bits": 6}, {"ir_drop": 5.0}, {"dac_bits": 8, "ir_drop": 1.0}],
    ids=str,
)
def test_a_read_is_that_of_aihwkits_compiled_tile(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    weight = rng.uniform(-1, 1, (20, 60))
    pre, post = rng.uniform(0, 1, (40, 60)), rng.uniform(-1, 1, (40, 20))
    chosen = Options(**options)
    exact = [pre @ weight.T, post @ weight]
    found = reads(*both_tiles(weight, chosen), pre, post)
    for (ours, theirs), product in zip(found, exact, strict=True):
        # A value half way between two levels may round to either in float32.
        step = 20.0 / 62 if chosen.adc_bits else 0.05
        apart = np.abs(ours - theirs)
        assert np.mean(apart > 1e-4) < 0.01
        assert apart.max() <= 1.01 * step
        assert np.abs(ours - product).max() > 1e-3


@pytest.mark.parametrize("device", ["ideal", "pcm"])
def test_the_noise_of_a_read_is_as_large_as_in_aihwkits_compiled_tile(device: str) -> None:
    rng = np.random.default_rng(0)
    weight, pre, post = (
        rng.uniform(-1, 1, (20, 60)),
        rng.uniform(0, 1, (1, 60)),
        rng.uniform(0, 1, (1, 20)),
    )
    pre, post = np.repeat(pre, 2000, 0), np.repeat(post, 2000, 0)
    tiles = both_tiles(weight, Options(device=device, read_noise=0.05))
    with Randomness(0).drawn():
        found = reads(*tiles, pre, post)
    for ours, theirs in found:
        assert ours.std(0).mean() == pytest.approx(theirs.std(0).mean(), rel=0.03)
        assert ours.std(0).mean() > 0.05


# --- converters and wires ----------------------------------------------------------------------


def error_of(**options: Any) -> float:
    """RMS error of reads in both directions, relative to the reads."""
    weight, pre, post = normal(30, 50), np.abs(normal(20, 50, seed=1)), normal(20, 30, seed=2)
    array = dense(weight, **options)
    pairs = ((array.forward(pre), pre @ weight.T), (array.backward(post), post @ weight))
    return float(np.mean([np.square(a - b).mean() / np.square(b).mean() for a, b in pairs]) ** 0.5)


@pytest.mark.parametrize(
    "option_of",
    [
        lambda n: {"dac_bits": 10 - 2 * n},
        lambda n: {"adc_bits": 10 - 2 * n},
        lambda n: {"read_noise": 0.02 * n},
        lambda n: {"output_noise": 0.1 * n},
        lambda n: {"programming_error": 0.03 * n},
        lambda n: {"ir_drop": 60.0 * n},
    ],
    ids=["dac_bits", "adc_bits", "read_noise", "output_noise", "programming_error", "ir_drop"],
)
def test_a_worse_array_reads_worse(option_of: Callable[[int], dict[str, Any]]) -> None:
    errors = [error_of(**option_of(n)) for n in range(4)]
    assert errors == sorted(errors)
    assert errors[0] < 0.01 < errors[3]


# --- randomness --------------------------------------------------------------------------------


def test_a_seed_fixes_devices_and_noise_and_another_one_changes_them() -> None:
    spec = random_residual_spec(1)
    x, _ = samples(spec, 4)
    graph = graph_of(spec)

    def outputs(seed: int, calls: int = 2) -> list[np.ndarray]:
        options = {"preset": "pcm", "seconds": DAY, "seed": seed}
        with targets.open(Program("crossbar", graph, options=options)) as session:
            return [session.settle(x).free.outputs for _ in range(calls)]

    first, again, other = outputs(0), outputs(0), outputs(1)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - other[0]).max() > 1e-3
    assert np.abs(first[0] - first[1]).max() > 1e-6, "each read has noise of its own"


def test_arrays_leave_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    array = dense(normal(6, 8), device="pcm", read_noise=0.1)
    array.forward(normal(2, 8))
    assert torch.equal(torch.rand(4), expected)


# --- our own model of a device -----------------------------------------------------------------


def test_our_pair_of_conductances_follows_the_trend_of_aihwkits_pcm() -> None:
    """Both lose conductance by a power of time; both keep the error that drift's spread leaves."""
    weight = np.clip(0.3 * normal(100, 100), -1, 1)
    largest, times = np.abs(weight).max(), (1.0, 3600.0, DAY, 30 * DAY)

    def pcm(seconds: float, compensation: bool) -> np.ndarray:
        found = dense(weight, device="pcm", seconds=seconds, compensation=compensation)
        return found.weights()

    pair = ConductancePair().program(weight / largest, np.random.default_rng(0))
    for compensation in (False, True):
        errors = np.array(
            [
                [
                    np.sqrt(np.square(w - weight).mean()) / largest
                    for w in (
                        pcm(t, compensation),
                        largest * pair.at(t) * (pair.compensation(t) if compensation else 1.0),
                    )
                ]
                for t in times
            ]
        )
        assert (np.diff(errors, axis=0) > 0).all()
        ratio = errors[:, 1] / errors[:, 0]
        assert ratio.min() > 0.6
        assert ratio.max() < 1.7
    for t in times[1:]:
        kept = np.abs(pcm(t, False)).mean() / np.abs(pcm(0.0, False)).mean()
        assert 1 / pair.compensation(t) == pytest.approx(kept, rel=0.08)


# --- a whole network ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["graded", "sigma-delta", "spike"])
def test_small_errors_of_devices_move_answers_a_little(code: Any) -> None:
    spec = digits_like_residual()
    graph, (x, _) = graph_of(spec, code, steps=32), samples(spec, 8)
    reference = targets.get("reference").open(Program("reference", graph)).settle(x).free.outputs

    def distance(**options: Any) -> float:
        with targets.open(Program("crossbar", graph, options=options)) as session:
            return float(np.abs(session.settle(x).free.outputs - reference).mean())

    assert distance() < 1e-9
    assert 0 < distance(programming_error=0.003) < distance(programming_error=0.1)


def test_delays_are_lines_that_hold_older_values() -> None:
    spec = random_residual_spec(2)
    x, y = samples(spec, 3)
    for code in ("graded", "sigma-delta", "spike"):
        graph = graph_of(spec, code, delays=True)
        mine, theirs = (
            targets.get(name).open(Program(name, graph)).settle(x, y)
            for name in ("crossbar", "reference")
        )
        for name, phase in theirs.phases.items():
            np.testing.assert_allclose(mine.phases[name].outputs, phase.outputs, atol=1e-9)


def test_options_travel_with_a_saved_program() -> None:
    graph = graph_of(random_residual_spec(1))
    program = Program("crossbar", graph, options={"preset": "pcm", "seconds": 60.0})
    assert read_options(program.options).device == "pcm"
    with targets.open(program) as session:
        moved = session.weights()
    for name, values in moved.items():
        assert 0.001 < np.abs(values - graph.arrays[name]).mean() / np.abs(values).mean() < 0.3


# --- the mean of the input ---------------------------------------------------------------------


def drives(**options: Any) -> np.ndarray:
    """The drive of a black image, one of the mean and a white one, at a network that takes one."""
    network = Network(standardised_in_units())
    program = compile_network(network, targets.get("crossbar"), options=options)
    mean = input_mean(program.graph)
    x = np.stack([np.zeros(mean.shape), mean, np.ones(mean.shape)])
    simulator = CrossbarSimulator(program)
    simulator.begin(prepare(program.graph, x))
    held = (simulator.batch.view("constant", p.name) for p in program.graph.neurons)
    return np.concatenate([v.numpy().reshape(3, -1) for v in held], 1)


def test_taking_off_the_mean_changes_nothing_on_exact_arrays() -> None:
    np.testing.assert_allclose(drives(), drives(centre=False), atol=1e-12)


def test_an_image_of_the_mean_meets_no_error_of_the_weights() -> None:
    exact, centred, whole = (
        drives(),
        *(drives(programming_error=0.1, centre=centre) for centre in (True, False)),
    )
    np.testing.assert_allclose(centred[1], exact[1], atol=1e-12)
    assert np.abs(centred[2] - exact[2]).max() > 0.01
    assert np.abs(whole[1] - exact[1]).max() > 0.01


# --- the whitening of the input ----------------------------------------------------------------


def whitened(**settings: Any) -> Program:
    """Compiled for arrays whose weights have errors of 10 %, unless options say otherwise."""
    options = {"programming_error": 0.1, **settings.pop("options", {})}
    network = Network(whitened_in_units())
    return compile_network(network, targets.get("crossbar"), options=options, **settings)


def test_a_whitening_is_computed_in_digital_and_meets_no_error() -> None:
    (whitening, *others) = (program := whitened()).graph.ties
    with targets.open(program) as session:
        held = session.weights()
    assert np.array_equal(held[whitening], program.graph.arrays[whitening])
    assert all(np.abs(held[name] - program.graph.arrays[name]).max() > 0.01 for name in others)
    assert whitening not in program.files["tiles.txt"]


@pytest.mark.parametrize(("digital", "exact"), [("none", 0), ("whitening", 1), ("input", 2)])
def test_an_option_says_what_of_the_input_is_digital(digital: str, exact: int) -> None:
    program = whitened(options={"digital": digital})
    with targets.open(program) as session:
        held = session.weights()
    same = [name for name, w in held.items() if np.array_equal(w, program.graph.arrays[name])]
    assert len(same) == exact
    assert all("input" in name for name in same)


def test_where_weights_learn_a_whitening_is_on_an_array_as_they_are() -> None:
    program = whitened(learn="contrastive")
    assert len(program.files["tiles.txt"].splitlines()) == len(program.graph.ties)
    assert program.graph.provenance["tiles"] == program.provenance["tiles"] == "4"


@pytest.mark.parametrize("note", ["input.whitened", "input.mean", "crossbar.tile"])
@pytest.mark.parametrize("value", ["", "null", "NaN", "[[1], 2]", "[" * 10_000])
def test_a_damaged_note_is_told_in_one_line(note: str, value: str) -> None:
    program = whitened()
    graph = replace(program.graph, provenance={**program.graph.provenance, note: value})
    with pytest.raises(GraphError, match=r"^graph '.*': its note '[a-z.*]*' is damaged; compile"):
        targets.open(replace(program, graph=graph))
