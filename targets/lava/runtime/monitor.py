"""Records of one population, written to shared memory by the process that steps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from targets.lava.runtime.shared_memory import SharedArrays

COUNTS = ("events", "synops", "nonzero_synops")
"""Shared arrays of what is sent, (steps, batch): messages, synapses met, those not of zero."""


class PopulationMonitor:
    """Counts what one population sends and changes, and copies probed variables.

    Parameters
    ----------
    shared : SharedArrays
        Where the records go.
    population : str
        Whose they are.
    fanout : ndarray, (neurons,)
        Synapses that an event of each neuron meets.
    nonzero : ndarray, (neurons,)
        Those whose weight is not zero.
    probes : sequence of str
        Names of the probed variables.
    """

    def __init__(
        self,
        shared: SharedArrays,
        population: str,
        fanout: np.ndarray,
        nonzero: np.ndarray,
        probes: Sequence[str] = (),
    ) -> None:
        self._counts = [shared[kind, population] for kind in COUNTS]
        self._updates = shared["updates", population]
        self._saturations: np.ndarray | None = None
        if ("saturations", population) in shared:
            self._saturations = shared["saturations", population]
        self._probes = {name: shared["probe", f"{population}.{name}"] for name in probes}
        # One matrix product yields all counts; in float64 they are exact.
        columns = [np.ones(fanout.size), fanout.ravel(), nonzero.ravel()]
        self._weights = np.stack(columns, axis=1)

    def count(self, step: int, message: np.ndarray | None) -> None:
        """Count `message` of all samples, or silence, as what was sent in `step` (from 1)."""
        rows = self._updates.shape[1]
        if message is None:
            counts = np.zeros((rows, len(COUNTS)))
        else:
            counts = (message.reshape(rows, -1) != 0).astype(np.float64) @ self._weights
        for record, count in zip(self._counts, counts.T):  # noqa: B905 - Python 3.10, three each
            record[step - 1] = count

    def compare(self, step: int, before: np.ndarray, now: np.ndarray) -> None:
        """Count the membranes that `step` changed."""
        rows = self._updates.shape[1]
        self._updates[step - 1] = (before != now).reshape(rows, -1).sum(1)

    def probe(self, step: int, model: Any) -> None:
        """Copy the probed attributes of `model` after `step`."""
        for name, trace in self._probes.items():
            trace[step - 1] = getattr(model, name).reshape(trace.shape[1:])

    def saturate(self, counts: np.ndarray) -> None:
        """Note how many values of each sample saturated in this phase."""
        if self._saturations is not None:
            self._saturations[:] = counts
