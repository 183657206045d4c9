"""The reference as a backend: what it can do, what it checks, what a run would cost on Loihi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compilers.hardware.limits import Violation
from compilers.hardware.word_lengths import HOST_WORDS, inexact
from compilers.ir.graph import Graph
from compilers.program import Program
from ep_neuro.errors import TargetError
from targets.interface.options import Values
from targets.interface.refusals import unrunnable
from targets.interface.simulated_backend import SimulatedBackend

if TYPE_CHECKING:
    from targets.interface.simulator import Simulator


class ReferenceBackend(SimulatedBackend):
    """Executes a graph as `compilers.ir.graph` defines it, in float64 or in exact integers.

    The option ``precision`` says in which numbers a graph in floating point runs: in float32 a
    convolutional one learns two to three times as fast, and its spikes are others as soon as one
    membrane is at its threshold. ``device`` is where torch computes.
    """

    name = "reference"
    differs = True
    summary = "exact execution of a graph in float64 or integers: the oracle"
    bounds = HOST_WORDS
    options: Mapping[str, Any] = {"precision": "float64", "device": "cpu"}
    allowed: Mapping[str, Values] = {"precision": ("float64", "float32"), "device": ("cpu", "cuda")}

    def check(self, graph: Graph) -> Sequence[Violation]:
        """What cannot be stepped through, and integer sums that could leave the exact range."""
        return (*unrunnable(graph), *inexact(graph, self.limits({})))

    def simulator(self, program: Program) -> Simulator:
        """The executor."""
        # Imports torch: whoever asks what targets there are shall not wait for it.
        import torch

        from compilers.execution.engine import Engine
        from targets.interface.graph_simulator import GraphSimulator

        chosen = self.chosen(program.options)
        if chosen["device"] == "cuda" and not torch.cuda.is_available():
            remedy = "compile it with --option device=cpu"
            raise TargetError("target 'reference', device", "torch sees no CUDA GPU", remedy)
        precision = getattr(torch, chosen["precision"])
        return GraphSimulator(program.graph, Engine(program.graph, precision, chosen["device"]))
