"""Executes a graph step by step: what moves between two steps, for a batch of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compilers.execution.arithmetic import Arithmetic, Floating, Integer
from compilers.execution.maps import LinearMap, Messages, inside, inward
from compilers.execution.neurons import State, advance, at_rest
from compilers.ir import Graded, Graph, Phase, Population, Projection, SigmaDelta, Spiking


@dataclass(frozen=True)
class Moment:
    """Everything that a later phase needs in order to start from here; nothing is written to.

    Attributes
    ----------
    t : int
        Steps made since rest.
    states : dict of State
        By population.
    flight : tuple of dict
        What populations told their receivers in the last steps, the newest first, as far back as
        the longest delay; who is missing said nothing.
    sums : dict of Tensor
        Operator results of all messages so far, by projection whose receivers add them up.
    constant, drives : dict of Tensor
        The constant drive of the last step, and this with what has been added up, by population.
    """

    t: int
    states: Mapping[str, State]
    flight: tuple[Mapping[str, Messages], ...]
    sums: Mapping[str, Tensor]
    constant: Mapping[str, Tensor]
    drives: Mapping[str, Tensor]


Heard = list[tuple[Projection, Tensor, Tensor | None]]
"""What arrives in one step: operator results of some samples, and which (None: of all)."""


class Engine:
    """A graph made ready: weights laid out; `load` changes what it computes.

    In integers an operator of a sum is the sum of the operator's results, so graded messages are
    passed on as changes, like those of sigma-delta: what has come to rest costs nothing.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.numbers: Arithmetic = Integer(graph) if graph.quantised else Floating()
        self._populations = {p.name: p for p in graph.populations}
        self._neurons = graph.neurons
        self._maps: dict[str, LinearMap] = {}
        by_id: dict[str, np.ndarray] = {}
        for p in graph.projections:
            if p.weight not in by_id:
                by_id[p.weight] = self.numbers.weight(p, graph.arrays)
            self._maps[p.name] = self._map(p, by_id[p.weight])
        biases = {p.name: graph.arrays[p.bias] for p in graph.neurons if p.bias is not None}
        self._biases = {name: self._bias(bias) for name, bias in biases.items()}
        # Sums of what old weights made of old messages are no use to weights that learn.
        adding = (SigmaDelta, Graded) if graph.quantised and not graph.plasticity else SigmaDelta
        self._adding = {p.name for p in graph.neurons if isinstance(p.dynamics, adding)}
        names = {p.name for p in graph.sources}
        self.recurrent = [p for p in graph.projections if p.pre not in names]
        self.feedforward = [p for p in graph.projections if p.pre in names]
        self.depth = max((p.delay for p in self.recurrent), default=1)

    def load(self, weights: Mapping[str, np.ndarray], biases: Mapping[str, np.ndarray]) -> None:
        """Go on with other `weights` by id (float64, shifted) and `biases` by population."""
        for p in self.graph.projections:
            if p.weight in weights:
                self._maps[p.name] = self._map(p, weights[p.weight])
        self._biases.update({name: self._bias(bias) for name, bias in biases.items()})

    def rest(self, samples: int) -> Moment:
        """The moment before the first step."""
        states = {p.name: at_rest(self.numbers, p, samples) for p in self.graph.neurons}
        return Moment(0, states, ({},) * self.depth, {}, {}, {})

    def message(self, x: np.ndarray) -> Tensor:
        """Inputs (N, *input shape), raw, as the messages of the source."""
        (source,) = self.graph.sources
        return self.numbers.message(source, inward(x))

    def constant_drive(self, x: Tensor) -> dict[str, Tensor]:
        """What bias and input messages `x` drive each population with at every step."""
        drives = {}
        for p in self.graph.neurons:
            drives[p.name] = torch.zeros(len(x), *inside(p.shape), dtype=self.numbers.wide)
            if p.name in self._biases:
                drives[p.name] += self._biases[p.name]
        for q in self.feedforward:
            bound = self.numbers.bound(self._populations[q.pre])
            everyone = Messages(x, bound, signed=True, integers=False)
            drives[q.post] += self.numbers.gain(q, self._maps[q.name](everyone))
        return drives

    def step(
        self,
        before: Moment,
        constant: Mapping[str, Tensor],
        phase: Phase,
        y: Tensor | None,
    ) -> Moment:
        """The moment after one step of `phase`.

        Parameters
        ----------
        before : Moment
        constant : dict of Tensor
            Drive of input and bias; the same object as long as it does not change.
        phase : Phase
        y : Tensor, optional
            Targets of the output as the executor lays them out, real, graph units.
        """
        sums, drives, t = dict(before.sums), {}, before.t + 1
        heard = self._heard(before)
        states: dict[str, State] = {}
        messages: dict[str, Messages] = {}
        for p in self._neurons:
            old = before.states[p.name]
            base = before.drives[p.name] if constant is before.constant else None
            came = heard.get(p.name, [])
            base = drives[p.name] = self._added(p, base, constant[p.name], came, sums)
            drive = self._passing(base, came)
            if phase.nudge and y is not None and p.name == self.graph.output:
                drive = drive + self.numbers.nudge(p, phase.nudge, y, old.z)
            states[p.name] = advance(p.dynamics, self.numbers, p, old, drive, t)
            messages[p.name] = self._told(p, old, states[p.name])
        flight = (messages, *before.flight[:-1])
        return Moment(t, states, flight, sums, constant, drives)

    # --- what arrives --------------------------------------------------------------------------

    def _heard(self, before: Moment) -> dict[str, Heard]:
        """By receiver the results of what arrives now; who says nothing costs nothing."""
        heard: dict[str, Heard] = {}
        for p in self.recurrent:
            messages = before.flight[p.delay - 1].get(p.pre)
            if messages is not None and not messages.silent:
                found = self._maps[p.name](messages)
                heard.setdefault(p.post, []).append((p, found, messages.rows))
        return heard

    def _added(
        self,
        post: Population,
        base: Tensor | None,
        constant: Tensor,
        heard: Heard,
        sums: dict[str, Tensor],
    ) -> Tensor:
        """`constant` with all that receivers add up; `sums` takes in what is `heard`."""
        adding = [h for h in heard if h[0].pre in self._adding]
        if base is not None and not adding:
            return base
        samples = constant.shape[0]
        for p, found, rows in adding:
            sums[p.name] = self._total(p, sums.get(p.name), found, rows, samples)
        into = [p for p in self.recurrent if p.post == post.name and p.name in sums]
        rows = _union((rows for _, _, rows in adding), samples)
        if base is None or rows is None:
            return self._gained(constant, [(p, sums[p.name]) for p in into])
        part = self._gained(constant[rows], [(p, sums[p.name][rows]) for p in into])
        return base.index_copy(0, rows, part)

    def _total(
        self, p: Projection, total: Tensor | None, found: Tensor, rows: Tensor | None, samples: int
    ) -> Tensor:
        # The whole message bounds the sum of all its changes.
        bound = self.numbers.bound(self._populations[p.pre])
        if found.dtype == torch.float32 and not self._maps[p.name].is_single(bound):
            found = found.double()
        if total is None:
            if rows is None:
                return found
            total = found.new_zeros(samples, *found.shape[1:])
        return total + found if rows is None else total.index_add(0, rows, found)

    def _gained(self, drive: Tensor, parts: Iterable[tuple[Projection, Tensor]]) -> Tensor:
        own = False
        for p, acc in parts:
            gained = self.numbers.gain(p, acc)
            drive = drive.add_(gained) if own else drive + gained
            own = True
        return drive

    def _passing(self, base: Tensor, heard: Heard) -> Tensor:
        """`base` with what is heard in this step alone."""
        passing = [h for h in heard if h[0].pre not in self._adding]
        drive = self._gained(base, [(p, found) for p, found, rows in passing if rows is None])
        for p, found, rows in passing:
            if rows is not None:
                drive = drive.clone() if drive is base else drive
                drive.index_add_(0, rows, self.numbers.gain(p, found))
        return drive

    # --- what is told --------------------------------------------------------------------------

    def _told(self, p: Population, old: State, new: State) -> Messages:
        bound, integers = self.numbers.bound(p), self.numbers.integers
        if isinstance(p.dynamics, Spiking):
            return Messages(new.message, bound, signed=False, integers=integers)
        if isinstance(p.dynamics, Graded) and p.name in self._adding:
            return Messages(new.message - old.message, 2 * bound, signed=True, integers=integers)
        signed = isinstance(p.dynamics, SigmaDelta) or p.box is None or p.box[0] < 0
        return Messages(new.message, 2 * bound, signed=signed, integers=integers)

    # --- made once -----------------------------------------------------------------------------

    def _map(self, p: Projection, weight: np.ndarray) -> LinearMap:
        pre, post = self._populations[p.pre].shape, self._populations[p.post].shape
        return LinearMap(p.operator, weight, pre, post, self.numbers.integers)

    def _bias(self, bias: np.ndarray) -> Tensor:
        return inward(bias[None]).to(self.numbers.wide)


def _union(rows: Iterable[Tensor | None], samples: int) -> Tensor | None:
    """Samples that any of `rows` names; None for all, as soon as most are named."""
    found: list[Tensor] = []
    for some in rows:
        if some is None:
            return None
        found.append(some)
    if sum(some.numel() for some in found) >= samples:
        return None
    return torch.cat(found).unique() if found else torch.empty(0, dtype=torch.int64)
