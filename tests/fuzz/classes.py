"""Every class of input, and the search for inputs that are taken badly."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.fuzz.binaries import image_folders, nir_files, npz_files
from tests.fuzz.case import Case
from tests.fuzz.folders import models, programs
from tests.fuzz.supervisor import Supervisor
from tests.fuzz.texts import configs, specs, words

CLASSES: Mapping[str, SearchStrategy[Case]] = {
    "specs": specs(),
    "configs": configs(),
    "models": models(),
    "programs": programs(),
    "nir": nir_files(),
    "npz": npz_files(),
    "images": image_folders(),
    "words": words(),
}

ROUND = 100
"""Inputs that are drawn at once, each round by a seed of its own: a search can end after any."""


@dataclass
class Search:
    """Inputs of one class that were tried, and each fault with the first input that showed it."""

    tried: int = 0
    seconds: float = 0.0
    answered: int = 0
    faults: dict[str, tuple[int, Case]] = field(default_factory=dict)

    def note(self, fault: str, case: Case) -> None:
        count, first = self.faults.get(fault, (0, case))
        self.faults[fault] = (count + 1, first)


def search(
    name: str,
    inputs: int,
    supervisor: Supervisor,
    *,
    seconds: float = float("inf"),
    seed: int = 0,
    told: Callable[[Search], None] = lambda _: None,
) -> Search:
    """Try `inputs` of class `name`, or those that `seconds` allow; never stop at a fault."""
    found, started = Search(), time.monotonic()

    def attempt(case: Case) -> None:
        found.seconds = time.monotonic() - started
        if found.tried >= inputs or found.seconds > seconds:
            return
        fault = supervisor.fault(case)
        found.tried += 1
        found.answered += supervisor.answered
        if fault is not None:
            found.note(fault, case)
        told(found)

    rounds = itertools.count(seed * 100_003)
    while found.tried < inputs and found.seconds <= seconds:
        _round(name, min(ROUND, inputs - found.tried), next(rounds), attempt)
    return found


def _round(name: str, inputs: int, seed: int, attempt: Callable[[Case], None]) -> None:
    settled = settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.seed(seed)(settled(given(CLASSES[name])(attempt)))()
