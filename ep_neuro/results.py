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

    Attributes
    ----------
    footprint : int
        Bytes of the parameters.
    connection_sparsity, activation_sparsity : float
        Share of zeros among weights, and among messages over all time steps, 0 to 1.
    effective_macs, effective_acs : float or None
        Synaptic operations a sample that multiply and add, and that only add.
    dense : float
        The same if no message and no weight were zero.
    membrane_updates : float or None
        Changes of membranes a sample.
    reason : str or None
        Why something is None.

    Raises
    ------
    DataError
        If a sparsity is above 1.
    """

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    effective_macs: float | None
    effective_acs: float | None
    dense: float
    membrane_updates: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        for name in ("connection_sparsity", "activation_sparsity"):
            check_fraction("NeuroBench", name, getattr(self, name))


@dataclass(frozen=True)
class TargetRow:
    """One line of the comparison; a value that was not measured is None.

    Attributes
    ----------
    target, code : str
        Where it ran and how messages were encoded; the torch network is ``torch``, ``rate``.
    bits : int or None
        Bits of a weight; None in floating point.
    steps : int or None
        Steps of the free phase; None where there are none.
    accuracy, agreement : float or None
        Share of correct samples, and of samples answered as the torch network does, 0 to 1.
    events, synops : float or None
        Messages and synaptic operations a sample, mean over the free phase.
    energy_joule : float or None
        Estimated energy a sample on nominal hardware, joules.
    ms_per_sample : float or None
        Wall time of the simulation a sample, milliseconds, with the start of the target in its
        first run, the longest of a sweep.
    pareto : bool
        Whether no other line is both as accurate and as cheap in synaptic operations, and better
        in one of the two.
    unsettled : float or None
        Share of samples that did not settle, 0 to 1: of torch by the residual, of a target's graded
        and sigma-delta messages by what still moves in its last step
        (`compilers.execution.engine.Batch.moving`); None of spikes, of noise, and where a target
        does not tell.
    neurobench : NeuroBench or None
        The run in NeuroBench's words; None of torch, whose sweeps are not counted.

    Raises
    ------
    DataError
        If accuracy, agreement or unsettled is above 1.
    """

    target: str
    code: str = ""
    bits: int | None = None
    steps: int | None = None
    accuracy: float | None = None
    agreement: float | None = None
    events: float | None = None
    synops: float | None = None
    energy_joule: float | None = None
    ms_per_sample: float | None = None
    pareto: bool = False
    unsettled: float | None = None
    neurobench: NeuroBench | None = None

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
    """An estimate of what a run costs on hardware, with where its constants come from.

    Attributes
    ----------
    energy_joule : float
        Energy of one inference (free phase).
    seconds : float
        Time of one inference on the modelled hardware.
    source : str
        Origin of the constants.
    parts : mapping of str to float
        `energy_joule` by what it is spent on, in joule; empty where that is not known.
    memory_bytes : float
        Weights and states that one inference reads and writes.
    learning_joule : float, optional
        Energy of one learning step, all phases and the change of every weight; None where the run
        had no nudged phase, or the hardware does not change weights.
    """

    energy_joule: float
    seconds: float
    source: str
    parts: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: float = 0.0
    learning_joule: float | None = None


@dataclass(frozen=True, eq=False)
class LayerError:
    """Distance of one population from its equilibrium in floating point, after each step.

    Attributes
    ----------
    population : str
        Its name.
    rms : ndarray, (T,)
        Root mean square of the difference over samples and neurons, relative to that of the
        equilibrium; NaN where the equilibrium is all zero.
    worst : ndarray, (T,)
        Largest difference of any neuron in any sample, in box heights (real units without a box).
    """

    population: str
    rms: np.ndarray
    worst: np.ndarray

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
