"""Whole phases of a graph of spiking neurons in one compiled loop, in integers and in float32.

In integers it comes to the same bits as the steps of the executor, which stay the way of all other
graphs, and of phases in which somebody looks or learns between two steps.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from compilers.execution.compiled.spikes import MOST_BITS, Layout, State, run_phase, shortest
from compilers.execution.constants import WORD
from compilers.ir.graph import Phase

if TYPE_CHECKING:
    from compilers.execution.engine import Batch, Engine


@dataclass
class Counted:
    """What a phase did, of N samples and P populations in the order of the graph."""

    sums: dict[str, np.ndarray]
    """Spikes by population, each with its weight, (N, *shape); as the executor lays them out."""
    counts: np.ndarray
    """Spikes, and two sums of what each counts beside, (N, steps, P, 3); see `SpikingLoop.run`."""
    updates: np.ndarray
    """Membranes that changed, from the second step on, (N, P); empty if nobody asked."""


class SpikingLoop:
    """The populations and projections of an `Engine` as the compiled loop takes them.

    Parameters
    ----------
    engine : Engine
        One of `only_spikes`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.populations = engine, engine.graph.neurons
        ends = np.cumsum([p.size for p in self.populations])
        self._spans = np.stack([ends - [p.size for p in self.populations], ends], 1)
        self._places = {p.name: i for i, p in enumerate(self.populations)}
        constants = [engine.numbers.constants(p) for p in self.populations]
        self._ends = np.array([c.state.range for c in constants if c.state])
        self._layout, self._loaded = self._laid_out(), (-1, np.dtype(np.int64))

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
            levels=np.array([(*c.levels, c.state.one if c.state else 1) for c in constants]),
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
        gains = np.zeros((len(layout.wires), 2), kind)
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
        short = shortest(np.abs(weights).max(initial=0)) if kind == np.int32 else kind
        self._layout = layout._replace(
            leaks=layout.leaks.astype(kind),
            levels=layout.levels.astype(kind),
            gains=gains,
            weights=weights.astype(short),
        )
        self._loaded = (self.engine.version, kind)
        return self._layout

    def run(
        self,
        batch: Batch,
        phase: Phase,
        y: Tensor | None,
        counting: np.ndarray,
        each: np.ndarray,
        watched: bool,
    ) -> Counted:
        """Run `batch` through `phase`, as `Batch.step` does step by step.

        Parameters
        ----------
        counting : ndarray, (steps,)
            What a spike of each step weighs.
        each : ndarray, (neurons, 2)
            What a spike of each neuron counts, beside 1.
        watched : bool
            Count the membranes that change.
        """
        kind: np.dtype[Any] = np.dtype(np.float32)
        ends = None
        if self.engine.numbers.integers:
            kind = np.dtype(np.int32 if batch.largest < WORD else np.int64)
            ends = self._ends.astype(kind)
        names, samples = [p.name for p in self.populations], batch.samples
        state = State(*(self._rows(batch, which).astype(kind) for which in State._fields))
        sums = np.zeros_like(state.z)
        counts = np.zeros((samples, phase.steps, len(names), 1 + each.shape[1]))
        updates = np.zeros((samples if watched else 0, len(names)), np.int64)
        layout, output = self._load(kind), self._places[self.engine.graph.output]
        nudges, weighed = self._nudges(batch, phase, y).astype(kind), counting.astype(kind)

        def run(part: slice) -> np.ndarray:
            saturated = np.zeros(len(names), np.int64)
            held, own = State(*(values[part] for values in state)), nudges[part]
            done = (sums[part], counts[part], updates[part], saturated)
            run_phase(layout, ends, held, output, own, weighed, each, *done)
            return saturated

        # Samples know nothing of each other, and the loop lets other threads work.
        workers = max(1, min(torch.get_num_threads(), samples))
        parts = [samples * i // workers for i in range(workers + 1)]
        with ThreadPoolExecutor(workers) as pool:
            saturated = np.sum(list(pool.map(run, map(slice, parts, parts[1:]))), 0)
        batch.t += phase.steps
        self.engine.numbers.saturations.update(dict(zip(names, saturated.tolist(), strict=True)))
        places = dict(zip(names, (slice(*span) for span in self._spans), strict=True))
        for which in State._fields[1:]:
            for name, part in places.items():
                to = batch.view(which, name)
                to.copy_(torch.from_numpy(getattr(state, which)[:, part]).view_as(to))
        return Counted({name: sums[:, part] for name, part in places.items()}, counts, updates)

    def _rows(self, batch: Batch, which: str) -> np.ndarray:
        """A variable of all populations, (N, neurons)."""
        views = [batch.view(which, p.name).flatten(1).numpy() for p in self.populations]
        return np.concatenate(views, 1)

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
