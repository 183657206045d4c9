"""The simulator of a graph as it stands: the executor makes the steps, here they are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compilers.execution.constants import SINGLE
from compilers.execution.engine import Batch, Engine, Snapshot
from compilers.execution.maps import inward, outward
from compilers.hardware.resources import bytes_per_sample
from compilers.ir.graph import Graph, Phase, Population, Spiking
from compilers.learning.plastic_weights import PlasticWeights
from compilers.learning.traces import Traces, trace
from compilers.passes.send_differences import response_graph
from targets.interface.fanout import nonzero_synapses_of, synapses_of
from targets.interface.request import Probe, RunRequest
from targets.interface.simulator import AfterStep, PhaseRecord, Recorder, Simulator

if TYPE_CHECKING:
    from compilers.execution.compiled.loops import Loop

CHUNK_BYTES = 128 << 20
"""Working memory of one batch, probes apart: calls into torch, which read all weights, pay."""

FEW = 512
"""Neurons so few that a run of them is over before the compiled loop is imported."""

KEPT, STEPS = 1 << 18, 128
"""Most messages, and most steps, that are kept to be counted at once."""


class GraphSimulator(Simulator):
    """Runs a graph on its executor, and lets its plastic weights learn.

    Parameters
    ----------
    graph : Graph
        Its synapses are what messages meet.
    engine : Engine, optional
        What runs: by default `graph` itself, in float64 or in exact integers.

    Attributes
    ----------
    rests : bool
        A network that has settled stands still; with noise none does, and none is told unsettled.
    """

    rests = True

    def __init__(self, graph: Graph, engine: Engine | None = None) -> None:
        self.graph, self.engine = graph, engine or Engine(graph)
        differs = any(phase.difference for phase in graph.phases)
        self.response = Engine(response_graph(graph)) if differs else None
        if self.response is not None:
            self.response.widen()
        self.at_once = max(1, CHUNK_BYTES // bytes_per_sample(graph))
        # Where weights learn, which of them are zero changes with every commit.
        self.nonzero = {
            p.name: None if graph.plasticity else nonzero_synapses_of(graph, p)
            for p in graph.populations
        }
        self.fanouts = {p.name: self._counting(p) for p in graph.populations}
        self.loop: Loop | None = None
        many = bool(graph.plasticity) or sum(p.size for p in graph.neurons) >= FEW
        if many and self.engine.runs_compiled:
            from compilers.execution.compiled.loops import compiled_loop

            self.loop = compiled_loop(self.engine)
        self._hold(Batch(self.engine, 1))
        self._ends: dict[str, Snapshot] = {}
        self._last = ""
        self._stale = False

    def _counting(self, p: Population) -> Tensor:
        """What a message of each neuron counts, (size, 3), in the order of the executor.

        As an event, as synaptic operations, and as those without weights of zero.
        """
        fanout, met = synapses_of(self.graph, p), self.nonzero[p.name]
        counts = (np.ones(p.size), fanout, fanout if met is None else met)
        columns = [inward(values.reshape(1, *p.shape)).flatten() for values in counts]
        # float32 for messages of float32, where it holds every sum.
        kind = self.engine.numbers.narrow if fanout.sum() < SINGLE else torch.float64
        return torch.stack(columns, 1).to(self.engine.numbers.device, kind)

    @torch.inference_mode()
    def begin(self, job: RunRequest) -> None:
        """Clamp a new batch to inputs and targets."""
        engine, (source,) = self.engine, self.graph.sources
        engine.numbers.saturations.clear()
        self.job, self.x = job, engine.message(job.x)
        self.target = None if job.y is None else engine.target(job.y)
        if (batch := engine.batch(self.x, self.target)) is not self.batch:
            self._hold(batch)
        self.spoken = self.x.sign().abs_()
        self._starts = {phase.start for phase in job.phases}
        self._stale, self._last = False, ""
        self.clamped = {source.name: trace(source, outward(self.x.double()))}

    def _hold(self, batch: Batch) -> None:
        messages = [cells.message for cells in batch.cells]
        room = max(1, min(STEPS, KEPT // sum(m.numel() for m in messages)))
        self.batch, self.kept = batch, [m.new_empty(room, len(m)) for m in messages]
        self.rows = [kept.unbind() for kept in self.kept]
        self.membranes = [c.v if isinstance(c.dynamics, Spiking) else c.plain for c in batch.cells]
        self.then = [torch.empty_like(v) for v in self.membranes]

    @torch.inference_mode()
    def run(
        self, phase: Phase, probes: Sequence[Probe], after_step: AfterStep | None = None
    ) -> PhaseRecord:
        """Run `phase`, from rest or from where another one ended."""
        if not phase.difference:
            recorder = _GraphRecorder(self, phase, probes)
        if phase.start is None:
            self.batch.rest()
        elif phase.start != self._last:
            self.batch.go_to(self._ends[phase.start])
        if phase.difference:
            self._last = phase.start or ""
            return self._differ(phase, probes)

        def step() -> None:
            self._renew()
            self.batch.step(phase, self.target)

        if self.loop is not None and not probes and after_step is None:
            self._renew()
            record = recorder.loop(self.loop)
        else:
            record = recorder.follow(step, after_step)
        self._last = phase.name
        if phase.name in self._starts:
            self._ends[phase.name] = self.batch.moment()
        return record

    def _renew(self) -> None:
        """Drive the batch as the weights of now have it."""
        if self._stale:
            self.batch.clamp(self.x, self.target)
            self._stale = False

    def _differ(self, phase: Phase, probes: Sequence[Probe]) -> PhaseRecord:
        """Run a phase that sends differences from where the batch is, which stays there."""
        assert self.response is not None
        free, engine, batch = _GraphRecorder(self, phase, ()), self.engine, self.batch
        traces, shown = free.traces(), free.shown()
        self.engine, other = self.response, self.response.batch(self.x)
        y = other.differ(batch, self.target)
        self._hold(other)
        try:
            recorder = _DifferenceRecorder(self, phase, probes)
            recorder.rested = shown
            record = recorder.follow(lambda: other.step(phase, y), None)
        finally:
            self.engine = engine
            self._hold(batch)
        return replace(record, free=traces)

    def load(self, learner: PlasticWeights) -> None:
        """Go on with other weights and biases."""
        self.engine.load(learner.operands(), learner.biases())
        if self.response is not None:
            self.response.load(learner.operands(), {})
        self._stale = True


class _GraphRecorder(Recorder):
    """Follows the messages of a phase; those of some steps are kept, and counted at once."""

    def __init__(self, simulator: GraphSimulator, phase: Phase, probes: Sequence[Probe]) -> None:
        self.numbers, self.batch = simulator.engine.numbers, simulator.batch
        super().__init__(
            simulator, phase, probes, np.int64 if self.numbers.integers else np.float64
        )
        self._before = {} if self.first else dict(self.numbers.saturations)
        # What a spike of each step counts.
        self._counts = torch.from_numpy(self.weights[None])
        self._counts = self._counts.to(self.numbers.device, self.numbers.narrow)
        self._sums = {
            id(c): c.message.new_zeros(1, len(c.message))
            for c in self.batch.cells
            if isinstance(c.dynamics, Spiking)
        }
        self._kept, self._rows, self._counted = simulator.kept, simulator.rows, 0
        self._watches = simulator.rests and self.first and simulator.job.y is None
        self._then: list[Tensor] | None = None
        self._membranes = tuple(zip(simulator.membranes, simulator.then, strict=True))
        self._changes = [torch.zeros_like(v, dtype=torch.int32) for v in simulator.then]

    def value(self, p: Population, variable: str) -> np.ndarray:
        names = {"told": "sent", "u" if isinstance(p.dynamics, Spiking) else "v": "plain"}
        held = self.batch.view(names.get(variable, variable), p.name)
        return outward(held.double())

    def weighted(self, p: Population) -> np.ndarray:
        cells = self.batch.of[p.name]
        return outward(cells.part(self._sums[id(cells)][0], p.name).double())

    def shown(self) -> np.ndarray:
        if isinstance(self.output.dynamics, Spiking):
            return super().shown()
        return outward(self.numbers.real(self.output, self.batch.view("z", self.output.name)))

    def saturated(self) -> dict[str, int]:
        now = self.numbers.saturations
        names = self.events if self.graph.quantised else ()
        return {name: now[name] - self._before.get(name, 0) for name in names}

    def watch(self) -> None:
        """See whether states still move in the step that comes, if it is the last."""
        if self.watches_updates and self.steps:
            for v, then in self._membranes:
                then.copy_(v)
        if self._watches and self.steps == self.phase.steps - 1:
            self._then = [cells.z.clone() for cells in self.batch.cells]

    def count_updates(self) -> None:
        if self.watches_updates and self.steps:
            for (v, then), changes in zip(self._membranes, self._changes, strict=True):
                changes.add_(torch.ne(v, then))

    def unsettled(self) -> np.ndarray | None:
        found = None if self._then is None else self.batch.moving(self._then)
        return None if found is None else outward(found)

    def count_step(self) -> None:
        for cells, rows in zip(self.batch.cells, self._rows, strict=True):
            torch.sign(cells.message, out=rows[self.steps - self._counted])

    def take(self) -> None:
        super().take()
        if self.steps - self._counted == len(self._rows[0]):
            self._count_kept()

    def traces(self) -> Traces:
        self._count_kept()
        return super().traces()

    def record(self) -> PhaseRecord:
        self._count_kept()
        for cells, changes in zip(self.batch.cells, self._changes, strict=False):
            for p in cells.populations:
                self.updates[p.name] = outward(cells.part(changes, p.name).flatten(1).sum(1))
        return super().record()

    def _count_kept(self) -> None:
        if self.steps == self._counted:
            return
        for cells, kept in zip(self.batch.cells, self._kept, strict=True):
            said = kept[: self.steps - self._counted]
            said = said.abs_() if cells.signed else said
            if isinstance(cells.dynamics, Spiking):
                self._sums[id(cells)].addmm_(self._counts[:, self._counted : self.steps], said)
            for p in cells.populations:
                self._count(p, said[:, cells.span(p.name)])
        self._counted = self.steps

    def _count(self, p: Population, said: Tensor) -> None:
        """What population `p` sends from step `_counted` on, ones and zeros."""
        each = self.fanouts[p.name]
        said = said.view(-1, self.batch.samples, p.size).to(each.dtype)
        # NumPy multiplies by narrow matrices several times as fast as torch.
        found = said.numpy() @ each.numpy() if said.is_cpu else (said @ each).cpu().numpy()
        self._add(p, found)

    def _add(self, p: Population, found: np.ndarray) -> None:
        """Take in counts (steps, N, 3) of population `p` from step `_counted` on."""
        steps = slice(self._counted, self._counted + len(found))
        self.events[p.name][steps], self.synops[p.name][steps] = found[..., 0], found[..., 1]
        self.nonzero_synops[p.name] += found[..., 2].sum(0, np.float64)

    def loop(self, loop: Loop) -> PhaseRecord:
        """What the phase does, all of its steps in one call."""
        simulator, neurons = self.simulator, self.graph.neurons
        if self.first:
            self._count(self.graph.sources[0], simulator.spoken)
        each = np.concatenate([self.fanouts[p.name][:, 1:].double().numpy() for p in neurons])
        done = loop.run(self.batch, self.phase, simulator.target, each, self.watches_updates)
        if self._watches:
            self._then = [torch.empty_like(cells.z) for cells in self.batch.cells]
        for i, p in enumerate(neurons):
            self._add(p, done.counts[:, :, i].swapaxes(0, 1))
            cells, beside = self.batch.of[p.name], torch.from_numpy(done.beside[p.name])
            if isinstance(p.dynamics, Spiking):
                place = cells.part(self._sums[id(cells)][0], p.name)
                place.copy_(beside.view_as(place))
            elif self._then is not None:
                place = cells.part(self._then[self.batch.cells.index(cells)], p.name)
                place.copy_(beside.view_as(place))
            if self.watches_updates:
                self.updates[p.name] = done.updates[:, i]
        self.steps = self._counted = self.phase.steps
        self._changes = []
        return self.record()


class _DifferenceRecorder(_GraphRecorder):
    """Follows a phase that sends differences: traces are what they are, outputs what they add."""

    rested: np.ndarray

    def traces(self) -> Traces:
        still = {name: np.zeros_like(clamped) for name, clamped in self.simulator.clamped.items()}
        return {**still, **{p.name: self.value(p, "z") for p in self.learns}}

    def shown(self) -> np.ndarray:
        return self.rested + super().shown() * 2.0**-self.output.louder
