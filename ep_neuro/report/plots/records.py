"""What a report is made of: frozen records of plain rows and arrays, each part optional.

Whatever NumPy takes for an array may be given as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ep_neuro.errors import DataError
from ep_neuro.results import CostEstimate, LayerError, TargetRow, check_fraction


@dataclass(frozen=True)
class RunInfo:
    """What was run, and how to run it again."""

    model: str
    """Name of the network."""
    test_accuracy: float | None = None
    """Share of correct test samples, 0 to 1."""
    data: str = ""
    """Name of the data set."""
    samples: int | None = None
    """Number of samples behind every figure."""
    steps: str = ""
    """Simulated steps in words."""
    seed: int | None = None
    """Of the run."""
    date: str = ""
    """Time of the run."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """By package."""
    commands: Sequence[str] = ()
    """Shell commands that reproduce the page."""
    details: Mapping[str, str] = field(default_factory=dict)
    """Any further facts in words, by their name."""

    def __post_init__(self) -> None:
        check_fraction("run", "test_accuracy", self.test_accuracy)


@dataclass(frozen=True, eq=False)
class SettlingCurve:
    """How one phase settled."""

    phase: str
    """Its name: ``free``, ``nudged +``."""
    residual: np.ndarray = field(default_factory=lambda: np.empty(0))
    energy: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Residual and energy after each sweep, (sweeps,); either may be empty."""
    start: int = 0
    """Sweeps that ran before this phase began."""

    def __post_init__(self) -> None:
        for name in ("residual", "energy"):
            _keep(self, f"settling '{self.phase}'", name)


def above_the_lowest(curves: Sequence[SettlingCurve]) -> list[SettlingCurve]:
    """The same with energies counted from the lowest of all.

    In units energies can be of 1e24 and more: beside that, their fall is no digit of a tick.
    """
    finite = [e[np.isfinite(e)] for e in (curve.energy for curve in curves)]
    lowest = min((e.min() for e in finite if e.size), default=0.0)
    return [replace(curve, energy=curve.energy - lowest) for curve in curves]


@dataclass(frozen=True, eq=False)
class EncodingActivity:
    """What one encoding sends."""

    code: str
    """Name of the encoding."""
    events: Mapping[str, np.ndarray]
    """Events at each step by population, mean over samples, (T,)."""
    messages: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Messages of the chosen sample by population, (T, *shape); non-zero is an event."""

    def __post_init__(self) -> None:
        subject = f"activity '{self.code}'"
        _keep(self, subject, "events")
        rasters = {k: np.asarray(v) for k, v in self.messages.items()}
        for name, raster in rasters.items():
            if raster.ndim < 2:
                raise DataError(
                    f"{subject} messages '{name}'",
                    f"shape {raster.shape} has no neurons",
                    "give (steps, *population shape)",
                )
        rasters = {k: r.reshape(len(r), -1) for k, r in rasters.items()}
        _check_equal(f"{subject} messages", [(k, len(r)) for k, r in rasters.items()])
        object.__setattr__(self, "messages", rasters)

    @property
    def totals(self) -> dict[str, float]:
        """Events a sample by population."""
        return {name: float(values.sum()) for name, values in self.events.items()}


@dataclass(frozen=True, eq=False)
class Activity:
    """Events and spike rasters of each encoding, and the sample that the rasters show.

    ``image`` is (height, width) or (channels, height, width), 0 to 1.
    """

    encodings: Sequence[EncodingActivity]
    image: np.ndarray | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.image is not None:
            object.__setattr__(self, "image", _image("activity image", self.image))

    @property
    def populations(self) -> list[str]:
        """All that send in any encoding."""
        return list(dict.fromkeys(name for one in self.encodings for name in one.events))


@dataclass(frozen=True, eq=False)
class Tradeoff:
    """Accuracy against events of one encoding, read after growing numbers of steps."""

    code: str
    """Name of the encoding."""
    steps: np.ndarray
    """Steps run, (K,)."""
    events: np.ndarray
    """Events a sample so far, (K,)."""
    accuracy: np.ndarray
    """Share of correct samples, 0 to 1, (K,)."""
    samples: int = 0
    """Samples that were settled; 0: not said."""

    def __post_init__(self) -> None:
        subject = f"trade-off '{self.code}'"
        _keep(self, subject, "steps", "events", "accuracy")
        check_fraction(subject, "accuracy", self.accuracy.max(initial=0.0))


@dataclass(frozen=True, eq=False)
class Answers:
    """What each encoding answered, sample by sample."""

    images: np.ndarray
    """The samples, 0 to 1, (N, height, width) or (N, channels, height, width)."""
    labels: np.ndarray
    """True classes, (N,)."""
    answers: Mapping[str, np.ndarray]
    """Classes answered, (N,), by encoding (or target and encoding)."""
    classes: Sequence[str] = ()
    """Names of the classes; their numbers when empty."""

    def __post_init__(self) -> None:
        given = {k: np.asarray(v, dtype=int) for k, v in self.answers.items()}
        object.__setattr__(self, "images", np.asarray(self.images, dtype=float))
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=int))
        object.__setattr__(self, "answers", given)
        if len(self.images):
            _image("answers image", self.images[0])
        parts = {"images": self.images, "labels": self.labels, **given}
        _check_equal("answers", [(k, len(v)) for k, v in parts.items()])

    @property
    def disagreements(self) -> np.ndarray:
        """Indices of samples that not all encodings answer alike."""
        if len(self.answers) < 2:
            return np.array([], dtype=int)
        table = np.stack(list(self.answers.values()))
        return np.flatnonzero((table != table[0]).any(axis=0))

    def class_name(self, index: int) -> str:
        """Name of class `index`."""
        return str(self.classes[index]) if 0 <= index < len(self.classes) else str(index)


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Accuracy and loss while learning, by epoch in training or by sample on a chip."""

    title: str
    """What learned."""
    at: np.ndarray
    """Epochs or samples seen, (K,)."""
    unit: str = "epochs"
    """What `at` counts, in the plural."""
    accuracy: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Curves (K,) by name (``training``, ``validation``), 0 to 1."""
    loss: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Curves (K,) by name."""

    def __post_init__(self) -> None:
        subject = f"learning curve '{self.title}'"
        _keep(self, subject, "at", "accuracy", "loss")
        for name, values in self.accuracy.items():
            check_fraction(subject, name, values.max(initial=0.0))


