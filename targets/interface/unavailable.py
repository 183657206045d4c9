"""A target whose module cannot be imported: it stays visible, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ep_neuro.errors import TargetError
from targets.interface.protocols import Availability, Backend, Feature


class UnavailableBackend(Backend):
    """Stands in for a target that failed to load; every use raises `TargetError`."""

    tolerance = 0.0

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        self.name = name
        self.summary = "could not be loaded"
        self._problem, self._remedy = problem, remedy
        self.unsupported: Mapping[Feature, str] = dict.fromkeys(Feature, problem)

    def available(self) -> Availability:
        """Never; the reason is the failure of the import."""
        return Availability(False, f"{self._problem}; {self._remedy}")

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TargetError(f"target '{self.name}'", self._problem, self._remedy)

    limits = passes = check = emit = open = estimate = _refuse
