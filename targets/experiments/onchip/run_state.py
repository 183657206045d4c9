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
from ep_neuro.report import LearningCurve, plot_learning, save_figure
from ep_neuro.report.plots.learning import plot_agreement, plot_synapses
from ep_neuro.storage.atomic import replace_directory
from ep_neuro.training.metrics import Record, column

MEMORY, PROBES, STATE = "memory.safetensors", "probes.safetensors", "state.json"
LAST = "last"
MARKER = f"{LAST}/{STATE}"
"""File that every run has from its first moment on."""
FIGURES = ("accuracy.svg", "weights.svg", "agreement.svg")

Arrays = dict[str, np.ndarray]


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
    with replace_directory(path, marker=STATE, error=ProgramError) as folder:
        for name, arrays in ((MEMORY, saved.memory), (PROBES, saved.probes)):
            plain = {key: np.asarray(value, order="C") for key, value in arrays.items()}
            (folder / name).write_bytes(safetensors_numpy.save(plain))
        text = json.dumps(saved.facts, indent=1) + "\n"
        (folder / STATE).write_text(text, encoding="utf-8")


def load_state(path: Path) -> RunState | None:
    """Read the state in directory `path`; None if there is none, `ProgramError` if damaged."""
    if not (path / STATE).is_file():
        return None
    try:
        facts = json.loads((path / STATE).read_text(encoding="utf-8"))
        memory, probes = (
            safetensors_numpy.load((path / name).read_bytes()) for name in (MEMORY, PROBES)
        )
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
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
