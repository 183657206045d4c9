"""Records of one population, written to shared memory by the process that steps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from targets.lava.runtime.shared_memory import SharedArrays


class PopulationMonitor:
    """Counts events and synaptic operations of one population, and copies probed variables.

    Parameters
    ----------
    shared : SharedArrays
        Where the records go.
    population : str
        Whose they are.
    fanout : ndarray, (neurons,)
        Synapses that an event of each neuron meets.
    probes : sequence of str
        Names of the probed variables.
    """

    def __init__(
        self, shared: SharedArrays, population: str, fanout: np.ndarray, probes: Sequence[str] = ()
    ) -> None:
        self._events = shared["events", population]
        self._synops = shared["synops", population]
        self._saturations: np.ndarray | None = None
        if ("saturations", population) in shared:
            self._saturations = shared["saturations", population]
        self._probes = {name: shared["probe", f"{population}.{name}"] for name in probes}
        # One matrix product yields both counts; in float64 they are exact.
        self._weights = np.stack([np.ones(fanout.size), fanout.ravel()], axis=1)

    def count(self, step: int, message: np.ndarray | None) -> None:
        """Count `message` of all samples, or silence, as what was sent in `step` (from 1)."""
        rows = self._events.shape[1]
        if message is None:
            counts = np.zeros((rows, 2))
        else:
            counts = (message.reshape(rows, -1) != 0).astype(np.float64) @ self._weights
        self._events[step - 1], self._synops[step - 1] = counts.T

    def probe(self, step: int, model: Any) -> None:
        """Copy the probed attributes of `model` after `step`."""
        for name, trace in self._probes.items():
            trace[step - 1] = getattr(model, name).reshape(trace.shape[1:])

    def saturate(self, counts: np.ndarray) -> None:
        """Note how many values of each sample saturated in this phase."""
        if self._saturations is not None:
            self._saturations[:] = counts
