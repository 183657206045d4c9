"""What a target is, and the records that it exchanges with its callers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from compilers.hardware.limits import HardwareLimits
from compilers.pipeline import Emitter
from compilers.program import Program
from ep_neuro.results import CostEstimate

if TYPE_CHECKING:
    from targets.interface.session import Session

Options = Mapping[str, Any]
Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


class Feature(enum.Enum):
    """What a target may or may not be able to do."""

    GRADED = "graded"
    SIGMA_DELTA = "sigma-delta"
    SPIKE = "spike"
    FIXED_POINT = "fixed point"
    NUDGED_PHASE = "nudged phase"
    PROBES = "probes"
    LEARNING = "learning"


@dataclass(frozen=True)
class Availability:
    """Whether a target can run here; if not, `reason` says what is missing and how to get it.

    Of one that can, `reason` may say what to know before one relies on it.
    """

    available: bool
    reason: str = ""


@dataclass(frozen=True)
class PhaseResult:
    """What one phase did, for N samples over T steps."""

    outputs: np.ndarray
    """Readout of the output population in real units, (N, *output shape)."""
    events: Mapping[str, np.ndarray]
    """Messages sent, (T, N), by population."""
    synops: Mapping[str, np.ndarray]
    """Synaptic operations that those messages caused, (T, N), by sending population."""
    probes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Probed variables, (T, N, *shape), keyed ``"population.variable"``; graph units (integers if
    quantised). Variables: ``v`` (membrane), ``z`` (clipped state), ``message``, and ``u`` (filtered
    current) of spiking populations; ``z`` of a spiking population does not exist."""
    saturations: Mapping[str, int] = field(default_factory=dict)
    """Values that met the end of their number format, by population; empty in floating point."""
    nonzero_synops: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of all steps the synaptic operations whose weight is not zero, (N,), by sending population;
    empty where a target does not tell, as the next one, and where weights may have been learnt."""
    updates: Mapping[str, np.ndarray] = field(default_factory=dict)
    """How often a membrane changed after the first step, (N,), by population; of a first phase,
    where it was asked for."""
    unsettled: np.ndarray | None = None
    """Samples of which a state still moved at the end of a free phase, by more than a message step
    (`compilers.execution.engine.Batch.moving`), bool (N,). None where it was not watched, and of
    spikes: neurons that spike are never at rest, and one rate of so few steps tells no trend."""

    @classmethod
    def joined(cls, parts: Sequence[PhaseResult]) -> PhaseResult:
        """The result of the samples of all `parts`, one after another."""

        def by_name(record: str, samples: int = 1) -> dict[str, np.ndarray]:
            records = [getattr(part, record) for part in parts]
            return {n: np.concatenate([r[n] for r in records], samples) for n in records[0]}

        unsettled = [part.unsettled for part in parts if part.unsettled is not None]
        return cls(
            outputs=np.concatenate([part.outputs for part in parts]),
            events=by_name("events"),
            synops=by_name("synops"),
            probes=by_name("probes"),
            saturations={
                name: sum(part.saturations[name] for part in parts) for name in parts[0].saturations
            },
            nonzero_synops=by_name("nonzero_synops", samples=0),
            updates=by_name("updates", samples=0),
            unsettled=np.concatenate(unsettled) if len(unsettled) == len(parts) else None,
        )


@dataclass(frozen=True)
class RunResult:
    """Phases by name, in the order they ran; `seconds` is the wall time of all samples."""

    phases: Mapping[str, PhaseResult]
    seconds: float

    @property
    def free(self) -> PhaseResult:
        """The first phase."""
        return next(iter(self.phases.values()))

    @property
    def predictions(self) -> np.ndarray:
        """Class with the largest output after the free phase, (N,)."""
        return self.free.outputs.reshape(len(self.free.outputs), -1).argmax(1)

    def accuracy(self, y: np.ndarray) -> float:
        """Share of the samples that are answered as their labels `y` say, (N,)."""
        return float((self.predictions == y).mean())

    @property
    def unsettled(self) -> float | None:
        """Share of the samples that did not settle in the free phase; None if that is not known."""
        found = self.free.unsettled
        return None if found is None else float(found.mean())

    @property
    def events_per_sample(self) -> float:
        """Messages of the free phase, all populations, mean over samples."""
        return float(np.mean(sum(e.sum(0) for e in self.free.events.values())))

    @property
    def synops_per_sample(self) -> float:
        """Synaptic operations of the free phase, all populations, mean over samples."""
        return float(np.mean(sum(e.sum(0) for e in self.free.synops.values())))


@dataclass(frozen=True)
class LearnResult:
    """What N samples taught, in the order in which they came."""

    predictions: np.ndarray
    """Class with the largest output of the free phase, before the sample changed anything, (N,)."""
    commits: int
    """How often the weights changed."""
    events_per_sample: float
    """Messages of all phases, mean over samples."""
    synops_per_sample: float
    """Synaptic operations of all phases, mean over samples."""
    changed: float
    """Mean |change| of a weight at a commit, in real units."""
    clipped: int
    """Integer weights and tags that met the end of their range at a commit."""
    seconds: float
    """Wall time."""


@runtime_checkable
class Backend(Emitter, Protocol):
    """One target. A module or package of `targets` that holds a ``BACKEND`` is discovered.

    ``tolerance`` is the largest difference to the reference in any probed state at any step;
    ``unsupported`` maps each `Feature` that the target lacks to the reason. A target that takes
    options has them in a mapping ``options``, by name with their defaults; the compiler refuses
    any other. One with a method ``export`` writes files of another tool where a name ends in its
    ``suffix``; ``marker`` is in each of them, and a file without it is not written over.
    """

    summary: str
    suffix: str = ""
    marker: bytes = b""
    tolerance: float
    differs: bool = False
    unsupported: Mapping[Feature, str]

    def available(self) -> Availability:
        """Whether it can run here, and if not, what is missing and how to get it."""
        ...

    def limits(self, options: Options) -> HardwareLimits:
        """The hardware's limits, each with its source."""
        ...

    def open(self, program: Program) -> Session:
        """Load `program`; `TargetError` if the target is unavailable or lacks a feature."""
        ...

    def estimate(self, program: Program, result: RunResult) -> CostEstimate:
        """Energy and time of one inference, estimated from the events of `result`."""
        ...
