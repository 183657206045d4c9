"""A backend, but for its simulator: what a target on this computer need not say for itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from compilers.hardware.limits import HardwareLimits, Quantity, Violation
from compilers.ir.graph import Graph
from compilers.pipeline import Pass
from compilers.program import Program, versions
from ep_neuro.results import CostEstimate
from targets.interface.energy import estimate_on, loihi
from targets.interface.options import Values, checked
from targets.interface.protocols import Availability, Backend, Feature, Options, RunResult
from targets.interface.refusals import refuse_unready, unrunnable
from targets.interface.session import Session
from targets.interface.simulator import Simulator, SimulatorSession


class SimulatedBackend(Backend):
    """A graph runs as it is, on a `Simulator`; see `targets.interface.protocols.Backend`.

    A subclass has a `name`, a `summary` and a `simulator`, and overrides what is otherwise: what it
    lacks, which `package` has to be installed and `how_to_get` it, which `bounds` there are, which
    `options` it takes (with their defaults) and what of them is `allowed`.
    """

    tolerance = 0.0
    package, how_to_get = "", ""
    bounds: Mapping[str, Quantity] = {}
    options: Mapping[str, Any] = {}
    allowed: Mapping[str, Values] = {}
    unsupported: Mapping[Feature, str] = {}

    def available(self) -> Availability:
        """Whether `package` is installed."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return Availability(False, self.how_to_get)
        return Availability(True)

    def limits(self, options: Options) -> HardwareLimits:
        """`bounds`."""
        return HardwareLimits(self.name, self.bounds)

    def passes(self, options: Options) -> Sequence[Pass]:
        """None: a graph runs as it is. `ConfigError` if an option is out of range."""
        self.chosen(options)
        return ()

    def chosen(self, options: Options) -> dict[str, Any]:
        """`options` with the defaults of the others; `ConfigError` if one is out of range."""
        return checked(self.name, self.options, options, self.allowed)

    def check(self, graph: Graph) -> Sequence[Violation]:
        """What no simulator can step through."""
        return unrunnable(graph)

    def emit(self, graph: Graph) -> Program:
        """The graph itself is the program."""
        return Program(target=self.name, graph=graph, provenance=versions())

    def open(self, program: Program) -> Session:
        """Load `program`; `TargetError` if it cannot run here."""
        refuse_unready(self, program.graph)
        return SimulatorSession(program, self.simulator(program))

    def simulator(self, program: Program) -> Simulator:
        """What runs `program`."""
        raise NotImplementedError

    def estimate(self, program: Program, result: RunResult) -> CostEstimate:
        """Energy and time on the first Loihi; the time is that of one core that does all of it."""
        return estimate_on(loihi(), program.graph, result)
