"""What messages send, summed in integers: it costs what spikes or changes reach."""

from __future__ import annotations

import numpy as np

from compilers.execution.compiled.graded import changed_currents
from compilers.execution.compiled.sums import MOST_BITS, currents, shortest
from compilers.execution.constants import WORD, Constants
from compilers.execution.reach import by_sender, reach
from compilers.ir.graph import Population, Projection, Shape, Spiking


class Currents:
    """The currents of spikes or of graded messages by one projection with a rescale.

    Parameters
    ----------
    projection : Projection
    pre : Population
        The senders.
    post : tuple of int
        Shape of the receivers, without an axis for samples.
    """

    def __init__(self, projection: Projection, pre: Population, post: Shape) -> None:
        self.projection, self.pre, self.post = projection, pre.shape, post
        self._spikes, self._bound = isinstance(pre.dynamics, Spiking), Constants.whole(pre).bound
        # What was last heard, and its sums, which are true whatever came between.
        self._heard = self._sums = np.zeros((0, 0), np.int64)

    def load(self, weight: np.ndarray, most: float) -> None:
        """Compute with `weight` from now on, of which one receiver hears no more than `most`."""
        operator, rescale = self.projection.operator, self.projection.rescale
        assert rescale is not None
        up, down = max(0, rescale.shift), min(max(0, -rescale.shift), MOST_BITS)
        sent = by_sender(operator, weight, self.pre, self.post)
        sent = np.ascontiguousarray(sent, shortest(np.abs(sent).max(initial=0)))
        to = reach(operator, weight.shape, self.pre, self.post)
        self._constants = (*to, sent, rescale.multiplier << up, down)
        largest = self._bound * most * abs(rescale.multiplier) * 2.0**up + 2.0**down
        self._kind = np.int32 if largest < WORD else np.int64
        self._heard = self._heard[:0]

    def of(self, messages: np.ndarray) -> np.ndarray:
        """The currents (N, *post) of `messages` (N, *pre)."""
        rows, post = len(messages), self.post
        if messages.ndim == 4:
            messages = messages.transpose(0, 2, 3, 1)
        inside = (*post[1:], post[0]) if len(post) == 3 else post
        drive = np.zeros((rows, *inside), self._kind)
        sent, flat = np.ascontiguousarray(messages).reshape(rows, -1), drive.reshape(rows, -1)
        if self._spikes:
            currents(sent, *self._constants, flat)
        else:
            if not len(self._heard):
                self._heard, self._sums = np.zeros_like(sent), np.zeros_like(flat)
            elif len(self._heard) != rows:
                self._heard = np.resize(self._heard, sent.shape)
                self._sums = np.resize(self._sums, flat.shape)
            changed_currents(sent, self._heard, self._sums, *self._constants, flat)
        return drive.transpose(0, 3, 1, 2) if len(post) == 3 else drive
