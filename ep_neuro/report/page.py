"""The report page: draws each part that is given and renders one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ep_neuro.errors import ConfigError
from ep_neuro.report.plots import curves, deployment, formatting, palette
from ep_neuro.report.plots.gradient import describe_truth, plot_truth, truth_in_words
from ep_neuro.report.plots.records import Activity, Answers, GradientTruth, ReportData, RunInfo
from ep_neuro.report.plots.tables import (
    cheapest_of_the_best,
    event_ratio,
    graded_base,
    row_names,
)
from ep_neuro.report.svg import image_uri, inline_svg
from ep_neuro.results import CostEstimate, TargetRow
from ep_neuro.storage.atomic import write_file

MARKER = b"ep-neuro report</title>"
"""What tells a page of ours."""

MAX_CARDS = 24
"""Disagreements shown; the page says how many there are in all."""


class Drawing(NamedTuple):
    """A figure ready for the page."""

    title: str
    svg: Markup
    lines: Sequence[str] = ()


class Cell(NamedTuple):
    """A table cell: what is read, and what it sorts by."""

    text: str
    key: float | str = ""


def write_report(data: ReportData, path: str | Path) -> Path:
    """Write the page of `data` to `path`, whole or not at all.

    Returns
    -------
    Path
        The file written; its folder is made if there is none.

    Raises
    ------
    ConfigError
        If the disk refuses, or a file of somebody else stands there.
    """
    return write_file(path, render_report(data).encode("utf-8"), ConfigError, marker=MARKER)


def render_report(data: ReportData) -> str:
    """The page as HTML: no network, no external files, the same text for the same data."""
    environment = Environment(
        loader=PackageLoader("ep_neuro.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context: dict[str, Any] = {
        "run": data.run,
        "notes": data.notes,
        "facts": list(_facts(data.run)),
        "tiles": list(_tiles(data)),
        "table": _table(data.rows, front=bool(data.sweeps)),
        "sweep": list(_sweep(data)),
        "costs": _costs(data.costs) if data.costs else None,
        "departures": list(_departures(data)),
        "settling": list(_settling(data)),
        "activity": _activity(data.activity) if data.activity else None,
        "tradeoff": list(_tradeoff(data)),
        "answers": _answers(data.answers) if data.answers else None,
        "learning": list(_learning(data)),
        "truth": _truth(data.truth) if data.truth else None,
        "light": Markup(palette.css_variables(palette.LIGHT)),
        "dark": Markup(palette.css_variables(palette.DARK)),
    }
    return environment.get_template("report.html.j2").render(context)


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
        remark = f"on {formatting.count(data.run.samples)} samples" if data.run.samples else ""
        yield formatting.percent(data.run.test_accuracy), "test accuracy", remark
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


def _table(rows: Sequence[TargetRow], front: bool) -> list[tuple[TargetRow, list[Cell]]]:
    """Rows with their cells; whether they are on the Pareto front comes last, if it is asked."""
    table = []
    for row in rows:
        ratio = event_ratio(row, rows)
        cells = [
            _cell(row.bits, "float" if row.bits is None else str(row.bits)),
            _cell(row.steps, formatting.count(row.steps)),
            _cell(row.accuracy, formatting.percent(row.accuracy) + _unsettled(row)),
            _cell(row.agreement, formatting.percent(row.agreement)),
            _cell(row.events, formatting.count(row.events)),
            _cell(ratio, formatting.ratio(ratio)),
            _cell(row.synops, formatting.count(row.synops)),
            _cell(row.energy_joule, formatting.joules(row.energy_joule)),
            _cell(row.ms_per_sample, formatting.significant(row.ms_per_sample)),
        ]
        if front:
            cells.append(Cell("yes", 1) if row.pareto else Cell(formatting.MISSING))
        table.append((row, cells))
    return table


def _unsettled(row: TargetRow) -> str:
    share = row.unsettled
    return f" ({formatting.percent(share)} did not settle)" if share else ""


def _cell(value: float | None, text: str) -> Cell:
    return Cell(text, "" if value is None or formatting.is_missing(value) else value)


def _sweep(data: ReportData) -> Iterator[Drawing]:
    """A figure for each swept axis, and the Pareto front along the first."""
    for axis in data.sweeps if data.rows else ():
        lines = formatting.describe_sweep(deployment.series(data.rows, axis), axis)
        plot = deployment.plot_sweep(data.rows, axis)
        yield _draw(plot, f"sweep-{axis}", f"Accuracy against {axis}", lines)
    if data.sweeps and data.rows:
        names = dict(zip(data.rows, row_names(data.rows), strict=True))
        front = deployment.front_rows(data.rows)
        lines = formatting.describe_front(front, [names[row] for row in front])
        plot = deployment.plot_front(data.rows, data.sweeps[0])
        yield _draw(plot, "front", "Accuracy against synaptic operations", lines)


def _costs(costs: Sequence[tuple[TargetRow, CostEstimate]]) -> dict[str, Any]:
    """Heads and cells of the table of estimates; parts that cost nothing anywhere are left out."""
    spent = (name for _, cost in costs for name, joule in cost.parts.items() if joule)
    parts = list(dict.fromkeys(spent))
    names = row_names([row for row, _ in costs], without="steps")
    rows = []
    for label, (row, cost) in zip(names, costs, strict=True):
        energies = [cost.parts.get(name) for name in parts]
        cells = [
            _cell(row.steps, formatting.count(row.steps)),
            *(_cell(energy, formatting.joules(energy)) for energy in energies),
            _cell(cost.energy_joule, formatting.joules(cost.energy_joule)),
            _cell(cost.memory_bytes, formatting.memory(cost.memory_bytes)),
            _cell(cost.seconds, formatting.significant(1e3 * cost.seconds)),
            _cell(cost.learning_joule, formatting.joules(cost.learning_joule)),
        ]
        rows.append((label, cells))
    heads = [name.capitalize() for name in parts]
    return {
        "heads": ["Steps", *heads, "Energy in all", "Memory traffic", "Time (ms)", "Learning step"],
        "rows": rows,
    }


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
            lines = formatting.describe_settling(data.settling, quantity)
            yield _draw(plot(data.settling), quantity, f"{quantity.capitalize()} by sweep", lines)


def _activity(activity: Activity) -> dict[str, Any]:
    rasters, events = [], []
    for index, one in enumerate(activity.encodings):
        if one.messages:
            sent = {name: float(np.count_nonzero(m)) for name, m in one.messages.items()}
            lines = formatting.describe_totals(sent, "in this sample")
            rasters.append(_draw(curves.plot_raster(one), f"raster{index}", one.code, lines))
        if one.events:
            lines = formatting.describe_totals(one.totals, "a sample")[:1]
            events.append(_draw(curves.plot_events(one), f"events{index}", one.code, lines))
    return {
        "image": None if activity.image is None else image_uri(activity.image),
        "label": activity.label,
        "rasters": rasters,
        "events": events,
        "codes": [one.code for one in activity.encodings],
        "counts": _counts(activity),
    }


def _counts(activity: Activity) -> list[tuple[str, list[str]]]:
    totals = [one.totals for one in activity.encodings]
    names = dict.fromkeys(name for total in totals for name in total)
    rows = [(name, [formatting.count(total.get(name)) for total in totals]) for name in names]
    return [*rows, ("all", [formatting.count(sum(total.values())) for total in totals])]


def _tradeoff(data: ReportData) -> Iterator[Drawing]:
    if data.tradeoffs:
        lines = formatting.describe_tradeoffs(data.tradeoffs)
        plot = curves.plot_tradeoff(data.tradeoffs)
        yield _draw(plot, "tradeoff", "Accuracy against events", lines)


def _answers(answers: Answers) -> dict[str, Any]:
    images, labels = np.asarray(answers.images), np.asarray(answers.labels)
    cards = []
    for index in answers.disagreements[:MAX_CARDS]:
        given = {name: int(np.asarray(a)[index]) for name, a in answers.answers.items()}
        cards.append(
            {
                "index": int(index),
                "image": image_uri(images[index]),
                "label": answers.class_name(int(labels[index])),
                "answers": [
                    (name, answers.class_name(answer), answer == labels[index])
                    for name, answer in given.items()
                ],
            }
        )
    return {"cards": cards, "found": len(answers.disagreements), "samples": len(labels)}


def _learning(data: ReportData) -> Iterator[Drawing]:
    for index, curve in enumerate(data.learning):
        for quantity in ("accuracy", "loss"):
            if getattr(curve, quantity):
                lines = formatting.describe_learning(curve, quantity)
                plot = curves.plot_learning(curve, quantity)
                yield _draw(plot, f"{quantity}{index}", f"{curve.title}, {quantity}", lines)


def _truth(truth: GradientTruth) -> dict[str, Any]:
    title = "Cosine to the exact gradient, least of each epoch"
    drawing = _draw(plot_truth(truth), "truth", title, describe_truth(truth))
    return {"sentence": truth_in_words(truth), "drawing": drawing}
