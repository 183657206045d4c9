"""From comparisons to a report page: rows, activity, trade-off and answers as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import targets
from compilers.artifact import Program
from compilers.ir import Spiking
from ep_neuro.checkpoint import Model
from ep_neuro.costs import Nudge, one_hot
from ep_neuro.data import Split
from ep_neuro.network import Landscape, Network
from ep_neuro.report import (
    Activity,
    Answers,
    EncodingActivity,
    LearningCurve,
    ReportData,
    RunInfo,
    SettlingCurve,
    TargetRow,
    Tradeoff,
    write_report,
)
from ep_neuro.settle import Schedule, SettleResult, settle
from targets.workflows.compare import Compared, fit

REPORT = "report.html"
PACKAGES = ("ep-neuro", "torch", "numpy", "lava-nc")
TRADEOFF_STEPS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of steps at which the trade-off is read, as far as a program goes."""


def comparison_page(
    model: Model,
    split: Split,
    data: str,
    compared: Sequence[Compared],
    commands: Sequence[str],
    out: Path,
    *,
    learning: Sequence[LearningCurve] = (),
    details: Mapping[str, str] | None = None,
) -> Path:
    """Write ``report.html`` into `out`: everything that can be drawn of these runs."""
    runs = one_an_encoding(compared)
    page = ReportData(
        run=run_info(model, split, data, compared, commands, details or {}),
        rows=[TargetRow.from_mapping(c.row.to_dict()) for c in compared],
        settling=settling_curves(model.network, split),
        activity=activity(runs, split, compared[0].predictions),
        tradeoffs=[tradeoff(c, split) for c in runs],
        answers=answers(compared, split),
        learning=learning,
        notes=energy_notes(compared),
    )
    return write_report(page, out / REPORT)


def one_an_encoding(compared: Sequence[Compared]) -> list[Compared]:
    """The last run of each encoding, in the order of their first."""
    last = {c.row.code: c for c in compared if c.program is not None}
    return list(last.values())


def run_info(
    model: Model,
    split: Split,
    data: str,
    compared: Sequence[Compared],
    commands: Sequence[str],
    details: Mapping[str, str],
) -> RunInfo:
    """What was run, in words."""
    spec = model.network.spec
    steps = {c.row.code: _steps(c.program) for c in compared if c.program is not None}
    return RunInfo(
        model=spec.name,
        test_accuracy=model.metadata.get("test_accuracy"),
        data=data,
        samples=len(split),
        steps=", ".join(f"{code} {count}" for code, count in steps.items()),
        seed=model.metadata.get("seed"),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        versions=_versions(),
        commands=commands,
        details={"Parameters": f"{spec.parameters:,}", **details},
    )


def settling_curves(network: Network, split: Split, samples: int = 64) -> list[SettlingCurve]:
    """Residual and energy by sweep of a free phase and of both nudged phases after it."""
    x = torch.from_numpy(split.x[:samples])
    spec = network.spec
    y = one_hot(torch.from_numpy(split.y[:samples]), spec.shapes[spec.output], torch.float32)
    schedule = Schedule(sweeps=60, tolerance=1e-4)
    with torch.no_grad():
        landscape = Landscape(network, x)
        free = settle(landscape, schedule, record=True)
        curves = [_curve("free", free, 0)]
        for name, beta in (("nudged +", 0.2), ("nudged −", -0.2)):
            nudged = settle(landscape, schedule, free.state, Nudge(beta, y), record=True)
            curves.append(_curve(name, nudged, free.sweeps))
    return curves


def _curve(name: str, result: SettleResult, start: int) -> SettlingCurve:
    return SettlingCurve(name, result.residuals, result.energies, start)


def activity(runs: Sequence[Compared], split: Split, expected: np.ndarray) -> Activity | None:
    """Events by step of every encoding; the raster of the first sample that torch gets right."""
    if not runs:
        return None
    shown = int(np.argmax(expected == split.y))
    encodings = []
    for c in runs:
        assert c.program is not None
        assert c.result is not None
        graph = c.program.graph
        one = fit(Split(split.x[shown : shown + 1], split.y[shown : shown + 1]), graph)
        probes = [f"{p.name}.message" for p in graph.neurons]
        with targets.open(_on_reference(c.program)) as session:
            messages = session.settle(one.x, probes=probes).free.probes
        events = {name: e.mean(1) for name, e in c.result.free.events.items()}
        shapes = {p: np.asarray(m)[:, 0] for p, m in messages.items()}
        rasters = {key.partition(".")[0]: m for key, m in shapes.items()}
        encodings.append(EncodingActivity(c.row.code, events, rasters))
    image = split.x[shown] if split.x.ndim == 4 else None
    return Activity(encodings, image, f"class {split.y[shown]}")


def tradeoff(run: Compared, split: Split) -> Tradeoff:
    """Accuracy and events of one encoding, read after growing numbers of steps.

    Each point is a run of its own: a spike rate is read over the last half of *its* steps.
    """
    assert run.program is not None
    program = _on_reference(run.program)
    last = _steps(program)
    steps = [t for t in TRADEOFF_STEPS if t < last] + [last]
    fitted = fit(split, program.graph)
    found = []
    with targets.open(program) as session:
        if any(isinstance(p.dynamics, Spiking) for p in program.graph.neurons):
            found = [session.settle(fitted.x, steps=t) for t in steps]
            events = [r.events_per_sample for r in found]
            accuracy = [float((r.predictions == split.y).mean()) for r in found]
        else:
            output = program.graph.output
            result = session.settle(fitted.x, probes=[f"{output}.z"])
            states = np.asarray(result.free.probes[f"{output}.z"])
            states = states.reshape(*states.shape[:2], -1)
            sent = sum(e.mean(1) for e in result.free.events.values())
            events = [float(np.sum(sent[:t])) for t in steps]
            accuracy = [float((states[t - 1].argmax(1) == split.y).mean()) for t in steps]
    return Tradeoff(run.row.code, steps, events, accuracy)


def answers(compared: Sequence[Compared], split: Split) -> Answers | None:
    """What each row answered, sample by sample."""
    if split.x.ndim != 4 or split.x.shape[1] not in (1, 3):
        return None
    given = {f"{c.row.target} {c.row.code}": c.predictions for c in compared}
    return Answers(split.x, split.y, given)


def energy_notes(compared: Sequence[Compared]) -> list[str]:
    """Where the energy estimates come from."""
    notes = []
    for c in compared:
        if c.program is not None and c.result is not None:
            cost = targets.get(c.program.target).estimate(c.program, c.result)
            notes.append(f"Energy is an estimate from counted events. {cost.source}")
    return list(dict.fromkeys(notes))


def _on_reference(program: Program) -> Program:
    """The same graph for the reference, whose states equal the target's, without its start-up."""
    return targets.get("reference").emit(program.graph)


def _steps(program: Program | None) -> int:
    assert program is not None
    return program.graph.phases[0].steps


def _versions() -> dict[str, Any]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
