"""The reference as a backend: what it can do, what it checks, what a run would cost on Loihi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compilers.artifact import Program, versions
from compilers.exactness import HOST_WORDS, inexact
from compilers.ir import Graph
from compilers.limits import HardwareLimits, Violation
from compilers.pipeline import Pass
from ep_neuro.errors import TargetError
from targets.base import Availability, CostEstimate, Feature, Options, RunResult
from targets.nominal import estimate_on_loihi

if TYPE_CHECKING:
    from targets.reference.session import ReferenceSession


class ReferenceBackend:
    """Executes a graph as `compilers.ir` defines it, in float64 or in exact integers."""

    name = "reference"
    summary = "exact execution of a graph in float64 or integers: the oracle"
    tolerance = 0.0
    options: Mapping[str, Any] = {}
    unsupported: Mapping[Feature, str] = {}

    def available(self) -> Availability:
        """Always."""
        return Availability(True)

    def limits(self, options: Options) -> HardwareLimits:
        """The word lengths within which integer arithmetic is exact."""
        return HardwareLimits(self.name, HOST_WORDS)

    def passes(self, options: Options) -> Sequence[Pass]:
        """None: a graph runs as it is."""
        return ()

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Every projection whose integer sums could leave the exact range."""
        return inexact(graph, self.limits({}))

    def emit(self, graph: Graph) -> Program:
        """The graph itself is the program."""
        return Program(target=self.name, graph=graph, provenance=versions())

    def open(self, program: Program) -> ReferenceSession:
        """Load `program`.

        Raises
        ------
        TargetError
            If the graph still has undirected couplings, or its integers could overflow.
        """
        graph = program.graph
        if graph.couplings:
            problem = f"{len(graph.couplings)} couplings are not directed projections yet"
            raise TargetError(f"graph '{graph.name}'", problem, "run the pass 'expand_couplings'")
        violations = self.check(graph)
        if violations:
            first = violations[0]
            problem = f"{first.value:g} {first.unit} exceed {first.limit:g}"
            more = f" ({len(violations)} violations in all)" if len(violations) > 1 else ""
            raise TargetError(first.subject, problem + more, first.remedy)
        # Imports torch: whoever asks what targets there are shall not wait for it.
        from targets.reference.session import ReferenceSession

        return ReferenceSession(program)

    def estimate(self, program: Program, result: RunResult) -> CostEstimate:
        """Energy and time on the nominal hardware; see `targets.nominal`."""
        return estimate_on_loihi(program, result)
