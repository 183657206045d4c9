"""Figures and tables of a deployment: sweeps, the Pareto front, departures, estimates of cost."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ep_neuro.report import (
    ReportData,
    RunInfo,
    TargetRow,
    plot_departure_by_population,
    plot_departure_by_step,
    plot_front,
    plot_sweep,
    render_report,
)
from ep_neuro.report.plots import formatting
from ep_neuro.report.plots.deployment import MOST_SERIES, TICKS, families, named
from ep_neuro.report.plots.records import Departures
from ep_neuro.report.plots.tables import row_names
from ep_neuro.results import CostEstimate, LayerError


def row(
    code: str, steps: int | None, bits: int | None, accuracy: float, synops: float
) -> TargetRow:
    return TargetRow("t", code, bits, steps, accuracy, synops=synops)


RATE = TargetRow("torch", "rate", accuracy=0.98)
STEPS = [
    RATE,
    row("graded", 16, None, 0.98, 2e6),
    row("graded", 8, None, 0.9, 1e6),
    row("spike", 8, None, 0.5, 2e5),
    row("spike", 16, None, 0.97, 4e5),
]
BITS = [
    RATE,
    row("graded", 64, None, 0.98, 1e6),
    *(row("graded", 64, b, b / 10, 1e6) for b in (8, 2)),
]


def lines_of(axes) -> dict[str, tuple[list[float], list[float]]]:
    drawn = {str(line.get_label()): line for line in axes.lines}
    return {n: (list(x.get_xdata()), list(x.get_ydata())) for n, x in drawn.items()}


# --- sweeps ------------------------------------------------------------------------------------


def test_a_sweep_is_a_line_for_each_encoding_and_one_for_the_rate_network() -> None:
    (axes,) = plot_sweep(STEPS, "steps").axes
    found = lines_of(axes)
    assert found["t graded"] == ([8, 16], [90.0, 98.0])
    assert found["t spike"] == ([8, 16], [50.0, 97.0])
    assert set(found["torch rate"][1]) == {98.0}
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["8", "16"]


def test_floating_point_stands_beyond_the_widest_weights() -> None:
    (axes,) = plot_sweep(BITS, "bits").axes
    assert lines_of(axes)["t graded"] == ([2, 8, 9], [20.0, 80.0, 98.0])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "8", "float"]


def test_many_steps_are_not_all_written_out() -> None:
    many = [row("graded", t, None, 0.5, 1.0) for t in range(1, 40)]
    (axes,) = plot_sweep(many, "steps").axes
    assert len(axes.get_xticks()) == TICKS
    assert {1, 39} <= set(axes.get_xticks())


def test_circles_mark_the_front_from_the_cheapest_on() -> None:
    marked = [
        TargetRow("t", r.code, accuracy=r.accuracy, synops=r.synops, steps=r.steps, pareto=i != 2)
        for i, r in enumerate(STEPS[1:])
    ]
    (axes,) = plot_front([RATE, *marked], "steps").axes
    found = lines_of(axes)
    assert found["Pareto front"] == ([4e5, 1e6, 2e6], [97.0, 90.0, 98.0])
    assert found["t spike"] == ([2e5, 4e5], [50.0, 97.0])
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize("rows", [[], [RATE], [TargetRow("t", "graded", steps=8)]])
def test_rows_without_numbers_still_draw(rows: list[TargetRow]) -> None:
    for plot in (plot_sweep, plot_front):
        assert plot(rows, "steps").axes
    assert "<h1>m</h1>" in render_report(ReportData(RunInfo("m"), rows=rows, sweeps=["steps"]))


def test_rows_are_named_by_what_they_differ_in() -> None:
    assert row_names(STEPS) == [
        *("torch rate", "t graded 16 steps", "t graded 8 steps"),
        *("t spike 8 steps", "t spike 16 steps"),
    ]
    assert row_names(STEPS, without="steps") == [
        *("torch rate", "t graded", "t graded", "t spike", "t spike")
    ]
    assert row_names(BITS) == ["torch rate", "t graded float", "t graded 8-bit", "t graded 2-bit"]


def test_the_page_tells_the_sweep_and_the_front_in_words() -> None:
    best = [TargetRow("t", "spike", accuracy=0.97, synops=4e5, steps=16, pareto=True)]
    page = render_report(ReportData(RunInfo("m"), rows=[*STEPS[:4], *best], sweeps=["steps"]))
    text = page.replace(formatting.NO_BREAK, " ")
    assert "t graded: 90.0 % to 98.0 % from 8 steps to 16 steps" in text
    assert "t spike 16 steps: 97.0 % with 400 000 operations" in text
    assert "On the front" in text
    assert "On the front" not in render_report(ReportData(RunInfo("m"), rows=STEPS))


# --- departures --------------------------------------------------------------------------------


def departures(*runs: tuple[TargetRow, list[float]]) -> Departures:
    curves = [(row, [np.array([1.0, end]) for end in ends]) for row, ends in runs]
    return [(row, [LayerError(f"h{i}", c, c) for i, c in enumerate(some)]) for row, some in curves]


def test_departures_are_drawn_by_population_and_by_step_on_a_log_axis() -> None:
    graded, spike = TargetRow("t", "graded"), TargetRow("t", "spike")
    some = named(departures((graded, [0.1, 0.2]), (spike, [0.3, 0.0])))
    (axes,) = plot_departure_by_population(some).axes
    found = lines_of(axes)
    assert found["t graded"] == ([0, 1], [0.1, 0.2])
    # Exactly right has no place on a log axis.
    assert np.isnan(found["t spike"][1][1])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["h0", "h1"]
    (axes,) = plot_departure_by_step(some["t graded"]).axes
    assert lines_of(axes) == {"h0": ([1, 2], [1.0, 0.1]), "h1": ([1, 2], [1.0, 0.2])}
    assert axes.get_yscale() == "log"


def test_a_figure_holds_as_many_departures_as_can_be_told_apart() -> None:
    few = departures(*((TargetRow("t", "graded", 2 + i), [0.1]) for i in range(MOST_SERIES)))
    assert families(few) == {"": named(few)}
    more = departures((TargetRow("t", "spike"), [0.1]))
    both = {code: list(some) for code, some in families([*few, *more]).items()}
    assert both == {"t graded": list(named(few)), "t spike": ["t spike float"]}
    assert families([]) == {}
    page = render_report(ReportData(RunInfo("m"), departures=[*few, *more]))
    assert "T graded, after the last step" in page
    assert "t graded 2-bit: most in h0, 0.1" in page


# --- costs -------------------------------------------------------------------------------------


def test_the_table_of_costs_shows_each_part_that_costs_something() -> None:
    costs = [
        CostEstimate(
            3e-5, 0.004, "invented", {"messages": 1e-5, "hops": 0.0, "updates": 2e-5}, 2.5e6
        ),
        CostEstimate(1e-6, 1e-4, "invented", {}, 800, learning_joule=5e-6),
    ]
    rows = [TargetRow("t", "graded", steps=16), TargetRow("t", "spike", steps=64)]
    page = render_report(ReportData(RunInfo("m"), costs=list(zip(rows, costs, strict=True))))
    assert "(estimates)" in page
    assert "Estimates, not measurements" in page
    head = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", page)
    assert head == [
        *("Target and encoding", "Steps", "Messages", "Updates", "Energy in all"),
        *("Memory traffic", "Time (ms)", "Learning step"),
    ]
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", r) for r in page.split('<tr><th scope="row"')[1:]]
    thin = [[c.replace(formatting.NO_BREAK, " ") for c in line] for line in cells]
    assert thin == [
        ["16", "10 µJ", "20 µJ", "30 µJ", "2.5 MB", "4", "–"],
        ["64", "–", "–", "1 µJ", "800 B", "0.1", "5 µJ"],
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(999, "999 B"), (1234, "1.23 kB"), (5e9, "5 GB"), (None, "–")]
)
def test_memory_takes_the_prefix_that_fits(value: float | None, text: str) -> None:
    assert formatting.memory(value).replace(formatting.NO_BREAK, " ") == text
