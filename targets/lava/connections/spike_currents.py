"""What spikes send, summed in integers: it costs what they reach, not what there are weights."""

from __future__ import annotations

import numpy as np

from compilers.execution.compiled.reach import by_sender, reach
from compilers.execution.compiled.spikes import MOST_BITS, currents, shortest
from compilers.execution.constants import WORD
from compilers.ir.graph import Projection, Shape


class SpikeCurrents:
    """The currents of spikes by one projection with a rescale.

    Parameters
    ----------
    projection : Projection
    pre, post : tuple of int
        Shapes of senders and receivers, without an axis for samples.
    """

    def __init__(self, projection: Projection, pre: Shape, post: Shape) -> None:
        self.projection, self.pre, self.post = projection, pre, post

    def load(self, weight: np.ndarray, most: float) -> None:
        """Compute with `weight` from now on, of which one receiver hears no more than `most`."""
        operator, rescale = self.projection.operator, self.projection.rescale
        assert rescale is not None
        up, down = max(0, rescale.shift), min(max(0, -rescale.shift), MOST_BITS)
        sent = by_sender(operator, weight, self.pre, self.post)
        sent = np.ascontiguousarray(sent, shortest(np.abs(sent).max(initial=0)))
        to = reach(operator, weight.shape, self.pre, self.post)
        self._constants = (*to, sent, rescale.multiplier << up, down)
        largest = most * abs(rescale.multiplier) * 2.0**up + 2.0**down
        self._kind = np.int32 if largest < WORD else np.int64

    def of(self, spikes: np.ndarray) -> np.ndarray:
        """The currents (N, *post) of `spikes` (N, *pre)."""
        rows, post = len(spikes), self.post
        if spikes.ndim == 4:
            spikes = spikes.transpose(0, 2, 3, 1)
        inside = (*post[1:], post[0]) if len(post) == 3 else post
        drive = np.zeros((rows, *inside), self._kind)
        sent = np.ascontiguousarray(spikes).reshape(rows, -1)
        currents(sent, *self._constants, drive.reshape(rows, -1))
        return drive.transpose(0, 3, 1, 2) if len(post) == 3 else drive
