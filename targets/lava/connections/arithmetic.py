"""The two kinds of numbers that processes compute with: float64, and integers that saturate.

The constants of a population and the roundings are those of the executor (`compilers.execution`);
the steps are written a second time, in NumPy, as Lava's environment has no torch; those in integers
of neurons that spike, or show a clipped state, are its compiled ones.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compilers.execution.compiled.graded import relaxed
from compilers.execution.compiled.spikes import step
from compilers.execution.constants import UNIT, Constants
from compilers.ir.graph import (
    LEAK_BITS,
    FixedPoint,
    Population,
    Projection,
    SigmaDelta,
    Spiking,
)
from compilers.ir.integers import nearest, shift


class Floating:
    """Float64, in which nothing saturates; arrays are (rows, ...) or of one row, flat.

    Attributes
    ----------
    dtype : type
        Of states, messages and currents.
    own : Constants
        Leak, box and formats of the population.
    one : float
        A membrane of 1.
    saturated : ndarray, (rows,)
        Values that met the end of their format, by sample.
    """

    dtype: type[Any] = np.float64

    def __init__(self, population: Population) -> None:
        self.population = population
        self.forget(1)
        self.own, self.one = Constants.real(population), 1.0

    def forget(self, rows: int) -> None:
        """Begin with `rows` samples of which nothing has saturated."""
        self.saturated = np.zeros(rows, np.int64)

    def message(self, x: np.ndarray) -> np.ndarray:
        """Real numbers as messages."""
        return x

    def real(self, messages: np.ndarray) -> np.ndarray:
        """Messages as real numbers."""
        return messages

    def integrate(
        self, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """``v + leak (I - v)`` and the remainder that the next step gets."""
        return v + self.own.leak * (drive - v), rest

    def fire(
        self, u: np.ndarray, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """``u += leak (I - u)``, ``v += u``, the spikes and what they cost; `u`, `v`, spikes, rest.

        In integers the rest is all of `u`, its fractional bits included.
        """
        u, rest = self.integrate(u, drive, rest)
        v = self.store(held(v + u, *self.own.levels))
        spikes = v >= self.one
        return u, v - np.where(spikes, v if self.own.hard else self.one, 0), spikes, rest

    def relax(
        self, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`integrate`, and what the membrane shows then; in integers with the rest of `fire`."""
        v, rest = self.integrate(v, drive, rest)
        return v, rest, self.clip(v)

    def clip(self, v: np.ndarray) -> np.ndarray:
        """What membrane `v` shows: within the box, in units of messages."""
        return v if self.own.box is None else held(v, *self.own.box)

    def store(self, v: np.ndarray) -> np.ndarray:
        """`v` as the membrane's format holds it."""
        return v

    def send(self, values: np.ndarray) -> np.ndarray:
        """`values` as the message's format holds them."""
        return values

    def threshold(self, clock: int) -> float:
        """Threshold of a sigma-delta population at step `clock`, in units of messages."""
        assert isinstance(self.population.dynamics, SigmaDelta)
        return self.population.dynamics.threshold(clock)

    def target(self, y: np.ndarray) -> np.ndarray:
        """The real `y` in units of the membrane."""
        return y

    def distance(self, target: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """``target - z`` in units of the membrane; `shown` is in message units."""
        return target - shown

    def pull(self, beta: Any, target: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """``beta (target - z)`` in units of the membrane; `shown` is in message units.

        There is one `beta` for all samples, or an array of them, (rows, 1, ...).
        """
        return beta * self.distance(target, shown)

    def rooms(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What membrane `v` leaves to the ends of its box, louder, and how far outside it is."""
        low, high = self._ends(v, math.inf)
        return low, high, held(np.zeros_like(v), low, high)

    def _ends(self, v: np.ndarray, most: float) -> list[np.ndarray]:
        box = self.population.box
        if box is None:
            return [np.full_like(v, end) for end in (-most, most)]
        rooms = (self.target(np.asarray(edge)) - v for edge in box)
        return [held(room * 2.0**self.population.louder, -most, most) for room in rooms]

    def differ(self, v: np.ndarray, rooms: tuple[np.ndarray, ...]) -> np.ndarray:
        """What membrane `v` of a difference shows, in units of messages."""
        low, high, outside = rooms
        return held(v, low, high) - outside


class Integer(Floating):
    """Integers in int64, held within the population's formats; see `compilers.ir.graph`."""

    dtype: type[Any] = np.int64

    def __init__(self, population: Population) -> None:
        super().__init__(population)
        self.own = own = Constants.whole(population)
        assert own.state is not None
        assert own.message is not None
        self.states, self.messages, self.one = own.state, own.message, own.state.one
        low, high = own.state.range
        # The compiled steps count no spiking membrane, and no message, that meets an end.
        if isinstance(population.dynamics, Spiking):
            self.runs_compiled = low <= own.levels[0] and own.levels[1] <= high
            levels = (*own.levels, self.one)
        else:
            self.runs_compiled = own.shows
            levels = (*(own.box or (0, 0)), own.finer)
        ends = ((own.leak, own.fine), (low, high), levels)
        self._limits = tuple(np.array(values, np.int64) for values in ends)

    def message(self, x: np.ndarray) -> np.ndarray:
        return self.send(nearest(x * self.messages.one))

    def real(self, messages: np.ndarray) -> np.ndarray:
        return messages / self.messages.one

    def integrate(
        self, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        total = self.own.leak * (drive - v) + rest
        return self.store(v + (total >> self.own.fine)), total & ((1 << self.own.fine) - 1)

    def fire(
        self, u: np.ndarray, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if not self.runs_compiled:
            return super().fire(u, v, drive, rest)
        u, v, rest, spikes = u.copy(), v.copy(), rest.copy(), np.empty(v.shape, np.int8)
        (leaks, ends, levels), lost = self._limits, self.saturated
        i, r, x, y, z = (values.ravel() for values in (drive, rest, u, v, spikes))
        step(i, r, x, y, z, leaks, ends, levels, self.own.hard, lost)
        return u, v, spikes, rest

    def relax(
        self, v: np.ndarray, drive: np.ndarray, rest: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not self.runs_compiled:
            return super().relax(v, drive, rest)
        v, rest, z = v.copy(), rest.copy(), np.empty_like(v)
        i, r, x, y = (values.ravel() for values in (drive, rest, v, z))
        (leaks, ends, levels), lost = self._limits, self.saturated
        relaxed(i, r, x, y, leaks, ends, levels, lost)
        return v, rest, z

    def clip(self, v: np.ndarray) -> np.ndarray:
        q = shift(v, -self.own.finer)
        shown = q if self.own.box is None else held(q, *self.own.box)
        return shown if self.own.shows else self.send(shown)

    def store(self, v: np.ndarray) -> np.ndarray:
        return self._saturate(v, self.states)

    def send(self, values: np.ndarray) -> np.ndarray:
        return self._saturate(values, self.messages)

    def threshold(self, clock: int) -> float:
        return max(1, round(super().threshold(clock) * self.messages.one))

    def target(self, y: np.ndarray) -> np.ndarray:
        return nearest(y * float(self.one))

    def distance(self, target: np.ndarray, shown: np.ndarray) -> np.ndarray:
        return target - shift(shown, self.own.finer)

    def pull(self, beta: Any, target: np.ndarray, shown: np.ndarray) -> np.ndarray:
        factor = np.rint(UNIT * np.asarray(beta)).astype(np.int64)
        return (factor * self.distance(target, shown)) >> LEAK_BITS

    def rooms(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        low, high = (end.astype(np.int64) for end in self._ends(v, 4 << self.states.bits))
        return low, high, held(np.zeros_like(v), low, high)

    def differ(self, v: np.ndarray, rooms: tuple[np.ndarray, ...]) -> np.ndarray:
        return self.send(shift(super().differ(v, rooms), -self.own.finer))

    def _saturate(self, values: np.ndarray, limits: FixedPoint) -> np.ndarray:
        low, high = limits.range
        if low <= values.min() and values.max() <= high:
            return values
        kept = held(values, low, high)
        lost = (kept != values).reshape(len(self.saturated), -1)
        self.saturated += np.count_nonzero(lost, axis=1)
        return kept


def held(values: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """`values` from `low` to `high`; as `np.clip`, without what that asks first of small arrays."""
    return np.minimum(np.maximum(values, low), high)


def gain(projection: Projection, acc: np.ndarray) -> np.ndarray:
    """An operator's result in units of the receiving membrane; int64 where it has a rescale."""
    if projection.rescale is None:
        return acc if projection.scale == 1.0 else projection.scale * acc
    product = acc.astype(np.int64) * projection.rescale.multiplier
    return shift(product, projection.rescale.shift)
