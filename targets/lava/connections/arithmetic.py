"""The two kinds of numbers that processes compute with: float64, and integers that saturate."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from compilers.ir.graph import (
    LEAK_BITS,
    FixedPoint,
    Graded,
    Population,
    Projection,
    SigmaDelta,
    Spiking,
)

UNIT = 1 << LEAK_BITS
"""The integer that stands for a leak or a nudge of 1."""


class Numbers(Protocol):
    """What the processes of one population need; arrays are (rows, ...) or of one row, flat.

    Attributes
    ----------
    dtype : type
        Of states, messages and currents.
    saturated : ndarray, (rows,)
        Values that met the end of their format, by sample.
    """

    dtype: type[Any]
    saturated: np.ndarray

    def membrane(self, x: float | np.ndarray) -> np.ndarray:
        """Real numbers in units of the membrane."""
        ...

    def message(self, x: np.ndarray) -> np.ndarray:
        """Real numbers as messages."""
        ...

    def real(self, messages: np.ndarray) -> np.ndarray:
        """Messages as real numbers."""
        ...

    def integrate(
        self, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """``v + leak (I - v)`` and the remainder that the next step gets."""
        ...

    def clip(self, v: np.ndarray) -> np.ndarray:
        """What membrane `v` shows: within the box, in units of messages."""
        ...

    def store(self, v: np.ndarray) -> np.ndarray:
        """`v` as the membrane's format holds it."""
        ...

    def send(self, values: np.ndarray) -> np.ndarray:
        """`values` as the message's format holds them."""
        ...

    def threshold(self, clock: int) -> float:
        """Threshold of a sigma-delta population at step `clock`, in units of messages."""
        ...

    def pull(self, beta: float, y: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """``beta (y - z)`` in units of the membrane; `y` is real, `shown` in message units."""
        ...


class Floating:
    """Float64; nothing saturates."""

    dtype: type[Any] = np.float64

    def __init__(self, population: Population, rows: int) -> None:
        self.population = population
        self.saturated = np.zeros(rows, np.int64)

    def membrane(self, x: float | np.ndarray) -> np.ndarray:
        return np.asarray(x, np.float64)

    def message(self, x: np.ndarray) -> np.ndarray:
        return x

    def real(self, messages: np.ndarray) -> np.ndarray:
        return messages

    def integrate(
        self, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return v + leak_of(self.population) * (drive - v), rest

    def clip(self, v: np.ndarray) -> np.ndarray:
        return v if self.population.box is None else np.clip(v, *self.population.box)

    def store(self, v: np.ndarray) -> np.ndarray:
        return v

    def send(self, values: np.ndarray) -> np.ndarray:
        return values

    def threshold(self, clock: int) -> float:
        assert isinstance(self.population.dynamics, SigmaDelta)
        return self.population.dynamics.threshold(clock)

    def pull(self, beta: float, y: np.ndarray, shown: np.ndarray) -> np.ndarray:
        return beta * (y - shown)


class Integer:
    """Integers in int64, held within the population's formats; see `compilers.ir.graph`."""

    dtype: type[Any] = np.int64

    def __init__(self, population: Population, rows: int) -> None:
        assert population.message is not None, "the backend's check lets none pass"
        self.population = population
        self.messages: FixedPoint = population.message
        self.states: FixedPoint = population.state or population.message
        self.saturated = np.zeros(rows, np.int64)
        self._leak = round(UNIT * leak_of(population))
        self._box: tuple[int, int] | None = None
        if population.box is not None:
            low, high = (round(edge * self.messages.one) for edge in population.box)
            self._box = low, high

    def membrane(self, x: float | np.ndarray) -> np.ndarray:
        return nearest(np.multiply(x, np.float64(self.states.one)))

    def message(self, x: np.ndarray) -> np.ndarray:
        return self.send(nearest(x * self.messages.one))

    def real(self, messages: np.ndarray) -> np.ndarray:
        return messages / self.messages.one

    def integrate(
        self, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        total = self._leak * (drive - v) + rest
        return self.store(v + (total >> LEAK_BITS)), total & (UNIT - 1)

    def clip(self, v: np.ndarray) -> np.ndarray:
        q = shift(v, self.messages.frac - self.states.frac)
        return self.send(q if self._box is None else np.clip(q, *self._box))

    def store(self, v: np.ndarray) -> np.ndarray:
        return self._saturate(v, self.states)

    def send(self, values: np.ndarray) -> np.ndarray:
        return self._saturate(values, self.messages)

    def threshold(self, clock: int) -> float:
        assert isinstance(self.population.dynamics, SigmaDelta)
        return max(1, round(self.population.dynamics.threshold(clock) * self.messages.one))

    def pull(self, beta: float, y: np.ndarray, shown: np.ndarray) -> np.ndarray:
        distance = self.membrane(y) - shift(shown, self.states.frac - self.messages.frac)
        return (round(UNIT * beta) * distance) >> LEAK_BITS

    def _saturate(self, values: np.ndarray, limits: FixedPoint) -> np.ndarray:
        low, high = limits.range
        if low <= values.min() and values.max() <= high:
            return values
        held = np.clip(values, low, high)
        lost = (held != values).reshape(len(self.saturated), -1)
        self.saturated += np.count_nonzero(lost, axis=1)
        return held


def leak_of(population: Population) -> float:
    """Leak of a population; 1 for an input, which has none."""
    dynamics = population.dynamics
    return dynamics.leak if isinstance(dynamics, Graded | SigmaDelta | Spiking) else 1.0


def gain(projection: Projection, acc: np.ndarray) -> np.ndarray:
    """An operator's result in units of the receiving membrane; int64 where it has a rescale."""
    if projection.rescale is None:
        return acc if projection.scale == 1.0 else projection.scale * acc
    product = acc.astype(np.int64) * projection.rescale.multiplier
    return shift(product, projection.rescale.shift)


def shift(values: np.ndarray, bits: int) -> np.ndarray:
    """``values << bits``; a shift to the right rounds to nearest, halves up."""
    if bits >= 0:
        return values << bits if bits else values
    return (values + (1 << (-bits - 1))) >> -bits


def nearest(values: Any) -> np.ndarray:
    """The nearest integers, halves up like `shift`, as int64."""
    return np.floor(np.asarray(values) + 0.5).astype(np.int64)
