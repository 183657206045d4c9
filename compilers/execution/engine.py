"""Executes a graph step by step: what moves between two steps, for a batch of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compilers.execution.arithmetic import Floating, Integer
from compilers.execution.constants import SINGLE
from compilers.execution.maps import Apply, GivenMap, LinearMap, inward, linear_map
from compilers.execution.neurons import Cells, advance
from compilers.execution.streams import Adder, Stream
from compilers.ir.graph import Graded, Graph, Phase, Population, SigmaDelta, Spiking
from compilers.learning.plastic_weights import learns_between_samples
from compilers.passes.quantize import MESSAGE_FRAC


@dataclass(frozen=True)
class Snapshot:
    """Everything that a later phase needs in order to start from here: `t` steps after rest."""

    t: int
    values: tuple[Tensor, ...]


class Engine:
    """A graph made ready: weights laid out; `load` changes what it computes.

    In integers an operator of a sum is the sum of the operator's results, so graded messages are
    passed on as changes, like those of sigma-delta: what has come to rest costs nothing.

    Parameters
    ----------
    graph : Graph
    dtype : dtype
        Of a graph in floating point; integers are exact whatever it is.
    device : str
    maps : mapping of callable, optional
        By projection a linear map in place of its operator. Maps are given what receivers take
        messages to mean, whole, and not changes that they would add up.

    Attributes
    ----------
    version : int
        How often weights were loaded.
    """

    def __init__(
        self,
        graph: Graph,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
        maps: Mapping[str, Apply] | None = None,
    ) -> None:
        self.graph, self.holds = graph, maps is not None
        place = torch.device(device)
        self.numbers: Floating = (
            Integer(graph, place) if graph.quantised else Floating(dtype, place)
        )
        # Sums of what old weights made of old messages are no use to weights that learn.
        self.changes = graph.quantised and not graph.plasticity and not self.holds
        adding = (SigmaDelta, Graded) if self.changes else SigmaDelta
        names = {p.name for p in graph.neurons if isinstance(p.dynamics, adding)}
        self.adding = set() if self.holds else names
        self._biases: dict[str, Tensor] = {}
        self.version = 0
        self.maps: dict[str, LinearMap] = {}
        self.bounds: dict[str, float] = {}
        for p in graph.populations:
            bound = self.numbers.constants(p).bound
            self.bounds[p.name] = bound if isinstance(p.dynamics, Spiking) else 2 * bound
        self._prepare(maps or {})
        neurons = {p.name for p in graph.neurons}
        self.recurrent = [p for p in graph.projections if p.pre in neurons]
        self.feedforward = [p for p in graph.projections if p.pre not in neurons]
        self.depth = max((p.delay for p in self.recurrent), default=1)
        self._batch: Batch | None = None

    def _prepare(self, maps: Mapping[str, Apply]) -> None:
        graph, shapes = self.graph, {p.name: p.shape for p in self.graph.populations}
        for p in graph.projections:
            rest = (p, shapes[p.pre], shapes[p.post], self.numbers, self.bounds[p.pre])
            given = maps.get(p.name)
            self.maps[p.name] = linear_map(*rest) if given is None else GivenMap(given, *rest)
        weights = {p.weight: self.numbers.weight(p, graph.arrays) for p in graph.projections}
        biases = {p.name: graph.arrays[p.bias] for p in graph.neurons if p.bias is not None}
        self.load(weights, biases)

    def load(self, weights: Mapping[str, np.ndarray], biases: Mapping[str, np.ndarray]) -> None:
        """Go on with other `weights` by id (float64, shifted) and `biases` by population."""
        self.version += 1
        for p in self.graph.projections:
            if p.weight in weights:
                self.maps[p.name].load(weights[p.weight])
        for name, bias in biases.items():
            self._biases[name] = inward(bias[None]).to(self.numbers.device, self.numbers.full)

    def batch(self, x: Tensor, y: Tensor | None = None) -> Batch:
        """A batch driven by input messages `x`, see `Batch.clamp`; the last one is used again."""
        if self._batch is None or self._batch.samples != len(x):
            self._batch = Batch(self, len(x))
        if not self._batch.clamp(x, y):
            self.widen()
            self._batch = Batch(self, len(x))
            self._batch.clamp(x, y)
        return self._batch

    def widen(self) -> None:
        """Go on in numbers that hold every sum."""
        self.numbers.widen()
        for mapped in self.maps.values():
            mapped.reload()

    def message(self, x: np.ndarray) -> Tensor:
        """Inputs (N, *input shape), raw, as the messages of the source."""
        (source,) = self.graph.sources
        return self.numbers.message(source, inward(x))

    def target(self, y: np.ndarray) -> Tensor:
        """Targets of the output (N, *shape), graph units, for `Batch.step`."""
        return self.numbers.target(self.graph.population(self.graph.output), inward(y))

    @property
    def runs_compiled(self) -> bool:
        """Whether `compilers.execution.compiled` can run whole phases of it, on a CPU.

        All neurons spike, in float32 or in whole numbers that floats hold; or all are graded in
        such numbers, and weights change between samples.
        """
        graph, numbers = self.graph, self.numbers
        plain = self.depth == 1 and not self.holds and bool(self.recurrent)
        kinds = {type(p.dynamics) for p in graph.neurons}
        if not plain or kinds not in ({Spiking}, {Graded}) or numbers.device.type != "cpu":
            return False
        spikes = kinds == {Spiking}
        if not numbers.integers:
            return spikes and numbers.wide == torch.float32
        if not numbers.full.is_floating_point:
            return False
        if spikes:
            ends = [(c.state, *c.levels) for c in map(numbers.constants, graph.neurons)]
            return all(s and s.range[0] <= low and high <= s.range[1] for s, low, high in ends)
        shown = all(c.shows for c in map(numbers.constants, graph.neurons))
        return shown and learns_between_samples(graph)

    def reach(self, name: str) -> float:
        """What messages cannot exceed together as a drive of population `name`."""
        total = 0.0
        for p in self.recurrent:
            if p.post == name:
                assert p.rescale is not None
                gain = abs(p.rescale.multiplier) * 2.0**p.rescale.shift
                # The whole message bounds the sum of all its changes.
                total += gain * self.maps[p.name].norm * self.bounds[p.pre] + 1
        return total

    def bias(self, name: str) -> Tensor | None:
        """Bias of population `name`, (1, *shape)."""
        return self._biases.get(name)


class Batch:
    """What a batch of samples holds while a graph runs; made once for a number of samples.

    Attributes
    ----------
    t : int
        Steps made since rest.
    samples : int
    cells : list of Cells
    of : dict of Cells
        By population.
    largest : float
        What no integer that may come exceeds.
    """

    def __init__(self, engine: Engine, samples: int) -> None:
        self.engine, self.samples, self.t, self.largest = engine, samples, 0, math.inf
        self.cells = _cells(engine, samples)
        self.of = {p.name: cells for cells in self.cells for p in cells.populations}
        self._output = engine.graph.output
        self._shown, self._nudged = (self.view(n, self._output) for n in ("z", "drive"))
        # With delays above 1 the last messages are kept; else they are still there when heard.
        self._slots = {
            id(c): [torch.zeros_like(c.told) for _ in range(engine.depth)] for c in self.cells
        }
        if engine.depth == 1:
            self._slots = {id(c): [c.told] for c in self.cells}
        self._streams = {(p.pre, p.delay): self._stream(p.pre, p.delay) for p in engine.recurrent}
        self._passing: list[tuple[Stream, LinearMap, Tensor]] = []
        self._adders: dict[str, Adder] = {}
        for p in engine.recurrent:
            stream, mapped = self._streams[p.pre, p.delay], engine.maps[p.name]
            if p.pre not in engine.adding:
                self._passing.append((stream, mapped, self.view("drive", p.post)))
                continue
            if p.post not in self._adders:
                ends = (self.view(n, p.post) for n in ("constant", "base"))
                self._adders[p.post] = Adder(*ends)
            self._adders[p.post].join(stream, mapped)
        self._listening = list(self._streams.values())

    def _stream(self, name: str, delay: int) -> Stream:
        cells = self.of[name]
        slots = [cells.part(values, name) for values in self._slots[id(cells)]]
        integers = self.engine.numbers.integers
        return Stream(slots, delay, self.engine.bounds[name], cells.signed, integers)

    def view(self, variable: str, name: str) -> Tensor:
        """The tensor `variable` of `Cells`, (N, *shape), of population `name`; it changes."""
        cells = self.of[name]
        return cells.part(getattr(cells, variable), name)

    # --- what drives all steps -----------------------------------------------------------------

    def clamp(self, x: Tensor, y: Tensor | None = None) -> bool:
        """Let input messages `x` and the present biases drive every step.

        `y` are targets (`Engine.target`) of nudges that will come. False if a sum may come that
        does not fit the numbers it is made in.
        """
        engine = self.engine
        for cells in self.cells:
            for p in cells.populations:
                bias = engine.bias(p.name)
                place = cells.part(cells.constant, p.name)
                place.zero_() if bias is None else place.copy_(bias.expand_as(place))
        largest = float(x.abs().max()) if engine.numbers.integers else 0.0
        for q in engine.feedforward:
            engine.maps[q.name].drive(self.view("constant", q.post), x, largest)
        fits = not engine.numbers.integers or self._look_for_limits(largest, y)
        self._renew()
        return fits

    def _look_for_limits(self, sent: float, y: Tensor | None) -> bool:
        """Find the cells of which no membrane can leave its format under the constant drive.

        A membrane moves from where it is towards its drive, and never beyond. `sent` is the largest
        input. Returns whether all sums fit.
        """
        engine, graph = self.engine, self.engine.graph
        sizes = {**engine.bounds, **{p.name: sent for p in graph.sources}}
        sums = (m.largest(sizes[m.projection.pre]) for m in engine.maps.values())
        self.largest = max(sums, default=0.0)
        beta = max(abs(phase.nudge) for phase in graph.phases) if graph.phases else 0.0
        for cells in self.cells:
            own = cells.constants
            assert own.state is not None
            largest = max(engine.reach(p.name) for p in cells.populations)
            if y is not None and cells is self.of[self._output] and beta:
                shown = own.bound * 2.0**own.finer
                largest += beta * (float(y.abs().max()) + shown) + 1
            constant = float(cells.constant.abs().max())
            cells.safe = constant < own.state.range[1] - largest
            # What a membrane is off its drive, with the fractional bits of its leak.
            self.largest = max(self.largest, 2 * (largest + constant + 1) * 2.0**own.fine)
        return engine.numbers.wide != torch.float32 or self.largest < SINGLE

    def _renew(self) -> None:
        for cells in self.cells:
            if cells.base is not cells.constant:
                cells.base.copy_(cells.constant)
        for adder in self._adders.values():
            adder.stale = True

    # --- steps ---------------------------------------------------------------------------------

    def rest(self) -> None:
        """Go to the moment before the first step."""
        self.t = 0
        for cells in self.cells:
            cells.rest()
        for adder in self._adders.values():
            adder.rest()

    def differ(self, free: Batch, y: Tensor | None) -> Tensor | None:
        """Go to no difference from where `free` is; targets as the nudge is to see them.

        This is a batch of `compilers.passes.send_differences.response_graph`.
        """
        numbers, graph = self.engine.numbers, free.engine.graph
        for cells in self.cells:
            rooms = (
                torch.zeros_like(cells.v),
                torch.zeros_like(cells.v),
                torch.zeros_like(cells.v),
            )
            cells.rooms, cells.safe = rooms, False
            for name in (p.name for p in cells.populations):
                held = free.view("plain" if numbers.integers else "v", name)
                low, high, outside = (cells.part(room, name) for room in rooms)
                low.copy_(numbers.room(graph.population(name), held, 0))
                high.copy_(numbers.room(graph.population(name), held, 1))
                outside.copy_(torch.zeros_like(low).clamp(low, high))
        self.rest()
        if y is None:
            return None
        own, louder = free.of[self._output].constants, graph.population(self._output).louder
        return numbers.distance(own, y, free.view("z", self._output)) * 2**louder

    def step(self, phase: Phase, y: Tensor | None) -> None:
        """One step of `phase`, nudged to targets `y` (`Engine.target`) if there are any."""
        self.t += 1
        for stream in self._listening:
            stream.listen(self.t)
        for adder in self._adders.values():
            adder.add()
        for cells in self.cells:
            cells.drive.copy_(cells.base)
        for stream, mapped, drive in self._passing:
            if stream.silent:
                continue
            if stream.rows is None:
                mapped.drive(drive, stream.told, stream.largest)
            else:
                found = mapped.apply(stream.told, stream.largest)
                drive.index_add_(0, stream.rows, mapped.gained(found))
        if phase.nudge and y is not None:
            constants = self.of[self._output].constants
            self._nudged.add_(self.engine.numbers.nudge(constants, phase.nudge, y, self._shown))
        for cells in self.cells:
            advance(cells.dynamics, cells, self.t)
            if self.engine.depth > 1:
                self._slots[id(cells)][self.t % self.engine.depth].copy_(cells.told)

    def moving(self, before: Sequence[Tensor]) -> Tensor | None:
        """Samples (N,) that are not at rest after a step, to a message step or to 2**-8 of the box.

        Of each, a state moved by more than that since `before`, the `z` of all cells before the
        step, or is farther from where the drive of the step pulls it: by the one a network shows
        that swings, by the other one that creeps. None of spikes, which never rest.
        """
        if any(isinstance(cells.dynamics, Spiking) for cells in self.cells):
            return None
        step = 1.0 if self.engine.numbers.integers else 2.0**-MESSAGE_FRAC
        found = torch.zeros(self.samples, dtype=torch.bool, device=self.engine.numbers.device)
        for cells, then in zip(self.cells, before, strict=True):
            own, z = cells.constants, cells.z.double()
            pulled = cells.drive.double() * 2.0**-own.finer
            pulled = pulled if own.box is None else pulled.clamp_(*own.box)
            off = torch.maximum((z - then).abs_(), (z - pulled).abs_()) > step
            for p in cells.populations:
                found |= cells.part(off, p.name).flatten(1).any(1)
        return found

    # --- moments -------------------------------------------------------------------------------

    def moment(self) -> Snapshot:
        """A copy of what later steps depend on, the drive of input and bias apart."""
        return Snapshot(self.t, tuple(values.clone() for values in self._kept()))

    def go_to(self, moment: Snapshot) -> None:
        """Go back to a moment of this batch."""
        self.t = moment.t
        for values, then in zip(self._kept(), moment.values, strict=True):
            values.copy_(then)
        self._renew()

    def _kept(self) -> list[Tensor]:
        states = [values for cells in self.cells for values in cells.kept()]
        late = [v for slots in self._slots.values() for v in slots if self.engine.depth > 1]
        return states + late + [t for adder in self._adders.values() for t in adder.totals]


def _cells(engine: Engine, samples: int) -> list[Cells]:
    groups: dict[object, list[Population]] = {}
    for p in engine.graph.neurons:
        groups.setdefault((type(p.dynamics), engine.numbers.constants(p)), []).append(p)
    return [Cells(group, engine, samples) for group in groups.values()]
