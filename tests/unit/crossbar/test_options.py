"""The crossbar without its devices: options, tiles and cells, cost, and our own device model."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compilers
import targets
from compilers import Program
from compilers.hardware.resources import resources
from ep_neuro.errors import ConfigError, TargetError
from ep_neuro.network.architectures import digits_dense
from ep_neuro.network.network import Network
from targets.crossbar.arrays.conductance_pair import ConductancePair
from targets.crossbar.arrays.mapping import (
    array_mappings,
    blocks,
    is_forward,
    map_to_tiles,
    tile_list,
)
from targets.crossbar.arrays.options import DAY, PRESETS, Options, read_options
from targets.interface.protocols import PhaseResult, RunResult
from tests.helpers.graphs import (
    digits_like_dense,
    digits_like_residual,
    graph_of,
    whitened_in_units,
)

BACKEND = targets.get("crossbar")


# --- options -----------------------------------------------------------------------------------


def test_no_option_means_an_array_without_any_error() -> None:
    options = read_options({})
    assert options.perfect
    assert options == Options()


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_given_goes_before_the_preset(preset: str) -> None:
    options = read_options({"preset": preset, "adc_bits": 5})
    assert options.adc_bits == 5
    plain = read_options({"preset": preset})
    assert options == plain.model_copy(update={"adc_bits": 5})


def test_an_unknown_option_is_refused_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"takes preset, device.*did you mean 'adc_bits'"):
        read_options({"adc_bit": 8})
    with pytest.raises(ConfigError, match="did you mean 'adc_bits'"):
        compilers.compile(Network(digits_like_dense(), 0), BACKEND, options={"adc_bit": 8})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preset", "flash"),
        ("device", "flash"),
        ("programming_error", -0.1),
        ("programming_error", math.nan),
        ("seconds", "1 day"),
        ("compensation", 1),
        ("dac_bits", 1),
        ("adc_bits", 7.5),
        ("read_noise", True),
        ("output_noise", math.inf),
        ("ir_drop", -1),
        ("tile", 0),
        ("conv", "winograd"),
        ("fill", 0),
        ("fill", 9.0),
        ("cells", "dram"),
        ("seed", -1),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line_that_names_it(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options({key: value})
    assert f"option '{key}': is {value!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reram_takes_only_the_times_at_which_it_was_measured() -> None:
    assert read_options({"preset": "reram", "seconds": DAY}).seconds == DAY
    with pytest.raises(ConfigError, match="measured at 0, 1, 86400, 172800 s only"):
        read_options({"preset": "reram", "seconds": 3600})


# --- tiles and cells ---------------------------------------------------------------------------


def test_both_directions_of_a_coupling_read_one_array() -> None:
    graph = graph_of(digits_like_residual())
    for conv in ("shared", "unrolled"):
        found = array_mappings(graph, Options(conv=conv))
        assert len(found) == len(graph.ties)
        for projections in found.values():
            assert sum(is_forward(p) for p in projections) == 1


@given(st.integers(1, 2000), st.integers(1, 600))
def test_blocks_cover_every_line_once_and_none_is_too_large(lines: int, most: int) -> None:
    found = blocks(lines, most)
    assert np.concatenate([np.arange(lines)[b] for b in found]).tolist() == list(range(lines))
    assert max(b.stop - b.start for b in found) <= most
    assert len(found) == math.ceil(lines / most)


def test_the_resource_report_counts_tiles_and_cells() -> None:
    network = Network(digits_like_dense(), 0)
    whole = resources(compilers.compile(network, BACKEND).graph)
    assert (whole["tiles"], whole["cells"]) == (2, 64 * 128 + 128 * 10)
    cut = resources(compilers.compile(network, BACKEND, options={"tile": 50}).graph)
    assert (cut["tiles"], cut["cells"]) == (2 * 3 + 3 * 1, whole["cells"])
    assert "tiles" not in resources(compilers.compile(network, "reference").graph)


def test_kernels_need_fewer_cells_than_a_cell_for_each_synapse() -> None:
    graph = graph_of(digits_like_residual())
    each = (array_mappings(graph, Options(conv=conv)) for conv in ("shared", "unrolled"))
    for shared, unrolled in zip(*each, strict=True):
        kernel = graph.arrays[shared.weight].size
        assert shared.cells == kernel
        assert unrolled.cells == math.prod(unrolled.pre) * math.prod(unrolled.post)
        assert unrolled.reads == 1
        assert shared.reads == math.prod(shared.post[1:])


def test_the_tile_list_of_a_program_names_every_projection() -> None:
    graph = map_to_tiles(graph_of(digits_like_residual()), read_options({"tile": 64}))
    text = BACKEND.emit(graph).files["tiles.txt"]
    assert text == tile_list(graph)
    for p in graph.projections:
        assert f"{p.name} {'W' if is_forward(p) else 'W^T'}" in text


def test_more_cells_than_the_simulation_holds_are_a_violation_with_a_remedy() -> None:
    spec = digits_like_residual()
    wide = replace_input_side(spec, 96)
    unrolled = map_to_tiles(graph_of(wide), read_options({"conv": "unrolled"}))
    (violation,) = BACKEND.check(unrolled)
    assert "exceed the limit of 67,108,864; use shared kernels" in str(violation)
    assert not BACKEND.check(map_to_tiles(graph_of(wide), read_options({})))


def replace_input_side(spec: Any, side: int) -> Any:
    """`spec` on square maps of `side`, halved where it halves them."""
    factor = side // spec.input.shape[1]
    scaled = [
        p.model_copy(update={"shape": (p.shape[0], *(factor * n for n in p.shape[1:]))})
        for p in spec.populations
    ]
    shape = (spec.input.shape[0], side, side)
    return type(spec)(
        name="wide",
        input=spec.input.model_copy(update={"shape": shape}),
        populations=tuple(scaled),
        couplings=spec.couplings,
    )


# --- cost --------------------------------------------------------------------------------------


def idle(program: Program, steps: int = 16) -> RunResult:
    """A run of one sample in which nothing was sent: an array is read all the same."""
    events = {p.name: np.zeros((steps, 1), np.int64) for p in program.graph.populations}
    output = np.zeros((1, program.graph.population(program.graph.output).size))
    return RunResult({"free": PhaseResult(output, events, events)}, 1.0)


def cost(options: dict[str, Any], code: str = "graded", steps: int = 16) -> Any:
    program = compilers.compile(
        Network(digits_like_residual(), 0), BACKEND, code=code, options=options
    )
    return BACKEND.estimate(program, idle(program, steps))


def test_products_in_digital_are_counted_once_a_sample() -> None:
    """A kernel of 3 on a plane of 6 x 6 has 16 x 16 places, two planes in and four out."""
    network, found = Network(whitened_in_units()), []
    for digital in ("whitening", "none"):
        program = compilers.compile(network, BACKEND, options={"digital": digital})
        found.append(BACKEND.estimate(program, idle(program)).parts["digital input"])
    assert found == [pytest.approx(2 * 4 * 16 * 16 * 3e-13), 0]


def test_the_estimate_is_the_sum_of_its_parts_and_names_its_sources() -> None:
    found = cost({})
    assert found.energy_joule == pytest.approx(sum(found.parts.values()))
    assert "Shafiee et al. 2016" in found.source


@pytest.mark.parametrize("digital", ["none", "input"])
def test_the_parts_are_those_of_a_recount_of_lines_and_cells(digital: str) -> None:
    """64-128-10 on tiles of 50 lines: 8 bits, the input read once, the others 16 times each way."""
    options = {"tile": 50, "digital": digital}
    program = compilers.compile(Network(digits_dense(), 0), BACKEND, options=options)
    found = BACKEND.estimate(program, idle(program)).parts
    once, often = 8 * (digital == "none"), 16 * 8
    driven = once * 64 * 3 + often * (128 * 1 + 10 * 3)
    sensed = once * 128 * 2 + often * (10 * 3 + 128 * 1)
    crossed = once * 64 * 128 + 2 * often * 128 * 10
    assert found == pytest.approx(
        {
            "input conversions": 3.9e-13 * driven,
            "output conversions": 1.67e-12 * sensed,
            "cells": 1.8e-15 * crossed,
            "digital input": 0.3e-12 * 64 * 128 * (digital == "input"),
            "neuron updates": 81e-12 * 16 * 138,
        },
        rel=1e-12,
    )


def test_energy_grows_with_the_bits_of_an_input_and_with_the_steps() -> None:
    few, many = (cost({"dac_bits": bits}).parts for bits in (4, 8))
    assert many["input conversions"] == pytest.approx(2 * few["input conversions"])
    assert many["neuron updates"] == few["neuron updates"]
    assert cost({}, steps=32).energy_joule < 2 * cost({}, steps=16).energy_joule
    assert cost({}, steps=32).energy_joule > 1.5 * cost({}, steps=16).energy_joule


def test_a_spike_takes_one_cycle_where_a_graded_input_takes_one_a_bit() -> None:
    spike, graded = (cost({}, code).parts["output conversions"] for code in ("spike", "graded"))
    assert graded == pytest.approx(8 * spike)


def test_small_tiles_convert_more_often() -> None:
    whole, cut = (cost({"tile": tile}).parts for tile in (512, 16))
    assert cut["output conversions"] > whole["output conversions"]
    assert cut["cells"] == pytest.approx(whole["cells"])


# --- settling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "told"), [(0.0, True), (0.01, False)])
def test_a_run_with_noise_which_never_rests_says_nothing_of_settling(
    noise: float, told: bool
) -> None:
    if not (state := BACKEND.available()).available:
        pytest.skip(state.reason)
    options = {"output_noise": noise}
    program = compilers.compile(Network(digits_dense(), 0), BACKEND, options=options, steps=4)
    with BACKEND.open(program) as session:
        assert (session.settle(np.zeros((1, 1, 8, 8))).unsettled is not None) is told


# --- availability ------------------------------------------------------------------------------


def test_without_aihwkit_it_says_how_to_get_it_and_still_compiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "aihwkit" else found(name)
    )
    state = BACKEND.available()
    assert not state.available
    assert "pip install 'ep-neuro[crossbar]'" in state.reason
    program = compilers.compile(Network(digits_like_dense(), 0), BACKEND)
    with pytest.raises(TargetError, match=r"aihwkit is not installed; .*pip install"):
        BACKEND.open(program)


# --- our own pair of conductances --------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(0, 1e9))
def test_a_pair_without_error_and_drift_holds_its_weight_for_ever(
    seed: int, seconds: float
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-1, 1, (3, 4))
    held = ConductancePair(0.0, 0.0, 0.0).program(weights, rng)
    np.testing.assert_allclose(held.at(seconds), weights, atol=1e-12)
    assert held.compensation(seconds) == pytest.approx(1.0)


def test_drift_shrinks_weights_and_compensation_gives_their_mean_back() -> None:
    rng = np.random.default_rng(0)
    held = ConductancePair().program(rng.uniform(-1, 1, (200, 50)), rng)
    sizes = [np.abs(held.at(t)).mean() for t in (0.0, 1.0, 3600.0, DAY, 30 * DAY)]
    assert sizes == sorted(sizes, reverse=True)
    factor = held.compensation(DAY)
    assert factor * sizes[3] == pytest.approx(sizes[0])
    assert factor == pytest.approx(((DAY + 20) / 20) ** 0.055, rel=0.03)
