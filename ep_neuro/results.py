"""What comparing finds out about a run; the report draws these records as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ep_neuro.errors import DataError


@dataclass(frozen=True)
class NeuroBench:
    """NeuroBench's figures of a run; what was not counted is None.

    Raises
    ------
    DataError
        If a sparsity is above 1.
    """

    footprint: int
    """Bytes of the parameters."""
    connection_sparsity: float
    """Share of zeros among weights, 0 to 1."""
    activation_sparsity: float
    """Share of zeros among messages over all time steps, 0 to 1."""
    effective_macs: float | None
    """Synaptic operations a sample that multiply and add."""
    effective_acs: float | None
    """Synaptic operations a sample that only add."""
    dense: float
    """Synaptic operations a sample if no message and no weight were zero."""
    membrane_updates: float | None
    """Changes of membranes a sample."""
    reason: str | None = None
    """Why something is None."""

    def __post_init__(self) -> None:
        for name in ("connection_sparsity", "activation_sparsity"):
            check_fraction("NeuroBench", name, getattr(self, name))


@dataclass(frozen=True)
class TargetRow:
    """One line of the comparison; a value that was not measured is None.

    Raises
    ------
    DataError
        If accuracy, agreement or unsettled is above 1.
    """

    target: str
    """Where it ran; the torch network is ``torch``."""
    code: str = ""
    """How messages were encoded; of the torch network ``rate``."""
    bits: int | None = None
    """Bits of a weight; None in floating point."""
    steps: int | None = None
    """Steps of the free phase; None where there are none."""
    accuracy: float | None = None
    """Share of correct samples, 0 to 1."""
    agreement: float | None = None
    """Share of samples answered as the torch network does, 0 to 1."""
    events: float | None = None
    """Messages a sample, mean over the free phase."""
    synops: float | None = None
    """Synaptic operations a sample, mean over the free phase."""
    energy_joule: float | None = None
    """Estimated energy a sample on nominal hardware."""
    ms_per_sample: float | None = None
    """Wall time of the simulation a sample, with the start of the target in its first run, the
    longest of a sweep."""
    pareto: bool = False
    """Whether no other line is both as accurate and as cheap in synaptic operations, and better in
    one of the two."""
    unsettled: float | None = None
    """Share of samples that did not settle, 0 to 1: of torch by the residual, of a target's graded
    and sigma-delta messages by what still moves in its last step
    (`compilers.execution.engine.Batch.moving`); None of spikes, of noise, and where a target does
    not tell."""
    neurobench: NeuroBench | None = None
    """The run in NeuroBench's words; None of torch, whose sweeps are not counted."""

    def __post_init__(self) -> None:
        for name in ("accuracy", "agreement", "unsettled"):
            check_fraction(f"row '{self.label}'", name, getattr(self, name))

    @property
    def label(self) -> str:
        """Target and code in one name."""
        return f"{self.target} {self.code}".strip()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the command line's contract; what did not settle by the accuracy."""
        found = asdict(self)
        first = ("target", "code", "bits", "steps", "accuracy", "unsettled")
        return {**{key: found[key] for key in first}, **found}


@dataclass(frozen=True)
class CostEstimate:
    """An estimate of what a run costs on hardware, with where its constants come from."""

    energy_joule: float
    """Energy of one inference (free phase)."""
    seconds: float
    """Time of one inference on the modelled hardware."""
    source: str
    """Origin of the constants."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """`energy_joule` by what it is spent on, in joule; empty where that is not known."""
    memory_bytes: float = 0.0
    """Weights and states that one inference reads and writes."""
    learning_joule: float | None = None
    """Energy of one learning step, all phases and the change of every weight; None where the run
    had no nudged phase, or the hardware does not change weights."""


@dataclass(frozen=True, eq=False)
class LayerError:
    """Distance of one population from its equilibrium in floating point, after each step."""

    population: str
    """Its name."""
    rms: np.ndarray
    """Root mean square of the difference over samples and neurons, relative to that of the
    equilibrium, (T,); NaN where the equilibrium is all zero."""
    worst: np.ndarray
    """Largest difference of any neuron in any sample, (T,), in box heights (in real units without a
    box)."""

    def until(self, steps: int) -> LayerError:
        """The same after the first `steps` steps."""
        return LayerError(self.population, self.rms[:steps], self.worst[:steps])

    def to_dict(self) -> dict[str, Any]:
        """Plain data: where it ended, and every step."""
        return {
            "population": self.population,
            "relative_rms": float(self.rms[-1]),
            "worst": float(self.worst[-1]),
            "relative_rms_by_step": self.rms.tolist(),
            "worst_by_step": self.worst.tolist(),
        }


def check_fraction(subject: str, name: str, value: float | None) -> None:
    """Raise `DataError` if `value` cannot be a fraction."""
    if value is not None and value > 1:
        raise DataError(f"{subject} {name}", f"{value:g} exceeds 1", "give a fraction, not percent")
