"""A report with every part, made of arrays that behave like those of a digits network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ep_neuro import report
from ep_neuro.data import datasets
from ep_neuro.results import CostEstimate, LayerError, NeuroBench, TargetRow

POPULATIONS = {
    "input": (1, 8, 8),
    "h1": (16, 8, 8),
    "h2": (32, 4, 4),
    "h3": (32, 4, 4),
    "out": (10,),
}
CODES = {"graded": 16, "sigma-delta": 64, "spike": 32}
SECTIONS = (
    *("targets", "sweep", "tradeoff", "costs", "neurobench", "layerwise"),
    *("settling", "activity", "answers", "learning", "gradient", "reproduce"),
)


def example_report(seed: int = 0) -> report.ReportData:
    """Every part filled; the same `seed` gives the same data."""
    rng = np.random.default_rng(seed)
    digits = datasets.load("digits").test
    images, labels = digits.x[:, 0], digits.y
    return report.ReportData(
        run=_run(),
        rows=_rows(),
        sweeps=("steps",),
        costs=_costs(),
        departures=[
            (row, _departures(row.steps)) for row in _rows() if row.target == "lava" and row.steps
        ],
        settling=_settling(),
        activity=report.Activity(
            [_activity(rng, c, t) for c, t in CODES.items()], images[labels == 7][0], "a seven"
        ),
        tradeoffs=_tradeoffs(),
        answers=report.Answers(images, labels, _answers(rng, labels)),
        learning=_learning(rng),
        truth=_truth(),
        notes=["Energy is computed from event counts; nothing here was measured on a chip."],
    )


def _run() -> report.RunInfo:
    return report.RunInfo(
        model="digits_residual",
        test_accuracy=0.9778,
        data="digits (scikit-learn), test split",
        samples=360,
        steps="graded 16, sigma-delta 64, spike 32",
        seed=0,
        date="2025-06-01 12:00 UTC",
        versions={"ep-neuro": "0.1.0", "torch": "2.12.0", "lava-nc": "0.10.0", "numpy": "1.26.4"},
        commands=[
            "ep-neuro train zoo:digits_residual --set training.epochs=30 --out runs/digits",
            "ep-neuro compare runs/digits --with reference:graded --with lava:sigma-delta",
        ],
        details={"Parameters": "70 282", "Training": "30 epochs, 52 s"},
    )


def _rows() -> list[TargetRow]:
    rows = [
        TargetRow("torch", "rate", None, None, 0.9778, 1.0, ms_per_sample=1.83),
        TargetRow(
            "reference", "graded", None, 16, 0.9778, 1.0, 17803, 1.43e6, 3.4e-5, 0.41, unsettled=0.1
        ),
        TargetRow("lava", "graded", None, 16, 0.9778, 1.0, 17803, 1.43e6, 3.4e-5, 0.86),
        TargetRow("lava", "sigma-delta", None, 64, 0.9750, 0.9944, 2124, 1.71e5, 4.1e-6, 3.5),
        TargetRow("lava", "spike", None, 32, 0.9722, 0.9917, 8230, 6.6e5, 1.6e-5, 1.7),
        TargetRow("reference", "sigma-delta", 8, 64, 0.9722, 0.9889, 2201, 1.77e5, 4.2e-6, 1.1),
    ]
    front = [False, True, True, True, False, False]
    rows = [replace(row, pareto=on_front) for row, on_front in zip(rows, front, strict=True)]
    return [rows[0], *(replace(row, neurobench=_neurobench(row)) for row in rows[1:])]


def _neurobench(row: TargetRow) -> NeuroBench:
    operations, spikes = 0.9 * (row.synops or 0), row.code == "spike"
    macs, acs = (9e3, operations - 9e3) if spikes else (operations, 0.0)
    updates, reason = (None, "invented") if row.target == "reference" else (4.2e4, None)
    size = 37194 * (row.bits or 32) // 8
    return NeuroBench(size, 0.0131, 0.93, macs, acs, 5.4e6, updates, reason)


def _costs() -> list[tuple[TargetRow, CostEstimate]]:
    def cost(synops: float, learning: float | None) -> CostEstimate:
        parts = {"messages": synops / 9, "hops": 0.0, "synaptic operations": synops}
        energy, seconds, memory = 10 * synops / 9, 400 * synops, 9e11 * synops
        return CostEstimate(energy, seconds, "invented", parts, memory, learning)

    _, _, graded, sigma_delta, *_ = _rows()
    return [(graded, cost(3e-5, 9e-5)), (sigma_delta, cost(4e-6, None))]


def _departures(steps: int) -> list[LayerError]:
    step = np.arange(1, steps + 1)
    depths = {name: 1.0 + depth for depth, name in enumerate(POPULATIONS) if name != "input"}
    rms = {name: 0.2 * d * np.exp(-8 * step / steps) + 1e-3 * d for name, d in depths.items()}
    return [LayerError(name, v, 5 * v) for name, v in rms.items()]


def _settling() -> list[report.SettlingCurve]:
    def phase(name: str, start: int, sweeps: int, first: float, low: float) -> report.SettlingCurve:
        sweep = np.arange(sweeps)
        fall = np.exp(-0.28 * sweep)
        residual = first * fall * (1 + 0.25 * np.sin(1.3 * sweep))
        return report.SettlingCurve(name, residual, low + 9 * first * fall**1.5, start)

    return [
        phase("free", 0, 40, 0.9, -14.2),
        phase("nudged +", 40, 20, 0.05, -14.35),
        phase("nudged −", 40, 20, 0.055, -14.05),
    ]


def _activity(rng: np.random.Generator, code: str, steps: int) -> report.EncodingActivity:
    decay = {"graded": 0.0, "sigma-delta": 0.12, "spike": 0.0}[code]
    messages, events = {}, {}
    time = np.arange(steps)[:, None]
    for name, shape in POPULATIONS.items():
        size = int(np.prod(shape))
        level = np.where(rng.random(size) < 0.4, rng.random(size), 0.0)
        chance = np.where(level > 0, 1.0, 0.0) if code == "graded" else 0.5 * level
        raster = rng.random((steps, size)) < chance * np.exp(-decay * time)
        if name == "input":
            raster[1:] = False
        sign = np.where(rng.random((steps, size)) < 0.3, -1, 1) if code == "sigma-delta" else 1
        messages[name] = (raster * sign).reshape(steps, *shape)
        events[name] = raster.sum(1) * (0.9 + 0.1 * rng.random(steps))
    return report.EncodingActivity(code, events, messages)


def _tradeoffs() -> list[report.Tradeoff]:
    series = []
    for code, top, scale, tau in (
        ("graded", 0.978, 1100, 1.4),
        ("sigma-delta", 0.975, 620, 5.0),
        ("spike", 0.972, 255, 4.0),
    ):
        steps = np.array([2, 4, 8, 16, 32, 64])
        spent = np.log(steps + 1) * scale if code == "sigma-delta" else steps * scale
        series.append(report.Tradeoff(code, steps, spent, top - 0.85 * np.exp(-steps / tau)))
    return series


def _answers(rng: np.random.Generator, labels: np.ndarray) -> dict[str, np.ndarray]:
    rate = labels.copy()
    rate[rng.choice(len(labels), 8, replace=False)] = 3
    found = {"torch rate": rate, "lava graded": rate}
    for name, changed in (("lava sigma-delta", 4), ("lava spike", 6)):
        answers = rate.copy()
        answers[rng.choice(len(labels), changed, replace=False)] = 8
        found[name] = answers
    return found


def _learning(rng: np.random.Generator) -> list[report.LearningCurve]:
    epochs = np.arange(1, 31)
    rise = 1 - np.exp(-epochs / 4)
    noise = 0.004 * rng.standard_normal((2, 30))
    samples = np.arange(0, 3001, 250)
    return [
        report.LearningCurve(
            "Training",
            epochs,
            accuracy={"training": 0.98 * rise, "validation": 0.965 * rise + noise[0]},
            loss={"training": 0.45 * np.exp(-epochs / 5) + 0.02 + 0.1 * abs(noise[1])},
        ),
        report.LearningCurve(
            "On-chip learning",
            samples,
            unit="samples",
            accuracy={"test": 0.1 + 0.87 * (1 - np.exp(-samples / 500))},
        ),
    ]


def _truth() -> report.GradientTruth:
    epochs = np.arange(1, 31)
    off = 0.004 * np.exp(-epochs / 8) * (1 + 0.5 * np.sin(epochs))
    free = np.where(epochs < 10, 2, 4)
    return report.GradientTruth(epochs, 1 - off, 1 - 4 * off, free, free - 1, asked=0.99)
