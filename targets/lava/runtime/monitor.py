"""Records of one population, written to shared memory by the process that steps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays, shares

Records = Callable[[PhaseCommand], dict[str, np.ndarray]]
"""From the command of a phase to its records, by name."""

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

    def begin(self, *phases: PhaseCommand) -> None:
        """Take the place of the records of phases that run side by side.

        Probes may be others than in the last ones.
        """
        self._steps, self._rows = phases[0].steps, sum(phase.rows for phase in phases)
        self._sent: list[np.ndarray] = []
        self._membranes: list[np.ndarray] = []  # one more than the steps not counted yet
        self._places = [
            _Place(self.population, p.slot, rows, self._records(p)) for p, rows in shares(phases)
        ]

    def count(self, step: int, message: np.ndarray, *, last: bool = False) -> None:
        """Count `message` of all samples as what was sent in `step` (from 1), maybe the `last`."""
        self._sent.append(message)
        if last or is_due(self._sent, step, self._steps):
            sent = np.stack(self._sent).reshape(-1, self._rows, len(self._weights)) != 0
            counts = sent.astype(np.float64) @ self._weights
            ended = slice(step - len(counts), step)
            for place in self._places:
                for kind, record in enumerate(place.counts):
                    record[ended] = counts[:, place.rows, kind]
            self._sent = []

    def compare(self, step: int, before: np.ndarray, now: np.ndarray) -> None:
        """Count the membranes that `step` changed."""
        self._membranes = self._membranes or [before]
        self._membranes.append(now)
        if is_due(self._membranes, step, self._steps):
            held = np.stack(self._membranes).reshape(-1, self._rows, len(self._weights))
            changed = (held[1:] != held[:-1]).sum(2)
            for place in self._places:
                place.updates[step - len(changed) : step] = changed[:, place.rows]
            self._membranes = []

    def probe(self, step: int, model: Any) -> None:
        """Copy the probed attributes of `model` after `step`."""
        for place in self._places:
            for name, trace in place.probes.items():
                shown = getattr(model, name).reshape(self._rows, *trace.shape[2:])
                trace[step - 1] = shown[place.rows]

    def saturate(self, counts: np.ndarray) -> None:
        """Note how many values of each sample saturated in this phase."""
        if self._saturations is not None:
            for place in self._places:
                own = counts[place.rows]
                self._saturations[place.slot, : len(own)] = own


class _Place:
    """Where the records of one phase go, and which rows they are of."""

    def __init__(
        self, population: str, slot: int, rows: slice, found: dict[str, np.ndarray]
    ) -> None:
        self.slot, self.rows, probe = slot, rows, f"probe/{population}."
        self.counts = [found[f"{kind}/{population}"] for kind in COUNTS]
        self.updates = found[f"updates/{population}"]
        for record in (*self.counts, self.updates):
            record[:] = 0
        self.probes = {
            name.removeprefix(probe): array
            for name, array in found.items()
            if name.startswith(probe)
        }
