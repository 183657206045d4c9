"""Runs the phases of a job on the executor of a graph, and collects what they did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compilers.execution.engine import Batch, Engine, Snapshot
from compilers.execution.maps import outward
from compilers.ir.graph import Phase, Population, Spiking
from targets.interface.fanout import require_finite, synapses_of
from targets.interface.protocols import PhaseResult
from targets.interface.request import RunRequest

KEPT = 1 << 16
"""Messages of some steps that are kept to be counted at once."""


class Counter:
    """Counts messages and the synaptic operations that they cause.

    All channels of a place meet as many synapses, so messages are counted by place first.
    """

    def __init__(self, engine: Engine) -> None:
        self._fanouts: dict[str, Tensor] = {}
        for p in engine.graph.populations:
            fanout = synapses_of(engine.graph, p).reshape(p.shape[0], -1)[0]
            held = torch.from_numpy(fanout.astype(np.float64))
            self._fanouts[p.name] = held.to(engine.numbers.device)

    def __call__(self, name: str, sent: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the neurons of population `name` and of their operations, (M,) each.

        `sent`, whole numbers, says for M samples or steps of samples how often each neuron sent;
        their number comes first, images are channels-last.
        """
        fanout = self._fanouts[name]
        flat = sent.reshape(len(sent) * len(fanout), -1)
        flat = flat if flat.is_floating_point() else flat.double()
        by_place = torch.mv(flat, flat.new_ones(flat.shape[1])).double()
        if len(fanout) == 1:
            return by_place, by_place * fanout
        by_place = by_place.view(len(sent), -1)
        return by_place.sum(1), by_place @ fanout


def sent(message: Tensor) -> Tensor:
    """Where `message` is not zero, as ones."""
    return message.sign().abs_()


class Walk:
    """Leads a batch from phase to phase: each starts at rest or where another one ended."""

    def __init__(self, batch: Batch, phases: Sequence[Phase]) -> None:
        self._batch, self._starts = batch, {p.start for p in phases}
        self._ends: dict[str, Snapshot] = {}
        self._last = ""

    def enter(self, phase: Phase) -> None:
        """Be where `phase` starts."""
        if phase.start is None:
            self._batch.rest()
        elif phase.start != self._last:
            self._batch.go_to(self._ends[phase.start])

    def leave(self, phase: Phase) -> None:
        """Remember where `phase` ended, if others start there."""
        self._last = phase.name
        if phase.name in self._starts:
            self._ends[phase.name] = self._batch.moment()


@torch.inference_mode()
def run(engine: Engine, counter: Counter, job: RunRequest) -> dict[str, PhaseResult]:
    """All phases of `job`, from rest, as one batch."""
    engine.numbers.saturations.clear()
    batch, x = engine.batch(len(job.x)), engine.message(job.x)
    y = None if job.y is None else engine.target(job.y)
    batch.clamp(x, y)
    walk = Walk(batch, job.phases)
    results: dict[str, PhaseResult] = {}
    for phase in job.phases:
        recorder = _Recorder(batch, counter, job, phase)
        if results:
            recorder.saturated = dict(engine.numbers.saturations)
        else:
            recorder.count(engine.graph.sources[0].name, 0, sent(x))
        walk.enter(phase)
        for _ in range(phase.steps):
            batch.step(phase, y)
            recorder.record()
        walk.leave(phase)
        results[phase.name] = recorder.result()
    return results


class _Recorder:
    """Collects what one phase did, step by step.

    Attributes
    ----------
    saturated : dict of int
        What had saturated before the phase, by population.
    """

    def __init__(self, batch: Batch, counter: Counter, job: RunRequest, phase: Phase) -> None:
        self.batch, self.counter, self.phase, self.probes = batch, counter, phase, job.probes
        self.graph = batch.engine.graph
        shape = (phase.steps, batch.samples)
        names = [p.name for p in self.graph.populations]
        self.events = {name: np.zeros(shape, np.int64) for name in names}
        self.synops = {name: np.zeros(shape, np.int64) for name in names}
        self.traces: dict[str, list[np.ndarray]] = {probe.name: [] for probe in job.probes}
        self.output = self.graph.population(self.graph.output)
        self.shown = batch.view("z", self.output.name)
        self.spikes = torch.zeros_like(self.shown)
        self.saturated: dict[str, int] = {}
        self.step, self.counted = 0, 0
        messages = sum(cells.message.numel() for cells in batch.cells)
        self.room = max(1, min(phase.steps, KEPT // max(1, messages)))
        self.kept = [
            cells.message.new_empty(self.room, len(cells.message)) for cells in batch.cells
        ]

    def record(self) -> None:
        """The end of a step."""
        for cells, kept in zip(self.batch.cells, self.kept, strict=True):
            kept[self.step - self.counted].copy_(cells.message)
        for probe in self.probes:
            p = self.graph.population(probe.population)
            self.traces[probe.name].append(probed(self.batch, p, probe.variable))
        self.step += 1
        if self.step > self.phase.steps // 2 and isinstance(self.output.dynamics, Spiking):
            self.spikes.add_(self.shown)
        if self.step - self.counted == self.room:
            self._count_kept()

    def _count_kept(self) -> None:
        steps = self.step - self.counted
        if not steps:
            return
        for cells, kept in zip(self.batch.cells, self.kept, strict=True):
            said = kept[:steps]
            if not isinstance(cells.dynamics, Spiking):
                said = sent(said)
            for p in cells.populations:
                part = said[:, cells.span(p.name)].reshape(steps * self.batch.samples, -1)
                self.count(p.name, self.counted, part)
        self.counted = self.step

    def count(self, name: str, first: int, said: Tensor) -> None:
        """What population `name` sends from step `first` on, ones and zeros."""
        events, synops = (
            found.cpu().numpy().reshape(-1, self.batch.samples)
            for found in self.counter(name, said)
        )
        self.events[name][first : first + len(events)] = events
        self.synops[name][first : first + len(events)] = synops

    def result(self) -> PhaseResult:
        """Everything; `RunError` if the output diverged."""
        self._count_kept()
        saturations = self.batch.engine.numbers.saturations
        return PhaseResult(
            outputs=self._outputs(),
            events=self.events,
            synops=self.synops,
            probes={name: np.stack(trace) for name, trace in self.traces.items()},
            saturations={
                name: saturations[name] - self.saturated.get(name, 0)
                for name in (self.events if self.graph.quantised else ())
            },
        )

    def _outputs(self) -> np.ndarray:
        if isinstance(self.output.dynamics, Spiking):
            steps = self.phase.steps - self.phase.steps // 2
            shown = outward(self.spikes.double() / steps)
        else:
            shown = outward(self.batch.engine.numbers.real(self.output, self.shown))
        require_finite(shown, self.phase.name, self.phase.steps)
        return self.output.readout.offset + self.output.readout.gain * shown


def probed(batch: Batch, p: Population, variable: str) -> np.ndarray:
    """A variable of population `p`, (N, *shape), of its own: float64, or int64 in integers."""
    fine = variable == ("u" if isinstance(p.dynamics, Spiking) else "v")
    values = batch.view("plain" if fine else variable, p.name)
    held = values.long() if batch.engine.numbers.integers else values.double()
    return np.array(outward(held))
