"""The cases of the conformance suite: each backend, each encoding, in float and in integers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet

import targets
from compilers import Program, compile_network
from compilers.ir.graph import Encoding, Graph
from compilers.passes.choose_leak import LeakWarning
from ep_neuro.energy.spec import NetworkSpec
from targets.interface.protocols import Backend, Feature, RunResult
from targets.interface.request import variables
from tests.helpers import toy_target
from tests.helpers.problems import random_network

FEATURES: dict[Encoding, Feature] = {
    "graded": Feature.GRADED,
    "sigma-delta": Feature.SIGMA_DELTA,
    "spike": Feature.SPIKE,
}

HALF = 6
"""Steps of the shorter phases of `detour`."""

LONG = 64
"""Steps after which a nudge shows in the outputs of every case."""

QUICK: Mapping[str, Mapping[str, Any]] = {"brian2": {"mode": "runtime"}}
"""Options, by target, that spare a case minutes; without them it is a slow one besides."""


@dataclass(frozen=True)
class Case:
    """A backend with what it is asked to do; `bits` None is floating point."""

    backend: Backend
    code: Encoding
    bits: int | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        number = f"int{self.bits}" if self.bits else "float"
        return "-".join([self.backend.name, self.code, number, *map(str, self.options.values())])

    @property
    def is_the_reference(self) -> bool:
        """Whether it is what the others are held to."""
        return self.backend.name == "reference"

    @property
    def lacking(self) -> str:
        """The backend's own reason why the case cannot run here; empty if it can."""
        state = self.backend.available()
        if not state.available:
            return f"{self.backend.name}: {state.reason}"
        number = [Feature.FIXED_POINT] if self.bits else []
        return self._without(FEATURES[self.code], *number)

    def need(self, *features: Feature) -> None:
        """Skip the test for the backend's own reason if it lacks one of `features`."""
        if reason := self._without(*features):
            pytest.skip(reason)

    def _without(self, *features: Feature) -> str:
        for feature in features:
            if feature in self.backend.unsupported:
                reason = self.backend.unsupported[feature]
                return f"{self.backend.name} has no {feature.value}: {reason}"
        return ""

    def compile(self, spec: NetworkSpec, steps: int = 16, seed: int = 0) -> Program:
        """A program of `spec` with random weights and biases, nudged by 0.5."""
        with warnings.catch_warnings():
            # Random networks need not settle to one point; targets have to agree all the same.
            warnings.simplefilter("ignore", LeakWarning)
            return compile_network(
                random_network(spec, seed),
                self.backend,
                code=self.code,
                bits=self.bits,
                steps=steps,
                beta=0.5,
                options=self.options,
            )

    def run(self, graph: Graph, x: np.ndarray, y: np.ndarray) -> RunResult:
        """Run `graph` with every probe on a session of its own."""
        program = replace(self.backend.emit(graph), options=self.options)
        with self.backend.open(program) as session:
            return session.settle(x, y, probes=every_probe(graph))


def every_probe(graph: Graph) -> list[str]:
    """All variables of all populations."""
    return [f"{p.name}.{v}" for p in graph.populations for v in variables(p)]


def cases() -> list[Case]:
    """Every backend with every encoding in floating point and in 8-bit integers."""
    return [
        Case(backend, code, bits, QUICK.get(backend.name, {}))
        for backend in (*targets.backends(), toy_target.BACKEND)
        for code in FEATURES
        for bits in (None, 8)
    ]


def able(slow: Callable[[Case], bool] = lambda case: False) -> list[ParameterSet]:
    """What can run here, as parameters of a fixture.

    Cases for which `slow` holds are slow ones, and those that `QUICK` spares, with the target's own
    options.
    """
    quick = [(case, slow(case)) for case in cases()]
    spared = [(replace(case, options={}), True) for case in cases() if case.options]
    return [
        pytest.param(case, marks=[pytest.mark.slow] * marked, id=str(case))
        for case, marked in (*quick, *spared)
        if not case.lacking
    ]
