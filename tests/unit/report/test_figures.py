"""The figures of the report: what they draw, in colours that everyone can tell apart."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.image import imread

from ep_neuro.errors import ConfigError
from ep_neuro.report import (
    EncodingActivity,
    ReportData,
    RunInfo,
    SettlingCurve,
    plot_energy,
    plot_events,
    plot_raster,
    plot_residual,
    plot_settling,
    plot_tradeoff,
    render_report,
    save_figure,
)
from ep_neuro.report.plots.formatting import count, describe_tradeoffs
from ep_neuro.report.plots.palette import DARK, LIGHT, SERIES, code_styles, depth_colour
from ep_neuro.report.plots.records import Tradeoff
from ep_neuro.report.plots.spike_raster import MAX_ROWS, MAX_STROKES, runs, thin
from ep_neuro.report.svg import inline_svg
from tests.helpers.report_example import CODES, example_report


def luminance(colour: str) -> float:
    channels = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    """Contrast of two colours as WCAG 2 defines it."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_an_unsettled_phase_is_told_not_hidden() -> None:
    curve = SettlingCurve("free", [1.0, 50.0, np.inf, np.nan], [0.0, -9.0, np.nan, np.nan])
    page = render_report(ReportData(RunInfo("m"), settling=[curve]))
    assert "free: 1 to 50 in 2 sweeps, not finite from sweep 3 on" in page


@pytest.mark.parametrize("residual", [[0.0, 0.0], [0.5], [], [np.nan, np.nan], [1e-3, 0.0]])
def test_residuals_that_a_log_axis_cannot_show_still_draw(residual: list[float]) -> None:
    figure = plot_residual([SettlingCurve("free", residual)])
    assert inline_svg(figure, "r", "residual").startswith("<svg")


def test_nudged_phases_continue_where_the_free_phase_ended() -> None:
    curves = [SettlingCurve("free", [1, 0.1]), SettlingCurve("nudged", [0.2, 0.1], start=2)]
    lines = plot_residual(curves).axes[0].lines
    assert [line.get_xdata().tolist() for line in lines] == [[1, 2], [3, 4]]


def test_settling_draws_residual_on_a_log_axis_beside_energy() -> None:
    residual, energy = plot_settling([SettlingCurve("free", [1, 0.1], [0, -1])]).axes
    assert (residual.get_yscale(), energy.get_yscale()) == ("log", "linear")


def test_an_energy_far_from_zero_shows_how_it_falls() -> None:
    low = -5.1e24
    curves = [SettlingCurve("free", [], [low / 2, low]), SettlingCurve("nudged", [], [low, low])]
    free, nudged = plot_energy(curves).axes[0].lines
    assert free.get_ydata().tolist() == [-low / 2, 0]
    assert nudged.get_ydata().tolist() == [0, 0]


def test_tradeoff_has_a_series_an_encoding_on_a_log_axis() -> None:
    series = example_report().tradeoffs
    (axes,) = plot_tradeoff(series).axes
    assert axes.get_xscale() == "log"
    assert [line.get_label() for line in axes.lines] == list(CODES)
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 100 * np.asarray(series[1].accuracy))


def test_stacked_events_reach_the_sum_over_populations() -> None:
    activity = EncodingActivity("spike", {"a": [1, 2, 3], "b": [10, 20, 30]})
    (axes,) = plot_events(activity).axes
    tops = [layer.get_paths()[0].vertices[:, 1].max() for layer in axes.collections]
    assert tops == [3, 33]


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 6))))
def test_runs_cover_each_event_once(events: np.ndarray) -> None:
    painted = np.zeros(events.shape, dtype=int)
    for neuron, first, last in runs(events):
        painted[first - 1 : last, neuron] += 1
    np.testing.assert_array_equal(painted, events)


def test_a_raster_strokes_each_run_of_events_by_sign() -> None:
    messages = np.array([[1, 0, -1], [1, 1, 0], [0, 0, 0], [1, 0, -1]])
    (axes,) = plot_raster(EncodingActivity("sigma-delta", {}, {"h": messages})).axes
    assert [np.isnan(line.get_xdata()).sum() for line in axes.lines] == [3, 2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["rise", "fall"]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=9))
