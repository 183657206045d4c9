"""What every population did at every step of every phase, for a few samples: the viewer's data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from compilers.execution.deployed_network import energy_of
from compilers.ir.graph import Graded, Graph, Phase
from compilers.program import Program
from ep_neuro.data.datasets import Split
from ep_neuro.deployment.nudgeable import SQUARED_ERROR
from ep_neuro.errors import TargetError
from ep_neuro.network.network import Landscape
from ep_neuro.report.viewer import (
    MOST_CELLS,
    RASTER_ROWS,
    RESIDUAL,
    PhaseView,
    SettlingView,
    thin,
)
from targets.experiments.comparison.layer_errors import probe_of, recordable, shown_states
from targets.interface.protocols import Backend, Feature, PhaseResult, Progress
from targets.interface.request import one_hot
from targets.interface.session import Session

FREE = """The image is held at the input, and everything else starts at rest. At every step each \
neuron moves towards what its neighbours tell it, through every connection in both directions, \
until nothing moves any more. That resting state is the network's answer: the largest output."""

TOWARDS = """From where the free phase ended, the output is pulled a little (β = {beta}) towards \
the label: output {label} to 1, all others to 0. The pull spreads backwards through the same \
connections, and every population gives way a little. Nothing new is computed: it is the same \
settling once more."""

AWAY = """The same again from the end of the free phase, with the pull reversed (β = {beta}). One \
pull alone measures a slope from one side, which is slightly off; the difference of two opposite \
ones is not."""

DIFFERENCE = """What the pull changed: {what}. Blue neurons should have been more active for \
{label}, orange ones less; every population has a scale of its own, spread out near zero. This is \
the whole error signal. This difference, times the presynaptic state (and the other way round, as \
a connection works both ways), is the change of a weight: Δw ∝ {rule}. A synapse sees all of it at \
its own two ends; no error is computed anywhere, or sent."""

SAID = {0: ("Free", FREE), 1: ("Nudged", TOWARDS), -1: ("Nudged away", AWAY)}
"""Title and text of a phase by the sign of its nudge."""


def refuse_unseen(backend: Backend) -> None:
    """Raise `TargetError` if `backend` does not show its states."""
    if Feature.PROBES in backend.unsupported:
        reason = backend.unsupported[Feature.PROBES]
        remedy = "view the model instead, which runs on 'reference'"
        raise TargetError(f"target '{backend.name}'", f"it shows no states: {reason}", remedy)


Full = Mapping[str, np.ndarray]
"""Real states by population, (T + 1, N, *shape): before the first step, and after each."""


def settling_view(
    session: Session,
    program: Program,
    split: Split,
    *,
    steps: int | None = None,
    progress: Progress | None = None,
) -> SettlingView:
    """Settle `split` freely and, where the graph has nudged phases, under the nudge of its labels.

    As many samples at a time as fit into memory with all of their steps; `steps` replaces the
    length of each phase.

    Raises
    ------
    DataError, GraphError, TargetError, RunError
        As `Session.settle`.
    """
    graph, parts = program.graph, []
    at_once = recordable(graph)
    for first in range(0, len(split), at_once):
        parts.append(_settled(session, graph, split.at(slice(first, first + at_once)), steps))
        if progress is not None:
            progress(min(first + at_once, len(split)), len(split))
    phases = [_joined(same) for same in zip(*parts, strict=True)]
    return SettlingView(
        model=graph.name,
        images=split.x,
        labels=split.y,
        shapes={p.name: p.shape for p in graph.neurons},
        hears={p.name: [way.pre for way in graph.into(p.name)] for p in graph.neurons},
        phases=phases,
        notes=list(_notes(graph, phases)),
    )


def _nudges(graph: Graph) -> bool:
    return graph.cost == SQUARED_ERROR and len(graph.phases) > 1


def _notes(graph: Graph, phases: Sequence[PhaseView]) -> Iterator[str]:
    if not _nudges(graph):
        yield (
            "This program only settles freely: no target nudges by the cost that the network was "
            "trained with, or it was compiled without nudged phases."
        )
    if graph.encoding == "spike":
        yield (
            "The state of a neuron that spikes is its rate over the later half of the phase so "
            "far, of which the middle counts most. It is counted in whole spikes: more steps show "
            "finer differences."
        )
    if "Energy" not in phases[0].curves:
        yield "Some weights serve one way only: there is no energy that such a network descends."


