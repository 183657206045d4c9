"""The report page: draws each part that is given and renders one self-contained HTML file."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from ep_neuro.errors import ConfigError
from ep_neuro.report.plots import curves, deployment, formatting, palette
from ep_neuro.report.plots.gradient import describe_truth, plot_truth, truth_in_words
from ep_neuro.report.plots.records import ReportData, RunInfo, above_the_lowest
from ep_neuro.report.plots.tables import (
    cheapest_of_the_best,
    event_ratio,
    graded_base,
    row_names,
)
from ep_neuro.report.svg import image_uri, inline_svg
from ep_neuro.results import NeuroBench, TargetRow
from ep_neuro.storage.atomic import write_file

MARKER = b"ep-neuro report</title>"
"""What tells a page of ours."""

MAX_CARDS = 24
"""Disagreements shown; the page says how many there are in all."""


class Drawing(NamedTuple):
    """A figure ready for the page."""

    title: str
    svg: Markup
    lines: Sequence[str]


def write_report(data: ReportData, path: str | Path) -> Path:
    """Write the page of `data` to `path`, whole or not at all; its folder is made.

    Raises
    ------
    ConfigError
        If the disk refuses, or a file of somebody else stands there.
    """
    return write_file(path, render_report(data).encode("utf-8"), ConfigError, marker=MARKER)


FILTERS = (
    *(formatting.count, formatting.joules, formatting.memory, formatting.percent),
    *(formatting.ratio, formatting.significant, event_ratio, image_uri, truth_in_words),
)
"""How the template writes what it is given."""


THEMES = {
    "light": Markup(palette.css_variables(palette.LIGHT)),
    "dark": Markup(palette.css_variables(palette.DARK)),
}
"""Colours of a page, as its template takes them."""


@functools.cache
def template(name: str) -> Template:
    """The template called `name` of this folder, with all `FILTERS`."""
    environment = Environment(
        loader=PackageLoader("ep_neuro.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({write.__name__: write for write in FILTERS})
    environment.tests["known"] = formatting.is_known
    return environment.get_template(name)


def render_report(data: ReportData) -> str:
    """The page as HTML: no network, no external files, the same text for the same data."""
    spent = [name for _, cost in data.costs for name, joule in cost.parts.items() if joule]
    return template("report.html.j2").render(
        data=data,
        max_cards=MAX_CARDS,
        facts=list(_facts(data.run)),
        tiles=list(_tiles(data)),
        sweep=list(_sweep(data)),
        # Parts that cost nothing anywhere are left out.
        cost_parts=list(dict.fromkeys(spent)),
        cost_names=row_names([row for row, _ in data.costs], without="steps"),
        benched=list(_benched(data)),
        departures=list(_departures(data)),
        settling=list(_settling(data)),
        rasters=list(_rasters(data)),
        events=list(_events(data)),
        tradeoff=list(_tradeoff(data)),
        learning=list(_learning(data)),
        truth=list(_truth(data)),
        **THEMES,
    )


def _facts(run: RunInfo) -> Iterator[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    facts = {
        "Data": run.data,
        "Samples": "" if run.samples is None else formatting.count(run.samples),
        "Steps": run.steps,
        "Seed": "" if run.seed is None else str(run.seed),
        "Date": run.date,
        **run.details,
        "Versions": versions,
    }
    return ((name, value) for name, value in facts.items() if value)


def _tiles(data: ReportData) -> Iterator[tuple[str, str, str]]:
    """The figures worth reading first, as (value, name, remark)."""
    if data.run.test_accuracy is not None:
        yield formatting.percent(data.run.test_accuracy), "test accuracy", "at the end of training"
    told = {"graded"}
    for first in data.rows:
        same = (first.target, first.code, first.bits)
        row = cheapest_of_the_best([r for r in data.rows if (r.target, r.code, r.bits) == same])
        ratio, base = event_ratio(row, data.rows), graded_base(row, data.rows)
        if row.code in told or not ratio or ratio >= 1 or row.accuracy is None or base is None:
            continue
        told.add(row.code)
        remark = f"at {formatting.percent(row.accuracy)}"
        if base.accuracy is not None:
            remark += f", {formatting.points(row.accuracy - base.accuracy)} against graded"
        if base.steps is not None:
            remark += f" at {base.steps} steps"
        yield f"{1 / ratio:.3g}×", f"fewer events, {row.label}", remark


def _sweep(data: ReportData) -> Iterator[Drawing]:
    """A figure for each swept axis, and the Pareto front along the first."""
    for axis in data.sweeps if data.rows else ():
        lines = formatting.describe_sweep(deployment.series(data.rows, axis), axis)
        plot = deployment.plot_sweep(data.rows, axis)
        yield _draw(plot, f"sweep-{axis}", f"Accuracy against {axis}", lines)
    if data.sweeps and data.rows:
        names = dict(zip(data.rows, row_names(data.rows), strict=True))
        front = deployment.front_rows(data.rows)
        lines = [
            f"{names[row]}: {formatting.percent(row.accuracy)} with "
            f"{formatting.count(row.synops)} operations"
            for row in front
        ]
        plot = deployment.plot_front(data.rows, data.sweeps[0])
        yield _draw(plot, "front", "Accuracy against synaptic operations", lines)


def _benched(data: ReportData) -> Iterator[tuple[str, TargetRow, NeuroBench]]:
    """Name, row and figures of the rows that have NeuroBench's."""
    for name, row in zip(row_names(data.rows, without="steps"), data.rows, strict=True):
        if row.neurobench is not None:
            yield name, row, row.neurobench


