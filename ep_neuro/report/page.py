"""The report page: draws each part that is given and renders one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from ep_neuro.errors import ConfigError
from ep_neuro.files import write_atomic
from ep_neuro.report import figures, palette, words
from ep_neuro.report.data import (
    Activity,
    Answers,
    ReportData,
    RunInfo,
    TargetRow,
    event_ratio,
    graded_base,
)
from ep_neuro.report.svg import image_uri, inline_svg

MAX_CARDS = 24
"""Disagreements shown; the page says how many there are in all."""


@dataclass(frozen=True)
class Drawing:
    """A figure ready for the page."""

    title: str
    svg: Markup
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Cell:
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
        If the disk refuses.
    """
    path = Path(path)
    page = render_report(data).encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, page)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            str(path), f"cannot be written ({reason})", "choose another place"
        ) from None
    return path


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
        "table": _table(data.rows),
        "settling": list(_settling(data)),
        "activity": _activity(data.activity) if data.activity else None,
        "tradeoff": list(_tradeoff(data)),
        "answers": _answers(data.answers) if data.answers else None,
        "learning": list(_learning(data)),
        "light": Markup(palette.css_variables(palette.LIGHT)),
        "dark": Markup(palette.css_variables(palette.DARK)),
    }
    return environment.get_template("report.html.j2").render(context)


def _facts(run: RunInfo) -> Iterator[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    facts = {
        "Data": run.data,
        "Samples": "" if run.samples is None else words.count(run.samples),
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
        remark = f"on {words.count(data.run.samples)} samples" if data.run.samples else ""
        yield words.percent(data.run.test_accuracy), "test accuracy", remark
    told = {"graded"}
    for row in data.rows:
        ratio, base = event_ratio(row, data.rows), graded_base(row, data.rows)
        if row.code in told or not ratio or ratio >= 1 or row.accuracy is None or base is None:
            continue
        told.add(row.code)
        remark = f"at {words.percent(row.accuracy)}"
        if base.accuracy is not None:
            remark += f", {words.points(row.accuracy - base.accuracy)} against graded"
        yield f"{1 / ratio:.3g}×", f"fewer events, {row.label}", remark


def _table(rows: Sequence[TargetRow]) -> list[tuple[TargetRow, list[Cell]]]:
    table = []
    for row in rows:
        ratio = event_ratio(row, rows)
        cells = [
            _cell(row.bits, "float" if row.bits is None else str(row.bits)),
            _cell(row.accuracy, words.percent(row.accuracy)),
            _cell(row.agreement, words.percent(row.agreement)),
            _cell(row.events, words.count(row.events)),
            _cell(ratio, words.ratio(ratio)),
            _cell(row.synops, words.count(row.synops)),
            _cell(row.energy_joule, words.joules(row.energy_joule)),
            _cell(row.ms_per_sample, words.significant(row.ms_per_sample)),
        ]
        table.append((row, cells))
    return table


def _cell(value: float | None, text: str) -> Cell:
    return Cell(text, "" if value is None or words.is_missing(value) else value)


def _draw(figure: Figure, name: str, title: str, lines: Sequence[str]) -> Drawing:
    return Drawing(title, inline_svg(figure, name, f"{title}. {'; '.join(lines)}"), lines)


def _settling(data: ReportData) -> Iterator[Drawing]:
    plots = {"residual": figures.plot_residual, "energy": figures.plot_energy}
    for quantity, plot in plots.items():
        if any(np.size(getattr(curve, quantity)) for curve in data.settling):
            lines = words.describe_settling(data.settling, quantity)
            yield _draw(plot(data.settling), quantity, f"{quantity.capitalize()} by sweep", lines)


def _activity(activity: Activity) -> dict[str, Any]:
    rasters, events = [], []
    for index, one in enumerate(activity.encodings):
        if one.messages:
            sent = {name: float(np.count_nonzero(m)) for name, m in one.messages.items()}
            lines = words.describe_totals(sent, "in this sample")
            rasters.append(_draw(figures.plot_raster(one), f"raster{index}", one.code, lines))
        if one.events:
            lines = words.describe_totals(one.totals, "a sample")[:1]
            events.append(_draw(figures.plot_events(one), f"events{index}", one.code, lines))
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
    rows = [(name, [words.count(total.get(name)) for total in totals]) for name in names]
    return [*rows, ("all", [words.count(sum(total.values())) for total in totals])]


def _tradeoff(data: ReportData) -> Iterator[Drawing]:
    if data.tradeoffs:
        lines = words.describe_tradeoffs(data.tradeoffs)
        plot = figures.plot_tradeoff(data.tradeoffs)
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
                lines = words.describe_learning(curve, quantity)
                plot = figures.plot_learning(curve, quantity)
                yield _draw(plot, f"{quantity}{index}", f"{curve.title}, {quantity}", lines)