def _settled(session: Session, graph: Graph, split: Split, steps: int | None) -> list[PhaseView]:
    """All phases of some samples, and the difference that the nudge makes."""
    coded = [p for p in graph.neurons if not isinstance(p.dynamics, Graded)]
    probes = [probe_of(p) for p in graph.neurons] + [f"{p.name}.message" for p in coded]
    y = split.y if _nudges(graph) else None
    found = session.settle(split.x, y, steps=steps, probes=probes).phases
    landscape = energy_of(graph, torch.from_numpy(split.x))
    full: dict[str, Full] = {}
    views = []
    for phase in (graph.phase(name) for name in found):
        states = full[phase.name] = _states(graph, phase, found[phase.name], full)
        curves = {RESIDUAL: _residual(graph, states)}
        if landscape is not None:
            title = "Energy with the nudge" if phase.nudge else "Energy"
            curves[title] = _energy(landscape, states, phase, graph, split.y)
        events = {p.name: _from_start(found[phase.name].events[p.name]) for p in graph.neurons}
        curves["Messages sent"] = np.sum(list(events.values()), axis=0, dtype=float)
        messages = {p.name: _raster(found[phase.name].probes[f"{p.name}.message"]) for p in coded}
        title, text = SAID[np.sign(phase.nudge)]
        text = text.replace("{beta}", f"{phase.nudge:g}".replace("-", "−"))
        views.append(_view(graph, title, text, states, curves))
        views[-1] = replace(views[-1], events=events, messages=messages)
    return [*views, *_difference(graph, full)]


def _view(
    graph: Graph, name: str, text: str, states: Full, curves: Mapping[str, np.ndarray]
) -> PhaseView:
    shown = {k: np.moveaxis(v, 0, 1) for k, v in states.items()}
    outputs = shown[graph.output]
    return PhaseView(
        name=name,
        text=text,
        states={k: thin(v, MOST_CELLS) for k, v in shown.items()},
        outputs=outputs.reshape(*outputs.shape[:2], -1),
        curves=curves,
    )


def _states(
    graph: Graph, phase: Phase, result: PhaseResult, before: Mapping[str, Full]
) -> dict[str, np.ndarray]:
    states = {}
    for p in graph.neurons:
        after = shown_states(p, result.probes[probe_of(p)], phase.start is None)
        rest = np.full_like(after[:1], p.readout.offset)
        first = rest if phase.start is None else before[phase.start][p.name][-1:]
        states[p.name] = np.concatenate([first, after])
    return states


def _difference(graph: Graph, full: Mapping[str, Full]) -> Iterator[PhaseView]:
    """The states nudged towards the label, less those nudged away or, without, of no nudge."""
    ran = [graph.phase(name) for name in full]
    plus = next((p for p in ran if p.nudge > 0), None)
    minus = next((p for p in ran if p.nudge < 0), None)
    if plus is None:
        return
    if minus is not None:
        what = "the states pulled towards the label minus those pulled away"
        rule, other = "(pre⁺ post⁺ − pre⁻ post⁻) / 2β", full[minus.name]
    else:
        what, rule = "the nudged states minus the free ones", "(pre⁺ post⁺ − pre⁰ post⁰) / β"
        other = {k: v[:1] for k, v in full[plus.name].items()}
    states = {k: v - other[k] for k, v in full[plus.name].items()}
    curves = {"Largest difference": np.max([_largest(v) for v in states.values()], axis=0).T}
    text = DIFFERENCE.replace("{what}", what).replace("{rule}", rule)
    yield replace(_view(graph, "Difference", text, states, curves), signed=True)


def _residual(graph: Graph, states: Full) -> np.ndarray:
    """Largest move of a state at each step, in heights of its box, (N, T + 1); NaN at the start."""
    moves = [_largest(np.diff(states[p.name], axis=0)) / abs(p.readout.gain) for p in graph.neurons]
    worst = np.max(moves, axis=0)
    return np.concatenate([np.full_like(worst[:1], np.nan), worst]).T


def _largest(values: np.ndarray) -> np.ndarray:
    """Largest magnitude of (T, N, *shape) in each sample, (T, N)."""
    return np.abs(values).reshape(*values.shape[:2], -1).max(2)


@torch.no_grad()
def _energy(
    landscape: Landscape, states: Full, phase: Phase, graph: Graph, labels: np.ndarray
) -> np.ndarray:
    """``E + beta |y - z|^2 / 2`` of the states at each step, (N, T + 1)."""
    found = []
    for i, target in enumerate(one_hot(graph, labels)):
        one = landscape.select(torch.tensor([i]))
        z = {name: torch.from_numpy(v[:, i].copy()) for name, v in states.items()}
        energy = one.energy(z).numpy()
        away = states[graph.output][:, i].reshape(len(energy), -1) - target
        found.append(energy + phase.nudge * (away**2).sum(1) / 2)
    return np.stack(found)


def _from_start(by_step: np.ndarray) -> np.ndarray:
    """What happened at each step (T, N, ...) as (N, T + 1, ...): nothing before the first."""
    return np.moveaxis(np.concatenate([np.zeros_like(by_step[:1]), by_step]), 0, 1)


def _raster(messages: np.ndarray) -> np.ndarray:
    return thin(_from_start(messages.reshape(*messages.shape[:2], -1)), RASTER_ROWS)


def _joined(parts: Sequence[PhaseView]) -> PhaseView:
    """One phase of the samples of all `parts`."""

    def by_name(record: str) -> dict[str, np.ndarray]:
        first = getattr(parts[0], record)
        return {name: np.concatenate([getattr(p, record)[name] for p in parts]) for name in first}

    return replace(
        parts[0],
        outputs=np.concatenate([p.outputs for p in parts]),
        states=by_name("states"),
        curves=by_name("curves"),
        events=by_name("events"),
        messages=by_name("messages"),
    )
