"""The report: plain rows and arrays in, figures and one self-contained HTML page out."""

from __future__ import annotations

from ep_neuro.report.page import render_report, write_report
from ep_neuro.report.plots.curves import (
    plot_curves,
    plot_energy,
    plot_events,
    plot_learning,
    plot_raster,
    plot_residual,
    plot_settling,
    plot_tradeoff,
    save_figure,
)
from ep_neuro.report.plots.deployment import (
    plot_departure_by_population,
    plot_departure_by_step,
    plot_front,
    plot_sweep,
)
from ep_neuro.report.plots.gradient import plot_truth
from ep_neuro.report.plots.records import (
    Activity,
    Answers,
    EncodingActivity,
    GradientTruth,
    LearningCurve,
    ReportData,
    RunInfo,
    SettlingCurve,
    Tradeoff,
)
from ep_neuro.report.plots.tables import event_ratio, graded_base
from ep_neuro.results import TargetRow

__all__ = [
    "Activity",
    "Answers",
    "EncodingActivity",
    "GradientTruth",
    "LearningCurve",
    "ReportData",
    "RunInfo",
    "SettlingCurve",
    "TargetRow",
    "Tradeoff",
    "event_ratio",
    "graded_base",
    "plot_curves",
    "plot_departure_by_population",
    "plot_departure_by_step",
    "plot_energy",
    "plot_events",
    "plot_front",
    "plot_learning",
    "plot_raster",
    "plot_residual",
    "plot_settling",
    "plot_sweep",
    "plot_tradeoff",
    "plot_truth",
    "render_report",
    "save_figure",
    "write_report",
]
