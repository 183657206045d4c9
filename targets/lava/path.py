"""One direction of a weight: what a projection does to the messages of its source."""

from __future__ import annotations

import numpy as np

from compilers.ir import Projection, Shape
from compilers.operators import apply


class Path:
    """Turns messages into currents: ``scale * op(W, s_pre(t - delay))``.

    Parameters
    ----------
    projection : Projection
        Operator, scale and delay. One step of delay is the hand-over between the processes;
        `Path` holds messages back for the others.
    weight : ndarray
        ``W`` in float64.
    shape : tuple of int
        (batch, *post shape).
    adds_up : bool
        Whether messages are changes that add up (sigma-delta), or the value itself.

    No array is ever written to, so a shallow copy keeps the state.
    """

    def __init__(
        self, projection: Projection, weight: np.ndarray, shape: Shape, *, adds_up: bool = False
    ) -> None:
        self.projection, self.weight, self.adds_up = projection, weight, adds_up
        self._silence = np.zeros(shape)
        self.rest()

    def rest(self) -> None:
        """Nothing is in flight, nothing has added up."""
        self._flight: tuple[np.ndarray, ...] = ()
        self._total = self._silence

    def weigh(self, message: np.ndarray) -> np.ndarray:
        """Current of a message that arrives now, (batch, *post shape)."""
        p = self.projection
        current = apply(p.operator, self.weight, message, self._silence.shape[1:])
        return current if p.scale == 1.0 else p.scale * current

    def current(self, message: np.ndarray) -> np.ndarray:
        """Current of this step, as `message` sets out."""
        flight = (*self._flight, message)
        if len(flight) < self.projection.delay:
            self._flight = flight
            return self._total
        arriving, self._flight = flight[0], flight[1:]
        if not arriving.any():
            return self._total if self.adds_up else self._silence
        fresh = self.weigh(arriving)
        if not self.adds_up:
            return fresh
        self._total = self._total + fresh
        return self._total
