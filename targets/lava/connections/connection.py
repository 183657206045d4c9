"""One direction of a weight: what a projection does to the messages of its source."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from compilers.execution.constants import SINGLE
from compilers.ir.graph import Graph, Population, Projection, Shape
from compilers.ir.operators import apply, receiving_axis, shift_channels
from targets.lava.connections.arithmetic import gain
from targets.lava.connections.currents import Currents


class Connection:
    """Turns messages into currents: ``gain(op(W, s_pre(t - delay)))``.

    Parameters
    ----------
    projection : Projection
        Operator, gain and delay. One step of delay is the hand-over between the processes;
        `Connection` holds messages back for the others.
    weight : ndarray
        ``W`` in float64, which holds integer sums exactly below ``2**53``; see `load`.
    shape : tuple of int
        Of the receivers, without an axis for samples.
    adds_up : bool
        Whether messages are changes that add up (sigma-delta), or the value itself.
    sparse : Population, optional
        The senders, if few of them spike, or change what they send, and integers are summed.
    response : Projection, optional
        `projection` as it is between differences
        (`compilers.passes.send_differences.response_graph`), where phases send them.

    Changes add up before the gain, which may round. No array of the state is ever written to, so a
    shallow copy keeps it.
    """

    def __init__(
        self,
        projection: Projection,
        weight: np.ndarray,
        shape: Shape,
        *,
        adds_up: bool = False,
        sparse: Population | None = None,
        response: Projection | None = None,
    ) -> None:
        self.projection, self.response = projection, response or projection
        self.adds_up, self._shape = adds_up, shape
        self._currents = None if sparse is None else Currents(projection, sparse, shape)
        self.load(weight)
        self.rest(1)

    def load(self, weight: np.ndarray) -> None:
        """Compute with `weight` from now on."""
        self.weight, self._single = weight, weight.astype(np.float32)
        # Of all that one receiver hears: what no sum of messages up to 1 exceeds.
        receiving = receiving_axis(self.projection.operator)
        others = tuple(axis for axis in range(weight.ndim) if axis != receiving)
        whole = self.projection.rescale is not None
        self._most = float(np.abs(weight).sum(others).max(initial=0)) if whole else np.inf
        if self._currents is not None:
            self._currents.load(weight, self._most)

    def rest(self, rows: int, *, difference: bool = False) -> None:
        """Of `rows` samples, nothing is in flight, nothing has added up.

        What comes may be differences.
        """
        self._gained = self.response if difference else self.projection
        self._total = np.zeros((rows, *self._shape))
        self._silence = gain(self._gained, self._total)
        self._flight: tuple[np.ndarray, ...] = ()
        self.held = self._silence

    def apply(self, message: np.ndarray) -> np.ndarray:
        """Result of the operator before the gain, float64 (batch, *post shape)."""
        return self._summed(message).astype(np.float64, copy=False)

    def _summed(self, message: np.ndarray) -> np.ndarray:
        """Integers whose sums float32 holds exactly are summed in it, which takes half the time."""
        operator, shape = self.projection.operator, self._shape
        if self._most * float(np.abs(message).max(initial=0)) < SINGLE:
            return apply(operator, self._single, message.astype(np.float32), shape)
        return apply(operator, self.weight, message.astype(np.float64, copy=False), shape)

    def weigh(self, message: np.ndarray) -> np.ndarray:
        """Current of a message that arrives now, (batch, *post shape)."""
        return gain(self._gained, self._summed(message))

    def current(self, message: np.ndarray) -> np.ndarray:
        """Current of this step, as `message` sets out."""
        flight = (*self._flight, message)
        if len(flight) < self.projection.delay:
            self._flight = flight
            return self.held
        arriving, self._flight = flight[0], flight[1:]
        if self._currents is not None:
            return self._currents.of(arriving)
        if not arriving.any():
            return self.held if self.adds_up else self._silence
        if not self.adds_up:
            return self.weigh(arriving)
        self._total = self._total + self.apply(arriving)
        self.held = gain(self.projection, self._total)
        return self.held


def repeated(state: Any, count: int) -> Any:
    """A copy of `state`, with all samples of an array or a connection `count` times."""
    if count == 1 or not isinstance(state, np.ndarray | Connection):
        return copy(state)
    if isinstance(state, np.ndarray):
        return np.concatenate([state] * count)
    made = copy(state)
    for name in ("_silence", "_total", "held"):
        setattr(made, name, repeated(getattr(state, name), count))
    made._flight = tuple(repeated(message, count) for message in state._flight)
    return made


def operand(graph: Graph, p: Projection) -> np.ndarray:
    """The weight of `p` in float64, its channels shifted by their exponents."""
    weight = graph.arrays[p.weight]
    if p.exponent is not None:
        weight = shift_channels(weight, graph.arrays[p.exponent])
    return np.ascontiguousarray(weight, np.float64)
