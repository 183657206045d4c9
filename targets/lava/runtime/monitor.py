"""Records of one population, written to shared memory by the process that steps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from targets.lava.runtime.shared_memory import SharedArrays

Records = Callable[[int, int], dict[str, np.ndarray]]
"""From the steps and the samples of a phase to its records, by name."""

COUNTS = ("events", "synops", "nonzero_synops")
"""Records of what is sent, (steps, samples): messages, synapses met, those not of weight zero."""

TOGETHER = 1 << 15
"""Numbers that are counted at once: one call for some steps."""


def is_due(gathered: list[np.ndarray], step: int, steps: int) -> bool:
    """Whether what was gathered since some step is counted after `step`, the last or not."""
    return step == steps or len(gathered) * gathered[-1].size >= TOGETHER


class PopulationMonitor:
    """Counts what one population sends and changes, and copies probed variables.

    Parameters
    ----------
    shared : SharedArrays
        Where saturated values are noted, if they are.
    population : str
        Whose records they are.
    fanout : ndarray, (neurons,)
        Synapses that an event of each neuron meets.
    nonzero : ndarray, (neurons,)
        Those whose weight is not zero.
    records : Records
        Where the others go.
    """

    def __init__(
        self,
        shared: SharedArrays,
        population: str,
        fanout: np.ndarray,
        nonzero: np.ndarray,
        records: Records,
    ) -> None:
        self.population, self._records = population, records
        self._saturations: np.ndarray | None = None
        if ("saturations", population) in shared:
            self._saturations = shared["saturations", population]
        # One matrix product yields all counts; in float64 they are exact.
        columns = [np.ones(fanout.size), fanout.ravel(), nonzero.ravel()]
        self._weights = np.stack(columns, axis=1)

    def begin(self, steps: int, rows: int) -> None:
        """Take the place of the records of a phase; probes may be others than in the last one."""
        self._sent: list[np.ndarray] = []
        self._changed: list[np.ndarray] = []
        found, probe = self._records(steps, rows), f"probe/{self.population}."
        self._counts = [found[f"{kind}/{self.population}"] for kind in COUNTS]
        self._updates = found[f"updates/{self.population}"]
        for record in (*self._counts, self._updates):
            record[:] = 0
        self._probes = {
            name.removeprefix(probe): array
            for name, array in found.items()
            if name.startswith(probe)
        }

    def count(self, step: int, message: np.ndarray, *, last: bool = False) -> None:
        """Count `message` of all samples as what was sent in `step` (from 1), maybe the `last`."""
        steps, rows = self._updates.shape
        self._sent.append((message != 0).reshape(rows, -1))
        if last or is_due(self._sent, step, steps):
            counts = np.stack(self._sent).astype(np.float64) @ self._weights
            ended = slice(step - len(counts), step)
            for kind, record in enumerate(self._counts):
                record[ended] = counts[..., kind]
            self._sent = []

    def compare(self, step: int, before: np.ndarray, now: np.ndarray) -> None:
        """Count the membranes that `step` changed."""
        steps, rows = self._updates.shape
        self._changed.append((before != now).reshape(rows, -1))
        if is_due(self._changed, step, steps):
            self._updates[step - len(self._changed) : step] = np.stack(self._changed).sum(2)
            self._changed = []

    def probe(self, step: int, model: Any) -> None:
        """Copy the probed attributes of `model` after `step`."""
        for name, trace in self._probes.items():
            trace[step - 1] = getattr(model, name).reshape(trace.shape[1:])

    def saturate(self, counts: np.ndarray) -> None:
        """Note how many values of each sample saturated in this phase."""
        if self._saturations is not None:
            self._saturations[: len(counts)] = counts
