"""From comparisons to a report page: rows, activity, trade-off and answers as plain arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import targets
from ep_neuro import report
from ep_neuro.data.datasets import Split
from ep_neuro.energy.costs import Nudge, one_hot
from ep_neuro.network.checkpoint import Model
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import settle
from ep_neuro.network.stability import calm_schedule
from ep_neuro.report import page
from ep_neuro.report.plots.deployment import families
from targets.experiments.comparison.compare import Compared, fit, on_reference
from targets.experiments.comparison.layer_errors import probe_of, shown_states

REPORT, MARKER = "report.html", page.MARKER

FIGURES, DRAWN = ("accuracy_*.svg", "pareto.svg", "layerwise*.svg"), b"Matplotlib v"
"""What figures beside a page are called, and what is in each of them."""

PACKAGES = ("ep-neuro", "torch", "numpy", "lava-nc")
TRADEOFF_STEPS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of steps at which the trade-off is read, as far as a program goes."""

TRADEOFF_SAMPLES = 1000
"""Most samples of the trade-off, whose outputs of all steps are kept."""


def comparison_page(
    model: Model,
    split: Split,
    data: str,
    compared: Sequence[Compared],
    commands: Sequence[str],
    out: Path,
    *,
    learning: Sequence[report.LearningCurve] = (),
    truth: report.GradientTruth | None = None,
    details: Mapping[str, str] | None = None,
    sweeps: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` into `out`: everything that can be drawn of these runs.

    With `sweeps`, the swept columns of the rows, and with departures, their figures lie beside it
    as SVG. Those of an earlier page go once all is written.
    """
    runs = finest(compared, lambda c: c.row.code)
    longest = finest(
        [c for c in compared if c.departures], lambda c: (c.row.target, c.row.code, c.row.bits)
    )
    page = report.ReportData(
        run=run_info(model, split, data, compared, commands, details or {}),
        rows=[c.row for c in compared],
        sweeps=sweeps,
        costs=[(c.row, c.cost) for c in compared if c.cost is not None],
        # Shorter runs of a program are the beginning of the longest.
        departures=[(c.row, c.departures) for c in longest],
        settling=settling_curves(model.network, split),
        activity=activity(runs, split, compared[0].predictions),
        # A sweep over steps is this trade-off, for every row and on its own target.
        tradeoffs=[] if "steps" in sweeps else [tradeoff(c, split) for c in runs],
        answers=answers(compared, split),
        learning=learning,
        truth=truth,
        notes=energy_notes(compared),
    )
    written = report.write_report(page, out / REPORT)
    save_figures(page, out)
    return written


def save_figures(page: report.ReportData, out: Path) -> None:
    """Write the figures of the sweeps and of the departures of `page` into `out` as SVG.

    Other figures of a page, of an earlier one, are removed then.
    """
    drawn = {f"accuracy_{axis}": report.plot_sweep(page.rows, axis) for axis in page.sweeps}
    if page.sweeps:
        drawn["pareto"] = report.plot_front(page.rows, page.sweeps[0])
    for family, some in families(page.departures).items():
        drawn[f"layerwise {family}".strip()] = report.plot_departure_by_population(some)
    stale = set(figures_in(out))
    for name, figure in drawn.items():
        stale.discard(report.save_figure(figure, out / f"{name.replace(' ', '_')}.svg"))
    for path in stale:
        path.unlink(missing_ok=True)


def figures_in(out: Path) -> list[Path]:
    """What is called like a figure beside the page in `out`."""
    return [path for pattern in FIGURES for path in sorted(out.glob(pattern))]


def finest(compared: Sequence[Compared], kind: Callable[[Compared], Hashable]) -> list[Compared]:
    """Of each `kind` the run of most steps, then of most bits, then the last; in order of kinds."""
    found: dict[Hashable, list[Compared]] = {}
    for c in compared:
        if c.program is not None:
            found.setdefault(kind(c), []).insert(0, c)
    return [
        max(same, key=lambda c: (c.row.steps or 0, c.row.bits or np.inf)) for same in found.values()
    ]


def run_info(
    model: Model,
    split: Split,
    data: str,
    compared: Sequence[Compared],
    commands: Sequence[str],
    details: Mapping[str, str],
) -> report.RunInfo:
    """What was run, in words."""
    spec = model.network.spec
    steps: dict[str, dict[int, None]] = {}
    for c in compared:
        if c.row.steps is not None:
            steps.setdefault(c.row.code, {})[c.row.steps] = None
    return report.RunInfo(
        model=spec.name,
        test_accuracy=model.metadata.get("test_accuracy"),
        data=data,
        samples=len(split),
        steps="; ".join(f"{code} {', '.join(map(str, all_))}" for code, all_ in steps.items()),
        seed=model.metadata.get("seed"),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions=_versions(),
        commands=commands,
        details={"Parameters": f"{spec.parameters:,}", **details},
    )


def settling_curves(
    network: Network, split: Split, samples: int = 64
) -> list[report.SettlingCurve]:
    """Residual and energy by sweep of a free phase and of both nudged phases after it."""
    some = split.head(samples)
    x, shape = torch.from_numpy(some.x), network.spec.target_shape
    y = one_hot(torch.from_numpy(some.y), shape, torch.float32)
    schedule = calm_schedule(network, 60)
    with torch.no_grad():
        landscape = Landscape(network, x)
        free = settle(landscape, schedule, record=True)
        phases = [("free", free, 0)]
        for name, beta in (("nudged +", 0.2), ("nudged −", -0.2)):
            nudge = Nudge(beta, y, network.cost)
            found = settle(landscape, schedule, free.state, nudge, record=True)
            phases.append((name, found, free.sweeps))
    return [
        report.SettlingCurve(name, np.array(found.residuals), np.array(found.energies), start)
        for name, found, start in phases
    ]


def activity(
    runs: Sequence[Compared], split: Split, expected: np.ndarray
) -> report.Activity | None:
    """Events by step of every encoding; the raster of the first sample that torch gets right."""
    if not runs:
        return None
    shown = int(np.argmax(expected == split.y))
    encodings = []
    for c in runs:
        assert c.program is not None
        assert c.result is not None
        graph = c.program.graph
        one = fit(split.at(slice(shown, shown + 1)), graph)
        probes = [f"{p.name}.message" for p in graph.neurons]
        with targets.open(on_reference(c.program)) as session:
            messages = session.settle(one.x, probes=probes).free.probes
        events = {name: e.mean(1) for name, e in c.result.free.events.items()}
        rasters = {p.name: messages[f"{p.name}.message"][:, 0] for p in graph.neurons}
        encodings.append(report.EncodingActivity(c.row.code, events, rasters))
    image = split.x[shown] if split.pixels.ndim == 4 else None
    return report.Activity(encodings, image, f"class {split.y[shown]}")


def tradeoff(run: Compared, split: Split) -> report.Tradeoff:
    """Accuracy and events of one encoding, read after growing numbers of steps.

    A shorter run is the beginning of a longer one, but that a spike rate is read by the weights of
    *its* steps. Of a larger split, the first `TRADEOFF_SAMPLES` are settled.
    """
    assert run.program is not None
    split = split.head(TRADEOFF_SAMPLES)
    program = on_reference(run.program)
    output = program.graph.population(program.graph.output)
    with targets.open(program) as session:
        x, probe = fit(split, program.graph).x, probe_of(output)
        free = session.settle(x, probes=[probe]).free
    states = shown_states(output, free.probes[probe])
    right = states.reshape(*states.shape[:2], -1).argmax(2) == split.y
    sent = np.cumsum(np.sum([e.mean(1) for e in free.events.values()], axis=0))
    steps = np.array([*(t for t in TRADEOFF_STEPS if t < len(states)), len(states)])
    return report.Tradeoff(
        run.row.code, steps, sent[steps - 1], right[steps - 1].mean(1), len(split.y)
    )


def answers(compared: Sequence[Compared], split: Split) -> report.Answers | None:
    """What each row answered, sample by sample."""
    if split.pixels.ndim != 4 or split.pixels.shape[1] not in (1, 3):
        return None
    shown = [compared[0], *finest(compared, lambda c: (c.row.target, c.row.code))]
    given = {f"{c.row.target} {c.row.code}": c.predictions for c in shown}
    return report.Answers(split.x, split.y, given)


def energy_notes(compared: Sequence[Compared]) -> list[str]:
    """Where the energy estimates come from."""
    sources = [c.cost.source for c in compared if c.cost is not None]
    return [f"Energy is an estimate from counted events. {s}" for s in dict.fromkeys(sources)]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
