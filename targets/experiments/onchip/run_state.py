"""A learning run on disk: everything to go on from, written whole or not at all; its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from ep_neuro.errors import ProgramError
from ep_neuro.network.checkpoint import joint_digest
from ep_neuro.report import LearningCurve, plot_learning, save_figure
from ep_neuro.report.plots.learning import plot_agreement, plot_synapses
from ep_neuro.storage.atomic import replace_directory
from ep_neuro.training.metrics import Record, column

MEMORY, PROBES, STATE = "memory.safetensors", "probes.safetensors", "state.json"
LAST, SHA256 = "last", "sha256"
MARKER = f"{LAST}/{STATE}"
"""File that every run has from its first moment on."""
FIGURES = ("accuracy.svg", "weights.svg", "agreement.svg")

Arrays = dict[str, np.ndarray]

_UNREADABLE = (ValueError, TypeError, AttributeError, RecursionError, SafetensorError)


@dataclass(frozen=True, eq=False)
class RunState:
    """The state of a learning run.

    What the session remembers (weights, biases, tags, number of commits); the watched synapses of
    each weight at each of K points so far, (K, ...) in real units; settings and history as JSON.
    """

    memory: Arrays
    probes: Arrays
    facts: dict[str, Any]


def beside(place: Path, ending: str) -> Path:
    """The sibling of `place` that is called so with an `ending`; also of ``.``, ``..``, ``/``."""
    whole = place if place.name not in ("", "..") else place.resolve()
    return whole.parent / f"{whole.name}{ending}"


def save_state(saved: RunState, path: Path) -> None:
    """Write `saved` as the directory `path`, in place of an older one.

    Raises
    ------
    ProgramError
        If `path` holds anything else, or the disk refuses.
    """
    packed = {MEMORY: _packed(saved.memory), PROBES: _packed(saved.probes)}
    facts = {**saved.facts, SHA256: joint_digest(saved.facts, *packed.values())}
    with replace_directory(path, marker=STATE, error=ProgramError) as folder:
        for name, content in packed.items():
            (folder / name).write_bytes(content)
        (folder / STATE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    plain = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    return safetensors_numpy.save(plain)


def load_state(path: Path) -> RunState | None:
    """Read the state in directory `path`; None if there is none, `ProgramError` if damaged."""
    if not (path / STATE).is_file():
        return None
    try:
        facts = json.loads((path / STATE).read_text(encoding="utf-8"))
        packed = [(path / name).read_bytes() for name in (MEMORY, PROBES)]
        noted = facts.pop(SHA256, None)
        if noted not in (None, joint_digest(facts, *packed)):
            raise ValueError("it does not fit its sha256")
        memory, probes = map(safetensors_numpy.load, packed)
    except (OSError, *_UNREADABLE) as error:
        remedy = "restore it, or learn again without --resume"
        raise ProgramError(str(path), f"is damaged ({error})", remedy) from None
    return RunState(memory, probes, facts)


def draw(
    title: str, history: Sequence[Record], probes: Mapping[str, np.ndarray], folder: Path
) -> list[Path]:
    """Draw accuracy, synapses and agreement into `folder`; the files that came of it."""
    weights = {name.removeprefix("weight/"): seen for name, seen in probes.items()}
    learnt = [record for record in history if record["samples"] > 0]
    compared = (column(learnt, key) for key in ("compared_from", "sign_agreement", "cosine"))
    drawn = (
        plot_learning(accuracy_curve(title, history)),
        plot_synapses(column(history, "samples"), weights),
        plot_agreement(*compared),
    )
    return [save_figure(figure, folder / name) for figure, name in zip(drawn, FIGURES, strict=True)]


def accuracy_curve(
    title: str, history: Sequence[Record], levels: Mapping[str, float] | None = None
) -> LearningCurve:
    """Accuracy by samples seen; each of `levels` is a horizontal line beside it.

    ``while learning`` is over the samples since the point before, each answered before it was
    learnt, and so has no value at the first point.
    """
    at = column(history, "samples")
    curves = {
        "held out": column(history, "val_accuracy"),
        "while learning": column(history, "running_accuracy"),
    }
    flat = {name: np.full(len(at), level) for name, level in (levels or {}).items()}
    return LearningCurve(title, at, "samples", accuracy={**curves, **flat})
