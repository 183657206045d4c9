"""One direction of a weight: what a projection does to the messages of its source."""

from __future__ import annotations

import numpy as np

from compilers.ir.graph import Graph, Projection, Shape
from compilers.ir.operators import apply, shift_channels
from targets.lava.connections.arithmetic import gain


class Connection:
    """Turns messages into currents: ``gain(op(W, s_pre(t - delay)))``.

    Parameters
    ----------
    projection : Projection
        Operator, gain and delay. One step of delay is the hand-over between the processes;
        `Connection` holds messages back for the others.
    weight : ndarray
        ``W`` in float64, which holds integer sums exactly below ``2**53``.
    shape : tuple of int
        Of the receivers, without an axis for samples.
    adds_up : bool
        Whether messages are changes that add up (sigma-delta), or the value itself.
    response : Projection, optional
        `projection` as it is between differences
        (`compilers.passes.send_differences.response_graph`), where phases send them.

    Changes add up before the gain, which may round. No array is ever written to, so a shallow copy
    keeps the state.
    """

    def __init__(
        self,
        projection: Projection,
        weight: np.ndarray,
        shape: Shape,
        *,
        adds_up: bool = False,
        response: Projection | None = None,
    ) -> None:
        self.projection, self.weight, self.adds_up = projection, weight, adds_up
        self.response = response or projection
        self._shape = shape
        self.rest(1)

    def rest(self, rows: int, *, difference: bool = False) -> None:
        """Of `rows` samples, nothing is in flight, nothing has added up.

        What comes may be differences.
        """
        self._gained = self.response if difference else self.projection
        self._silence = gain(self._gained, np.zeros((rows, *self._shape)))
        self._flight: tuple[np.ndarray, ...] = ()
        self._total: np.ndarray | float = 0.0
        self.held = self._silence

    def apply(self, message: np.ndarray) -> np.ndarray:
        """Result of the operator before the gain, float64 (batch, *post shape)."""
        x = message.astype(np.float64, copy=False)
        return apply(self.projection.operator, self.weight, x, self._shape)

    def weigh(self, message: np.ndarray) -> np.ndarray:
        """Current of a message that arrives now, (batch, *post shape)."""
        return gain(self._gained, self.apply(message))

    def current(self, message: np.ndarray) -> np.ndarray:
        """Current of this step, as `message` sets out."""
        flight = (*self._flight, message)
        if len(flight) < self.projection.delay:
            self._flight = flight
            return self.held
        arriving, self._flight = flight[0], flight[1:]
        if not arriving.any():
            return self.held if self.adds_up else self._silence
        if not self.adds_up:
            return self.weigh(arriving)
        self._total = self._total + self.apply(arriving)
        self.held = gain(self.projection, self._total)
        return self.held


def operand(graph: Graph, p: Projection) -> np.ndarray:
    """The weight of `p` in float64, its channels shifted by their exponents."""
    weight = graph.arrays[p.weight]
    if p.exponent is not None:
        weight = shift_channels(weight, graph.arrays[p.exponent])
    return np.ascontiguousarray(weight, np.float64)