def test_thinned_rasters_stay_within_what_a_page_can_show(sizes: list[int]) -> None:
    worst = {
        f"h{i}": (np.arange(200)[:, None] + np.arange(n)) % 2 for i, n in enumerate(sizes)
    }  # every neuron fires at every other step
    chosen = thin(worst)
    assert sum(map(len, chosen.values())) <= max(MAX_ROWS, len(sizes))
    assert sum(len(runs(r[:, chosen[n]] > 0)) for n, r in worst.items()) <= MAX_STROKES
    assert all(len(c) for c in chosen.values())


def test_saved_figures_are_drawn_in_light_colours_and_repeat(tmp_path: Path) -> None:
    curves = example_report().settling
    png = imread(save_figure(plot_settling(curves), tmp_path / "settling.png"))
    np.testing.assert_allclose(png[0, 0, :3], 1)
    assert png.shape[1] == 1500
    first = save_figure(plot_settling(curves), tmp_path / "a.svg").read_bytes()
    assert save_figure(plot_settling(curves), tmp_path / "b.svg").read_bytes() == first
    with pytest.raises(ConfigError, match=r"'\.gif' is not a figure format"):
        save_figure(plot_settling(curves), tmp_path / "a.gif")


@pytest.mark.parametrize("exponent", [-300, 30, 307])
def test_settling_draws_any_size_of_number(exponent: int) -> None:
    grown = np.logspace(0, exponent, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = inline_svg(plot_settling([SettlingCurve("free", grown, -grown)]), "s", "settling")
    assert "1e" not in re.sub(r"<[^>]+>", "", drawn)


# --- colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(theme: dict[str, str]) -> None:
    for ground in ("paper", "surface"):
        for name in ("ink", "muted", "good", "bad"):
            assert contrast(theme[name], theme[ground]) >= 4.5, (name, ground)
    assert all(contrast(theme[name], theme["paper"]) >= 4.5 for name in SERIES)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_the_encodings_stay_apart_for_colour_blind_eyes(theme: dict[str, str], kind: str) -> None:
    # Viénot, Brettel and Mollon 1999: linear RGB as dichromats see it.
    matrix = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }[kind]
    seen = {}
    for style in code_styles(["graded", "sigma-delta", "spike", "rate"]):
        channels = np.frombuffer(bytes.fromhex(theme[style.colour][1:]), np.uint8) / 255
        seen[style.colour] = (np.array(matrix) @ channels**2.2).clip(0, 1) ** (1 / 2.2)
    names = list(seen)
    gaps = {
        (a, b): np.abs(seen[a] - seen[b]).max() for i, a in enumerate(names) for b in names[i + 1 :]
    }
    assert min(gaps.values()) > 0.1, gaps


def test_six_series_look_different_and_encodings_look_the_same_everywhere() -> None:
    styles = code_styles(["lava graded", "reference graded", "x", "lava spike", "y", "z"])
    assert len({s.colour for s in styles}) == len({s.marker for s in styles}) == 6
    assert styles[0] == code_styles(["graded"])[0]
    assert styles[3] == code_styles(["a", "b", "spike"])[2]


def test_shades_of_depth_run_through_the_ramp_in_order() -> None:
    shades = [int(depth_colour(i, 9).rpartition("-")[2]) for i in range(9)]
    assert shades == sorted(set(shades))
    assert depth_colour(0, 1) == "depth-0"


def test_a_trade_off_says_how_many_samples_it_settled_if_it_knows() -> None:
    ends = [Tradeoff("spike", [8, 16], [10.0, 20.0], [0.5, 0.9], n) for n in (1000, 0)]
    known, unknown = describe_tradeoffs(ends)
    assert known.endswith(f"after 16 steps, {count(1000)} samples")
    assert unknown.endswith("after 16 steps")
