"""Records of one population, written to shared memory by the process that steps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from targets.lava.runtime.shared_memory import SharedArrays

Records = Callable[[int, int], dict[str, np.ndarray]]
"""From the steps and the samples of a phase to its records, by name."""

TOGETHER = 1 << 15
"""Numbers in the messages that are counted at once: one matrix product for some steps."""


class PopulationMonitor:
    """Counts events and synaptic operations of one population, and copies probed variables.

    Parameters
    ----------
    shared : SharedArrays
        Where saturated values are noted, if they are.
    population : str
        Whose records they are.
    fanout : ndarray, (neurons,)
        Synapses that an event of each neuron meets.
    records : Records
        Where the others go.
    """

    def __init__(
        self, shared: SharedArrays, population: str, fanout: np.ndarray, records: Records
    ) -> None:
        self.population, self._records = population, records
        self._saturations: np.ndarray | None = None
        if ("saturations", population) in shared:
            self._saturations = shared["saturations", population]
        # One matrix product yields both counts; in float64 they are exact.
        self._weights = np.stack([np.ones(fanout.size), fanout.ravel()], axis=1)

    def begin(self, steps: int, rows: int) -> None:
        """Take the place of the records of a phase; probes may be others than in the last one."""
        self._sent: list[np.ndarray] = []
        found, probe = self._records(steps, rows), f"probe/{self.population}."
        self._events = found[f"events/{self.population}"]
        self._synops = found[f"synops/{self.population}"]
        self._events[:] = self._synops[:] = 0
        self._probes = {
            name.removeprefix(probe): array
            for name, array in found.items()
            if name.startswith(probe)
        }

    def count(self, step: int, message: np.ndarray, *, last: bool = False) -> None:
        """Count `message` of all samples as what was sent in `step` (from 1), maybe the `last`."""
        steps, rows = self._events.shape
        self._sent.append((message != 0).reshape(rows, -1))
        if last or step == steps or len(self._sent) * message.size >= TOGETHER:
            counts = np.stack(self._sent).astype(np.float64) @ self._weights
            ended = slice(step - len(counts), step)
            self._events[ended], self._synops[ended] = counts[..., 0], counts[..., 1]
            self._sent = []

    def probe(self, step: int, model: Any) -> None:
        """Copy the probed attributes of `model` after `step`."""
        for name, trace in self._probes.items():
            trace[step - 1] = getattr(model, name).reshape(trace.shape[1:])

    def saturate(self, counts: np.ndarray) -> None:
        """Note how many values of each sample saturated in this phase."""
        if self._saturations is not None:
            self._saturations[: len(counts)] = counts