def _departures(data: ReportData) -> Iterator[Drawing]:
    for index, (family, some) in enumerate(deployment.families(data.departures).items()):
        title = f"{family}, after the last step".removeprefix(", ").capitalize()
        plot = deployment.plot_departure_by_population(some)
        yield _draw(plot, f"departures{index}", title, formatting.describe_departures(some))
    for index, (name, layers) in enumerate(deployment.named(data.departures).items()):
        lines = formatting.describe_departures({name: layers})
        yield _draw(deployment.plot_departure_by_step(layers), f"departure{index}", name, lines)


def _draw(figure: Figure, name: str, title: str, lines: Sequence[str]) -> Drawing:
    return Drawing(title, inline_svg(figure, name, f"{title}. {'; '.join(lines)}"), lines)


def _settling(data: ReportData) -> Iterator[Drawing]:
    plots = {"residual": curves.plot_residual, "energy": curves.plot_energy}
    for quantity, plot in plots.items():
        if any(np.size(getattr(curve, quantity)) for curve in data.settling):
            lines = formatting.describe_settling(above_the_lowest(data.settling), quantity)
            yield _draw(plot(data.settling), quantity, f"{quantity.capitalize()} by sweep", lines)


def _rasters(data: ReportData) -> Iterator[Drawing]:
    for index, one in enumerate(data.activity.encodings if data.activity else ()):
        if one.messages:
            sent = {name: float(np.count_nonzero(m)) for name, m in one.messages.items()}
            lines = formatting.describe_totals(sent, "in this sample")
            yield _draw(curves.plot_raster(one), f"raster{index}", one.code, lines)


def _events(data: ReportData) -> Iterator[Drawing]:
    for index, one in enumerate(data.activity.encodings if data.activity else ()):
        if one.events:
            lines = formatting.describe_totals(one.totals, "a sample")[:1]
            yield _draw(curves.plot_events(one), f"events{index}", one.code, lines)


def _tradeoff(data: ReportData) -> Iterator[Drawing]:
    if data.tradeoffs:
        lines = formatting.describe_tradeoffs(data.tradeoffs)
        plot = curves.plot_tradeoff(data.tradeoffs)
        yield _draw(plot, "tradeoff", "Accuracy against events", lines)


def _learning(data: ReportData) -> Iterator[Drawing]:
    for index, curve in enumerate(data.learning):
        for quantity in ("accuracy", "loss"):
            if getattr(curve, quantity):
                lines = formatting.describe_learning(curve, quantity)
                plot = curves.plot_learning(curve, quantity)
                yield _draw(plot, f"{quantity}{index}", f"{curve.title}, {quantity}", lines)


def _truth(data: ReportData) -> Iterator[Drawing]:
    if data.truth:
        title = "Cosine to the exact gradient, least of each epoch"
        yield _draw(plot_truth(data.truth), "truth", title, describe_truth(data.truth))
