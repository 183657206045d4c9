"""The two arithmetics of the IR on tensors: float64, and integers with saturation that is counted.

Membranes and currents that leak are *fine*: in integers the membrane times 4096 plus the remainder
of the leak, so that both move by one multiplication.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from compilers.ir import (
    LEAK_BITS,
    Conv,
    Dense,
    FixedPoint,
    Graph,
    Population,
    Projection,
    SigmaDelta,
    Spiking,
)
from compilers.operators import shift_channels
from ep_neuro.errors import GraphError

UNIT = 1 << LEAK_BITS
"""The integer that stands for a leak or a nudge of 1."""

DOUBLE = float(1 << 53)
"""Integers up to it are exact in float64."""

LARGE = 4096
"""Neurons from which the casts to float32 cost less than they save."""

SINGLE_BITS = 24
"""Integers of so many bits, and sums of two of them, are exact in float32."""


class Arithmetic(Protocol):
    """What the dynamics need of numbers; tensors are (N, *population shape).

    Attributes
    ----------
    integers : bool
    wide, narrow : dtype
        Of drives and membranes, and of messages and states.
    saturations : Counter
        By population the values that met the end of their format.
    """

    integers: bool
    wide: torch.dtype
    narrow: torch.dtype
    saturations: Counter[str]

    def weight(self, projection: Projection, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The weight as operators take it, float64."""
        ...

    def gain(self, projection: Projection, acc: Tensor) -> Tensor:
        """An operator's result in the units of the receiving membrane, a tensor of its own."""
        ...

    def bound(self, population: Population) -> float:
        """What no state of the population exceeds in size, in units of messages."""
        ...

    def real(self, population: Population, values: Tensor) -> Tensor:
        """States or messages in graph units, as float64."""
        ...

    def message(self, population: Population, x: Tensor) -> Tensor:
        """Real numbers as messages."""
        ...

    def membrane(self, population: Population, x: float) -> float:
        """A real number in the units of the membrane."""
        ...

    def plain(self, fine: Tensor) -> Tensor:
        """The membrane that a fine one holds."""
        ...

    def leak(self, population: Population, fine: Tensor, drive: Tensor) -> Tensor:
        """``v + leak (I - v)`` as the membrane's format holds it, fine."""
        ...

    def clip(self, population: Population, fine: Tensor) -> Tensor:
        """The state that a fine membrane shows: clipped to the box, in units of messages."""
        ...

    def fire(self, population: Population, v: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """The membrane after a step under the fine current, and its spikes."""
        ...

    def send(self, population: Population, values: Tensor) -> Tensor:
        """`values` as the message's format can hold them."""
        ...

    def threshold(self, population: Population, t: int) -> float:
        """Threshold of a sigma-delta population at step `t`, in units of messages."""
        ...

    def nudge(self, population: Population, beta: float, y: Tensor, shown: Tensor) -> Tensor:
        """``beta (y - z)`` in units of the membrane; `y` is real, `shown` in message units."""
        ...


class Floating:
    """Float64 throughout; nothing saturates."""

    integers = False
    wide = narrow = torch.float64

    def __init__(self) -> None:
        self.saturations: Counter[str] = Counter()

    def weight(self, projection: Projection, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return arrays[projection.weight].astype(np.float64)

    def gain(self, projection: Projection, acc: Tensor) -> Tensor:
        return projection.scale * acc

    def bound(self, population: Population) -> float:
        return math.inf

    def real(self, population: Population, values: Tensor) -> Tensor:
        return values

    def message(self, population: Population, x: Tensor) -> Tensor:
        return x

    def membrane(self, population: Population, x: float) -> float:
        return x

    def plain(self, fine: Tensor) -> Tensor:
        return fine

    def leak(self, population: Population, fine: Tensor, drive: Tensor) -> Tensor:
        return (drive - fine).mul_(leak_of(population)).add_(fine)

    def clip(self, population: Population, fine: Tensor) -> Tensor:
        return fine if population.box is None else fine.clamp(*population.box)

    def fire(self, population: Population, v: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(population.dynamics, Spiking)
        bound = population.dynamics.bound
        v = (v + fine).clamp_(-bound, 1 + bound)
        spike = torch.ge(v, 1, out=torch.empty_like(v))
        return v.sub_(spike), spike

    def send(self, population: Population, values: Tensor) -> Tensor:
        return values

    def threshold(self, population: Population, t: int) -> float:
        assert isinstance(population.dynamics, SigmaDelta)
        return population.dynamics.threshold(t)

    def nudge(self, population: Population, beta: float, y: Tensor, shown: Tensor) -> Tensor:
        return beta * (y - shown)


class Integer:
    """Exact integers: in float64 and float32 while all of `graph` fits them, else in int64.

    Raises
    ------
    GraphError
        If a population has no number format.
    """

    integers = True

    def __init__(self, graph: Graph) -> None:
        self.saturations: Counter[str] = Counter()
        held = [f for p in graph.populations for f in formats(p)]
        self.wide = torch.float64 if fits_double(graph) else torch.int64
        large = sum(p.size for p in graph.neurons) >= LARGE
        single = large and self.wide == torch.float64 and all(f.bits <= SINGLE_BITS for f in held)
        self.narrow = torch.float32 if single else self.wide
        self._half = torch.tensor(0.5, dtype=torch.float64)
        self._numbers = {p.name: _Numbers.of(p) for p in graph.populations}

    def weight(self, projection: Projection, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        exponent = None if projection.exponent is None else arrays[projection.exponent]
        return shift_channels(arrays[projection.weight], exponent).astype(np.float64)

    def gain(self, projection: Projection, acc: Tensor) -> Tensor:
        assert projection.rescale is not None
        multiplier, bits = projection.rescale.multiplier, projection.rescale.shift
        wide = acc if acc.dtype == self.wide else acc.to(self.wide)
        if self.wide == torch.int64:
            return self._shift(wide * multiplier, bits)
        # Both factors in one product: it is exact, for a power of two only moves the point.
        if bits >= 0:
            return wide * (multiplier * 2.0**bits)
        return torch.add(self._half, wide, alpha=multiplier * 2.0**bits).floor_()

    def bound(self, population: Population) -> float:
        return self._numbers[population.name].bound

    def real(self, population: Population, values: Tensor) -> Tensor:
        return values.double() / formats(population)[1].one

    def message(self, population: Population, x: Tensor) -> Tensor:
        whole = (x * formats(population)[1].one).add_(0.5).floor_()
        return self._saturate(population, whole, formats(population)[1]).to(self.narrow)

    def membrane(self, population: Population, x: float) -> float:
        return math.floor(x * formats(population)[0].one + 0.5)

    def plain(self, fine: Tensor) -> Tensor:
        return self._down(fine, LEAK_BITS)

    def leak(self, population: Population, fine: Tensor, drive: Tensor) -> Tensor:
        own = self._numbers[population.name]
        away = self._down(fine, LEAK_BITS)
        torch.sub(drive, away, out=away)
        fine = torch.add(fine, away, alpha=own.leak, out=away)
        least, largest = fine.aminmax()
        if own.low <= least.item() and largest.item() < own.high:
            return fine
        plain = self._down(fine, LEAK_BITS)
        lost = plain - self._saturate(population, plain, own.state)
        return fine.sub_(lost, alpha=UNIT)

    def clip(self, population: Population, fine: Tensor) -> Tensor:
        own = self._numbers[population.name]
        finer = own.state.frac - own.message.frac
        if finer > 0:
            q = self._shift(fine, -(LEAK_BITS + finer))
        else:
            q = self._shift(self._down(fine, LEAK_BITS), -finer)
        if own.box is not None:
            q.clamp_(*own.box)
        q = self.send(population, q)
        return q if self.narrow == self.wide else q.to(self.narrow)

    def fire(self, population: Population, v: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        own = self._numbers[population.name]
        low, high = own.levels
        u = self.plain(fine)
        u = u if self.narrow == self.wide else u.to(self.narrow)
        v = u.add_(v).clamp_(low, high)
        if low < own.state.range[0] or own.state.range[1] < high:
            v = self._saturate(population, v, own.state)
        spike = self._down(v, own.state.frac).clamp_(0, 1)
        return v.sub_(spike, alpha=own.state.one), spike

    def send(self, population: Population, values: Tensor) -> Tensor:
        own = self._numbers[population.name]
        return values if own.fits else self._saturate(population, values, own.message)

    def threshold(self, population: Population, t: int) -> float:
        assert isinstance(population.dynamics, SigmaDelta)
        return max(1, round(population.dynamics.threshold(t) * formats(population)[1].one))

    def nudge(self, population: Population, beta: float, y: Tensor, shown: Tensor) -> Tensor:
        state, message = formats(population)
        target = (y * state.one).add_(0.5).floor_().to(self.wide)
        distance = target - self._shift(shown.to(self.wide), state.frac - message.frac)
        return self._down(distance * round(UNIT * beta), LEAK_BITS)

    def _saturate(self, population: Population, values: Tensor, limits: FixedPoint) -> Tensor:
        held = values.clamp(*limits.range)
        self.saturations[population.name] += int(torch.count_nonzero(held != values))
        return held

    def _shift(self, values: Tensor, bits: int) -> Tensor:
        """`compilers.integers.shift`, as a tensor of its own."""
        if self.wide == torch.int64:
            return values << bits if bits >= 0 else (values + (1 << (-bits - 1))) >> -bits
        if bits >= 0:
            return values * 2.0**bits
        return torch.add(self._half, values, alpha=2.0**bits).floor_()

    def _down(self, values: Tensor, bits: int) -> Tensor:
        """``values >> bits``, as a tensor of its own."""
        if self.wide == torch.int64:
            return values >> bits
        return torch.mul(values, 2.0**-bits).floor_()


def formats(population: Population) -> tuple[FixedPoint, FixedPoint]:
    """Formats of the membrane and of the messages; an input has the latter only."""
    if population.message is None:
        raise GraphError(
            f"population '{population.name}'",
            "it has no number format in a graph of integers",
            "run the pass 'quantize' on the whole graph",
        )
    return population.state or population.message, population.message


@dataclass(frozen=True)
class _Numbers:
    """The integers of a population.

    Attributes
    ----------
    state, message : FixedPoint
    leak : int
        In units of 2**-12.
    low, high : int
        A fine membrane is within its format from `low` to below `high`.
    box : tuple of int, optional
        In units of messages.
    levels : tuple of int
        Ends of the membrane of spiking neurons.
    bound : int
        What no state exceeds in size, in units of messages.
    fits : bool
        Changes of the state cannot exceed the message's format.
    """

    state: FixedPoint
    message: FixedPoint
    leak: int
    low: int
    high: int
    box: tuple[int, int] | None
    levels: tuple[int, int]
    bound: int
    fits: bool

    @classmethod
    def of(cls, population: Population) -> _Numbers:
        state, message = formats(population)
        low, high = state.range
        box, bound = None, -message.range[0]
        if population.box is not None:
            box = (
                round(population.box[0] * message.one),
                round(population.box[1] * message.one),
            )
            bound = min(bound, max(abs(edge) for edge in box))
        over = getattr(population.dynamics, "bound", 0.0)
        levels = (math.floor(-over * state.one + 0.5), math.floor((1 + over) * state.one + 0.5))
        if isinstance(population.dynamics, Spiking):
            bound = 1
        return cls(
            state=state,
            message=message,
            leak=round(UNIT * leak_of(population)),
            low=low * UNIT,
            high=(high + 1) * UNIT,
            box=box,
            levels=levels,
            bound=bound,
            fits=2 * bound <= message.range[1],
        )


def fits_double(graph: Graph) -> bool:
    """Whether float64 holds every integer that `graph` can come to, learnt weights included."""
    learnt = {r.weight: (1 << ((r.bits or 1) - 1)) - 1 for r in graph.plasticity}
    for post in graph.neurons:
        # The membrane, a bias and a nudge as large, and what they may differ by.
        drive = float(4 << formats(post)[0].bits)
        if post.bias is not None:
            drive += float(np.abs(graph.arrays[post.bias].astype(np.float64)).max())
        for p in graph.into(post.name):
            weight, pre = graph.arrays[p.weight], graph.population(p.pre)
            exponent = 0 if p.exponent is None else int(graph.arrays[p.exponent].max())
            largest = max(int(np.abs(weight).max()), learnt.get(p.weight, 0)) << exponent
            receiving = 0 if isinstance(p.operator, Dense | Conv) else 1
            fan_in = weight.size // weight.shape[receiving]
            sent = 1 if isinstance(pre.dynamics, Spiking) else -formats(pre)[1].range[0]
            assert p.rescale is not None
            product = float(fan_in * largest * sent * abs(p.rescale.multiplier))
            if product >= DOUBLE:
                return False
            drive += product * 2.0**p.rescale.shift + 1
        if 2 * UNIT * drive >= DOUBLE:
            return False
    return True


def leak_of(population: Population) -> float:
    """Leak of a population that has one."""
    return float(getattr(population.dynamics, "leak", 1.0))