@dataclass(frozen=True, eq=False)
class GradientTruth:
    """How near the gradient of a training run was to the exact one, and by how many sweeps."""

    at: np.ndarray
    """Epochs, (K,)."""
    cosine: np.ndarray
    """Least cosine to the implicit gradient in each epoch, over all parameters, (K,); NaN where it
    was not measured."""
    worst: np.ndarray
    """The same of the worst weight, (K,)."""
    free: np.ndarray
    """Sweeps of the free phase, mean over the steps of the epoch, (K,)."""
    nudged: np.ndarray
    """The same of the nudged phases, (K,)."""
    asked: float | None = None
    """Cosine that the run was told to keep; None: none."""

    def __post_init__(self) -> None:
        names = ("at", "cosine", "worst", "free", "nudged")
        _keep(self, "gradient truth", *names)
        for name in names[1:]:
            if not np.isfinite(getattr(self, name)).any():
                raise DataError(
                    f"gradient truth {name}", "has no value", "give one epoch that measured it"
                )


Departures = Sequence[tuple[TargetRow, Sequence[LayerError]]]
"""How far each population of a run is from equilibrium, in order of depth."""


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything a page can show; a part that is empty leaves its section out.

    `sweeps` names the columns of `rows` that were swept: ``steps``, ``bits``; `costs` is what
    the run of a row is estimated to cost.
    """

    run: RunInfo
    rows: Sequence[TargetRow] = ()
    sweeps: Sequence[str] = ()
    costs: Sequence[tuple[TargetRow, CostEstimate]] = ()
    departures: Departures = ()
    settling: Sequence[SettlingCurve] = ()
    activity: Activity | None = None
    tradeoffs: Sequence[Tradeoff] = ()
    answers: Answers | None = None
    learning: Sequence[LearningCurve] = ()
    truth: GradientTruth | None = None
    notes: Sequence[str] = ()


def _curve(subject: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1:
        raise DataError(subject, f"shape {array.shape} is not a curve", "give a 1-D sequence")
    return array


def _keep(record: Any, subject: str, *names: str) -> None:
    """Keep fields of `record` as arrays: curves, or mappings of curves, all of one length."""
    lengths = []
    for name in names:
        given = getattr(record, name)
        if isinstance(given, Mapping):
            kept: Any = {k: _curve(f"{subject} {name} '{k}'", v) for k, v in given.items()}
            lengths += [(k, len(curve)) for k, curve in kept.items()]
        else:
            kept = _curve(f"{subject} {name}", given)
            lengths.append((name, len(kept)))
        object.__setattr__(record, name, kept)
    _check_equal(subject, lengths)


def _image(subject: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] not in (1, 3)):
        raise DataError(
            subject, f"shape {array.shape} is not an image", "give (H, W), (1, H, W) or (3, H, W)"
        )
    return array


def _check_equal(subject: str, lengths: Sequence[tuple[str, int]]) -> None:
    if len({length for _, length in lengths}) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths)
        raise DataError(subject, f"lengths differ ({told})", "give one value for each point")
