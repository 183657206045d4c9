"""The two arithmetics of the IR: float64, and integers with saturation that is counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from compilers.integers import nearest as nearest
from compilers.integers import shift as shift
from compilers.ir import LEAK_BITS, FixedPoint, Population, Projection, SigmaDelta
from compilers.operators import shift_channels
from ep_neuro.errors import GraphError

UNIT = 1 << LEAK_BITS
"""The integer that stands for a leak or a nudge of 1."""


Levels = tuple[float, ...]


class Arithmetic(Protocol):
    """What the dynamics need of numbers; arrays are (N, *population shape)."""

    dtype: type[np.generic]
    saturations: Counter[str]

    def weight(self, projection: Projection, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The forward weight, float64, ready for `operators.apply`."""
        ...

    def gain(self, projection: Projection, acc: np.ndarray) -> np.ndarray:
        """An operator's result in the units of the receiving membrane."""
        ...

    def real(self, population: Population, values: np.ndarray) -> np.ndarray:
        """States or messages in graph units, as float64."""
        ...

    def message(self, population: Population, x: np.ndarray) -> np.ndarray:
        """Real numbers as messages."""
        ...

    def membrane(self, population: Population, x: float | np.ndarray) -> np.ndarray:
        """Real numbers in the units of the membrane."""
        ...

    def levels(self, population: Population, levels: Levels) -> Levels:
        """The same for a few plain numbers, where an array would cost more than the step."""
        ...

    def leak(
        self, population: Population, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """``v + leak (I - v)`` and the remainder that is carried to the next step."""
        ...

    def clip(self, population: Population, v: np.ndarray) -> np.ndarray:
        """The state that membrane `v` shows: clipped to the box, in units of messages."""
        ...

    def store(
        self, population: Population, v: np.ndarray, span: tuple[float, float] | None = None
    ) -> np.ndarray:
        """`v` as the membrane's format can hold it; `span` is where it lies if that is known."""
        ...

    def send(self, population: Population, values: np.ndarray) -> np.ndarray:
        """`values` as the message's format can hold them."""
        ...

    def threshold(self, population: Population, t: int) -> float:
        """Threshold of a sigma-delta population at step `t`, in units of messages."""
        ...

    def nudge(
        self, population: Population, beta: float, y: np.ndarray, shown: np.ndarray
    ) -> np.ndarray:
        """``beta (y - z)`` in units of the membrane; `y` is real, `shown` in message units."""
        ...


class Floating:
    """Float64 throughout; nothing saturates."""

    dtype: type[np.generic] = np.float64

    def __init__(self) -> None:
        self.saturations: Counter[str] = Counter()

    def weight(self, projection: Projection, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return arrays[projection.weight].astype(np.float64)

    def gain(self, projection: Projection, acc: np.ndarray) -> np.ndarray:
        return acc if projection.scale == 1 else projection.scale * acc

    def real(self, population: Population, values: np.ndarray) -> np.ndarray:
        return values

    def message(self, population: Population, x: np.ndarray) -> np.ndarray:
        return x

    def membrane(self, population: Population, x: float | np.ndarray) -> np.ndarray:
        return np.asarray(x, np.float64)

    def levels(self, population: Population, levels: Levels) -> Levels:
        return levels

    def leak(
        self, population: Population, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        moved = np.subtract(drive, v)
        moved *= _leak_of(population)
        moved += v
        return moved, rest

    def clip(self, population: Population, v: np.ndarray) -> np.ndarray:
        return v if population.box is None else within(v, *population.box)

    def store(
        self, population: Population, v: np.ndarray, span: tuple[float, float] | None = None
    ) -> np.ndarray:
        return v

    def send(self, population: Population, values: np.ndarray) -> np.ndarray:
        return values

    def threshold(self, population: Population, t: int) -> float:
        assert isinstance(population.dynamics, SigmaDelta)
        return population.dynamics.threshold(t)

    def nudge(
        self, population: Population, beta: float, y: np.ndarray, shown: np.ndarray
    ) -> np.ndarray:
        return beta * (y - shown)


class Integer:
    """Exact integers: int64 states, operators on float64 that carries integers below 2**53.

    `saturations` counts by population the values that met the end of their format.
    """

    dtype: type[np.generic] = np.int64

    def __init__(self) -> None:
        self.saturations: Counter[str] = Counter()

    def weight(self, projection: Projection, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        exponent = None if projection.exponent is None else arrays[projection.exponent]
        return shift_channels(arrays[projection.weight], exponent).astype(np.float64)

    def gain(self, projection: Projection, acc: np.ndarray) -> np.ndarray:
        assert projection.rescale is not None
        product = acc.astype(np.int64) * projection.rescale.multiplier
        return shift(product, projection.rescale.shift)

    def real(self, population: Population, values: np.ndarray) -> np.ndarray:
        return values / formats(population)[1].one

    def message(self, population: Population, x: np.ndarray) -> np.ndarray:
        return self.send(population, nearest(x * formats(population)[1].one))

    def membrane(self, population: Population, x: float | np.ndarray) -> np.ndarray:
        return nearest(x * np.float64(formats(population)[0].one))

    def levels(self, population: Population, levels: Levels) -> Levels:
        one = formats(population)[0].one
        return tuple(math.floor(level * one + 0.5) for level in levels)

    def leak(
        self, population: Population, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        total = round(UNIT * _leak_of(population)) * (drive - v) + rest
        return self.store(population, v + (total >> LEAK_BITS)), total & (UNIT - 1)

    def clip(self, population: Population, v: np.ndarray) -> np.ndarray:
        state, message = formats(population)
        q = shift(v, message.frac - state.frac)
        if population.box is None:
            return self.send(population, q)
        lo, hi = (round(edge * message.one) for edge in population.box)
        return self._saturate(population, within(q, lo, hi), message, (lo, hi))

    def store(
        self, population: Population, v: np.ndarray, span: tuple[float, float] | None = None
    ) -> np.ndarray:
        return self._saturate(population, v, formats(population)[0], span)

    def send(self, population: Population, values: np.ndarray) -> np.ndarray:
        return self._saturate(population, values, formats(population)[1])

    def threshold(self, population: Population, t: int) -> float:
        assert isinstance(population.dynamics, SigmaDelta)
        return max(1, round(population.dynamics.threshold(t) * formats(population)[1].one))

    def nudge(
        self, population: Population, beta: float, y: np.ndarray, shown: np.ndarray
    ) -> np.ndarray:
        state, message = formats(population)
        distance = self.membrane(population, y) - shift(shown, state.frac - message.frac)
        return (round(UNIT * beta) * distance) >> LEAK_BITS

    def _saturate(
        self,
        population: Population,
        v: np.ndarray,
        limits: FixedPoint,
        span: tuple[float, float] | None = None,
    ) -> np.ndarray:
        lo, hi = limits.range
        # NumPy's stubs know no reduction over all axes, which is cheaper than `v.min()`.
        least, largest = span or (
            np.minimum.reduce(v, None),  # type: ignore[call-overload]
            np.maximum.reduce(v, None),  # type: ignore[call-overload]
        )
        if lo <= least and largest <= hi:
            return v
        held = within(v, lo, hi)
        self.saturations[population.name] += int(np.count_nonzero(held != v))
        return held


def within(values: np.ndarray, lo: float | np.ndarray, hi: float | np.ndarray) -> np.ndarray:
    """`values` clipped to ``[lo, hi]``; on small arrays several times faster than `numpy.clip`."""
    clipped = np.maximum(values, lo)
    return np.minimum(clipped, hi, out=clipped)


def formats(population: Population) -> tuple[FixedPoint, FixedPoint]:
    """Formats of the membrane and of the messages; an input has the latter only."""
    if population.message is None:
        raise GraphError(
            f"population '{population.name}'",
            "it has no number format in a graph of integers",
            "run the pass 'quantize' on the whole graph",
        )
    return population.state or population.message, population.message


def _leak_of(population: Population) -> float:
    return getattr(population.dynamics, "leak", 1.0)
