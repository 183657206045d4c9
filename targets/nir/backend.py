"""NIR as a backend: what it carries, what it refuses, and an interpreter of what was written."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compilers.artifact import Program, versions
from compilers.ir import Graph
from compilers.limits import HardwareLimits, Quantity, Violation
from compilers.pipeline import Pass
from ep_neuro.errors import TargetError
from targets.base import Availability, CostEstimate, Feature, Options, RunResult
from targets.nir.shapes import matrix_entries
from targets.nominal import estimate_on_loihi

if TYPE_CHECKING:
    from ep_neuro.checkpoint import Model
    from targets.nir.session import NirSession

MATRIX_BYTES = 1 << 30
"""Most bytes that the matrices of one file may take."""


class NirBackend:
    """Writes a graph as NIR, which other tools read, and interprets what it wrote.

    NIR has no clip, no graded event, no soft reset and no phase: they stand in the metadata, which
    the interpreter honours and most other readers ignore.
    """

    name = "nir"
    summary = "NIR exchange files (.nir), with an interpreter of the nodes as they were written"
    tolerance = 1e-5
    suffix = ".nir"
    signature = b"\x89HDF"
    options: Mapping[str, Any] = {}
    unsupported: Mapping[Feature, str] = {
        Feature.FIXED_POINT: "nodes hold real numbers; formats travel in the metadata, unexecuted",
        Feature.LEARNING: "NIR has no learning rule; signs of phases travel in the metadata",
    }

    def available(self) -> Availability:
        """Whether the package nir is installed."""
        if importlib.util.find_spec("nir") is None:
            return Availability(False, "NIR is not installed; `pip install 'nir>=1.0.8'`")
        return Availability(True)

    def limits(self, options: Options) -> HardwareLimits:
        """What the matrices of one file may take, as NIR has no transposed convolution."""
        source = "assumed: a file that readers hold in memory at once"
        return HardwareLimits(self.name, {"matrix_bytes": Quantity(MATRIX_BYTES, "bytes", source)})

    def passes(self, options: Options) -> Sequence[Pass]:
        """None: a graph is written as it is."""
        return ()

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Undirected couplings, no delay, unreached populations, too large feature maps."""
        hasty = [p.name for p in graph.projections if p.delay < 1]
        silent = [p.name for p in graph.neurons if not graph.into(p.name)]
        counts = (
            (len(graph.couplings), "undirected couplings", "run the pass 'expand_couplings'"),
            (len(hasty), "projections without a delay", f"delay {', '.join(hasty)} by 1 step"),
            (len(silent), "populations that nothing reaches", f"connect {', '.join(silent)}"),
        )
        subject = f"graph '{graph.name}'"
        found = [Violation(f"{subject}, {what}", n, 0, how) for n, what, how in counts if n]
        large = self.limits({}).violation(
            "matrix_bytes",
            f"{subject}, its projections as matrices",
            sum(4 * matrix_entries(graph, p) for p in graph.projections),
            "narrow the feature maps: NIR has no transposed convolution to keep them small",
        )
        return (*found, *([] if large is None else [large]))

    def emit(self, graph: Graph) -> Program:
        """The graph itself is the program; `export` writes the file for other tools."""
        return Program(target=self.name, graph=graph, provenance=versions())

    def export(self, program: Program, path: str | Path) -> None:
        """Write `program` as the NIR file `path`.

        Raises
        ------
        TargetError
            If NIR is missing, or the graph breaks a limit.
        ProgramError
            If the disk refuses.
        """
        self._refuse(program.graph)
        from targets.nir.files import save_nir

        save_nir(program.graph, path)

    def read(self, path: str | Path) -> Model:
        """The network in NIR file `path`, whoever wrote it; see `targets.nir.foreign`.

        Raises
        ------
        TargetError
            If NIR is missing.
        ProgramError
            If the file is damaged.
        SpecError
            If it holds no network with an energy.
        """
        self._refuse_absent()
        from targets.nir.foreign import import_nir

        return import_nir(path)

    def open(self, program: Program) -> NirSession:
        """Interpret the NIR nodes that `program` is written as.

        Raises
        ------
        TargetError
            If NIR is missing, or the graph is in integers or breaks a limit.
        """
        self._refuse(program.graph)
        if program.graph.quantised:
            reason = self.unsupported[Feature.FIXED_POINT]
            remedy = "compile without --bits, or run it on 'reference'"
            raise TargetError(f"graph '{program.graph.name}'", reason, remedy)
        from targets.nir.session import NirSession

        return NirSession(program)

    def _refuse_absent(self) -> None:
        state = self.available()
        if not state.available:
            problem, how = state.reason.split("; ", 1)
            raise TargetError(f"target '{self.name}'", problem, how)

    def _refuse(self, graph: Graph) -> None:
        self._refuse_absent()
        for violation in self.check(graph):
            problem = f"{violation.value:g} exceed {violation.limit:g}"
            raise TargetError(violation.subject, problem, violation.remedy)

    def estimate(self, program: Program, result: RunResult) -> CostEstimate:
        """Energy and time on the nominal hardware; see `targets.nominal`."""
        return estimate_on_loihi(program, result)


BACKEND = NirBackend()
