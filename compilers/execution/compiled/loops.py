"""Whole phases of a graph in one compiled loop: of spiking neurons, and of graded ones that learn.

In integers it comes to the same bits as the steps of the executor, which stay the way of all other
graphs, and of phases in which somebody looks or learns between two steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compilers.execution.compiled.graded import run_graded
from compilers.execution.compiled.spikes import run_spiking
from compilers.execution.compiled.sums import MOST_BITS, Layout, State, shortest
from compilers.execution.constants import UNIT, WORD, Constants
from compilers.execution.maps import FEW
from compilers.ir.graph import Phase, Spiking
from compilers.learning.traces import spike_weights

if TYPE_CHECKING:
    from compilers.execution.engine import Batch, Engine


@dataclass
class Counted:
    """What a phase did, of N samples and P populations in the order of the graph."""

    beside: dict[str, np.ndarray]
    """By population what a kind of loop tells beside, (N, size), as the executor lays them out."""
    counts: np.ndarray
    """Messages, and two sums of what each counts beside, (N, steps, P, 3); see `Loop.run`."""
    updates: np.ndarray
    """Membranes that changed, from the second step on, (N, P); empty if nobody asked."""


Work = Callable[[slice, State, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
"""Runs some samples: their state, what is filled in, the last three arguments of `run_spiking`."""


class Loop(ABC):
    """The populations and projections of an `Engine` as a compiled loop takes them.

    Parameters
    ----------
    engine : Engine
        One that `runs_compiled`.
    """

    changes: ClassVar[tuple[str, ...]]
    """Variables of `State` that a phase changes."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.populations = engine, engine.graph.neurons
        ends = np.cumsum([p.size for p in self.populations])
        self._spans = np.stack([ends - [p.size for p in self.populations], ends], 1)
        self._places = {p.name: i for i, p in enumerate(self.populations)}
        constants = [engine.numbers.constants(p) for p in self.populations]
        self._ends = np.array([c.state.range for c in constants if c.state])
        self._layout, self._loaded = self._laid_out(), (-1, np.dtype(np.int64))

    @abstractmethod
    def _levels(self, constants: Constants) -> tuple[float, float, float]:
        """See `Layout.levels`."""

    @abstractmethod
    def _kind(self, batch: Batch) -> np.dtype[Any]:
        """The numbers of neurons."""

    @abstractmethod
    def _work(
        self, batch: Batch, phase: Phase, y: Tensor | None, kind: np.dtype[Any], each: np.ndarray
    ) -> Work:
        """What runs `phase` in numbers of `kind`."""

    def _laid_out(self) -> Layout:
        """All but the weights."""
        wires, begins, runs, places, ways, weights = [], [], [], 0, 0, 0
        for p in self.engine.recurrent:
            mapped = self.engine.maps[p.name]
            reached, (channels, each) = mapped.reach(), mapped.by_sender().shape
            ends = (places, places + len(reached.begins), weights, weights + channels * each)
            wires.append((self._places[p.pre], self._places[p.post], channels, *ends))
            begins.append(reached.begins + ways)
            runs.append(reached.runs)
            places, weights, ways = ends[1], ends[3], ways + len(reached.runs)
        constants = [self.engine.numbers.constants(p) for p in self.populations]
        return Layout(
            spans=self._spans,
            leaks=np.array([(c.leak, c.fine) for c in constants]),
            levels=np.array([self._levels(c) for c in constants]),
            hard=np.array([c.hard for c in constants]),
            wires=np.array(wires, np.int64),
            begins=np.concatenate(begins),
            runs=np.concatenate(runs),
            gains=np.zeros((0, 2)),
            weights=np.zeros(0),
        )

    def _load(self, kind: np.dtype) -> Layout:
        """The layout with the weights that the engine has now, in numbers of `kind`."""
        numbers, rows, layout = self.engine.numbers, [], self._layout
        if self._loaded == (self.engine.version, kind):
            return layout
        gains = np.zeros((len(layout.wires), 2), np.int64)
        for q, p in enumerate(self.engine.recurrent):
            weight, factor = self.engine.maps[p.name].by_sender(), numbers.factor(p)
            assert factor is not None
            if not numbers.integers:
                rows.append(factor * weight.ravel())
                continue
            gain, unit = Fraction(factor if weight.any() else 0.0).as_integer_ratio()
            gains[q] = gain, min(unit.bit_length() - 1, MOST_BITS)
            rows.append(weight.ravel())
        weights = np.concatenate(rows)
        short = shortest(np.abs(weights).max(initial=0)) if numbers.integers else kind
        self._layout = layout._replace(
            leaks=layout.leaks.astype(kind),
            levels=layout.levels.astype(kind),
            gains=gains.astype(self._sums(gains, kind)),
            weights=weights.astype(short),
        )
        self._loaded = (self.engine.version, kind)
        return self._layout

    def _sums(self, gains: np.ndarray, kind: np.dtype[Any]) -> np.dtype[Any]:
        """Numbers that hold sums of messages, and `gains`."""
        return kind

    def run(
        self, batch: Batch, phase: Phase, y: Tensor | None, each: np.ndarray, watched: bool
    ) -> Counted:
        """Run `batch` through `phase`, as `Batch.step` does step by step.

        Parameters
        ----------
        each : ndarray, (neurons, 2)
            What a message of each neuron counts, beside 1.
        watched : bool
            Count the membranes that change.
        """
        kind = self._kind(batch)
        names, samples = [p.name for p in self.populations], batch.samples
        state = State(*(self._rows(batch, which).astype(kind) for which in State._fields))
        beside = np.zeros_like(state.z)
        counts = np.zeros((samples, phase.steps, len(names), 1 + each.shape[1]))
        updates = np.zeros((samples if watched else 0, len(names)), np.int64)
        work = self._work(batch, phase, y, kind, each)

        def run(part: slice) -> np.ndarray:
            saturated = np.zeros(len(names), np.int64)
            held = State(*(values[part] for values in state))
            work(part, held, beside[part], counts[part], updates[part], saturated)
            return saturated

        # Samples know nothing of each other, and the loop lets other threads work.
        workers = max(1, min(torch.get_num_threads(), samples))
        parts = [samples * i // workers for i in range(workers + 1)]
        if workers == 1 or samples < FEW:  # Few are done before a thread has begun.
            saturated = run(slice(None))
        else:
            with ThreadPoolExecutor(workers) as pool:
                saturated = np.sum(list(pool.map(run, map(slice, parts, parts[1:]))), 0)
        batch.t += phase.steps
        self.engine.numbers.saturations.update(dict(zip(names, saturated.tolist(), strict=True)))
        places = dict(zip(names, (slice(*span) for span in self._spans), strict=True))
        for which in self.changes:
            for name, part in places.items():
                to = batch.view(which, name)
                to.copy_(torch.from_numpy(getattr(state, which)[:, part]).view_as(to))
        return Counted({name: beside[:, part] for name, part in places.items()}, counts, updates)

    def _rows(self, batch: Batch, which: str) -> np.ndarray:
        """A variable of all populations, (N, neurons)."""
        views = [batch.view(which, p.name).flatten(1).numpy() for p in self.populations]
        return np.concatenate(views, 1)


class SpikingLoop(Loop):
    """Of spiking neurons, in integers and in float32; `Counted.beside` are spikes by weight."""

    changes = ("u", "plain", "v", "z")

    def _levels(self, constants: Constants) -> tuple[float, float, float]:
        return (*constants.levels, constants.state.one if constants.state else 1)

    def _kind(self, batch: Batch) -> np.dtype[Any]:
        if not self.engine.numbers.integers:
            return np.dtype(np.float32)
        return np.dtype(np.int32 if batch.largest < WORD else np.int64)

    def _work(
        self, batch: Batch, phase: Phase, y: Tensor | None, kind: np.dtype[Any], each: np.ndarray
    ) -> Work:
        layout, output = self._load(kind), self._places[self.engine.graph.output]
        nudges = self._nudges(batch, phase, y).astype(kind)
        ends = self._ends.astype(kind) if self.engine.numbers.integers else None
        counting = spike_weights(phase.steps, from_rest=phase.start is None).astype(kind)

        def work(part: slice, state: State, sums: np.ndarray, *done: np.ndarray) -> None:
            run_spiking(layout, ends, state, output, nudges[part], counting, each, sums, *done)

        return work

    def _nudges(self, batch: Batch, phase: Phase, y: Tensor | None) -> np.ndarray:
        """What nudges an output that did not spike before, and one that did, (N, 2, outputs)."""
        shown = batch.view("z", self.engine.graph.output)
        found = torch.zeros(2, *shown.shape, dtype=torch.float64)
        if phase.nudge and y is not None:
            constants = batch.of[self.engine.graph.output].constants
            for spiked in range(2):
                told = torch.full_like(shown, spiked)
                found[spiked] = self.engine.numbers.nudge(constants, phase.nudge, y, told)
        return np.ascontiguousarray(found.flatten(2).numpy().swapaxes(0, 1))


class GradedLoop(Loop):
    """Of graded neurons in integers; `Counted.beside` are the states before the last step."""

    changes = ("v", "plain", "z", "drive")

    def _levels(self, constants: Constants) -> tuple[float, float, float]:
        assert constants.box is not None
        return (*constants.box, constants.finer)

    def _kind(self, batch: Batch) -> np.dtype[Any]:
        return np.dtype(np.int64)

    def _sums(self, gains: np.ndarray, kind: np.dtype[Any]) -> np.dtype[Any]:
        engine = self.engine
        sums = (engine.maps[p.name].largest(engine.bounds[p.pre]) for p in engine.recurrent)
        fit = max(*sums, np.abs(gains).max()) < WORD
        return np.dtype(np.int32) if fit else kind

    def _work(
        self, batch: Batch, phase: Phase, y: Tensor | None, kind: np.dtype[Any], each: np.ndarray
    ) -> Work:
        layout, output = self._load(kind), self._places[self.engine.graph.output]
        ends, silent = self._ends.astype(kind), phase.start is None
        targets = np.zeros((batch.samples, 0), kind)
        if phase.nudge and y is not None:
            targets = y.flatten(1).numpy().astype(kind)
        beta = round(UNIT * phase.nudge)

        def work(part: slice, state: State, before: np.ndarray, *done: np.ndarray) -> None:
            to = targets[part]
            run_graded(layout, ends, state, output, to, beta, silent, each, before, *done)

        return work


def compiled_loop(engine: Engine) -> Loop:
    """The loop for an engine that `runs_compiled`."""
    spikes = any(isinstance(p.dynamics, Spiking) for p in engine.graph.neurons)
    return (SpikingLoop if spikes else GradedLoop)(engine)
