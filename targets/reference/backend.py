"""The reference as a backend: what it can do, what it checks, what a run would cost on Loihi."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compilers.hardware.limits import HardwareLimits, Violation
from compilers.hardware.word_lengths import HOST_WORDS, inexact
from compilers.ir.graph import Graph
from compilers.program import Program
from targets.interface.protocols import Options
from targets.interface.refusals import unrunnable
from targets.interface.simulated_backend import SimulatedBackend

if TYPE_CHECKING:
    from targets.interface.simulator import Simulator


class ReferenceBackend(SimulatedBackend):
    """Executes a graph as `compilers.ir.graph` defines it, in float64 or in exact integers."""

    name = "reference"
    summary = "exact execution of a graph in float64 or integers: the oracle"

    def limits(self, options: Options) -> HardwareLimits:
        """The word lengths within which integer arithmetic is exact."""
        return HardwareLimits(self.name, HOST_WORDS)

    def check(self, graph: Graph) -> Sequence[Violation]:
        """What cannot be stepped through, and integer sums that could leave the exact range."""
        return (*unrunnable(graph), *inexact(graph, self.limits({})))

    def simulator(self, program: Program) -> Simulator:
        """The executor."""
        # Imports torch: whoever asks what targets there are shall not wait for it.
        from targets.interface.graph_simulator import GraphSimulator

        return GraphSimulator(program.graph)
