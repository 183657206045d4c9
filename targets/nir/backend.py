"""NIR as a backend: what it carries, what it refuses, and an interpreter of what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compilers.hardware.limits import Quantity, Violation
from compilers.ir.graph import Graph
from compilers.pipeline import Pass
from compilers.program import Program
from ep_neuro.errors import ProgramError
from ep_neuro.storage.atomic import refuse_foreign
from targets.interface.options import Values
from targets.interface.protocols import Feature, Options
from targets.interface.refusals import refuse_absent, refuse_first, unreached, unrunnable
from targets.interface.simulated_backend import SimulatedBackend
from targets.nir.kernel_shapes import MATRIX_BYTES, keeps_planes, weight_bytes

if TYPE_CHECKING:
    from ep_neuro.network.checkpoint import Model
    from targets.interface.simulator import Simulator


class NirBackend(SimulatedBackend):
    """Writes a graph as NIR, which other tools read, and interprets what it wrote.

    NIR has no clip, no graded event, no soft reset and no phase: they stand in the metadata, which
    the interpreter honours and most other readers ignore.
    """

    name = "nir"
    summary = "NIR exchange files (.nir), with an interpreter of the nodes as they were written"
    tolerance = 1e-5
    package, how_to_get = "nir", "NIR is not installed; `pip install 'nir>=1.0.8'`"
    suffix = ".nir"
    signature, marker = b"\x89HDF", b"ep-neuro graph"
    bounds: Mapping[str, Quantity] = {
        "matrix_bytes": Quantity(
            MATRIX_BYTES, "bytes", "assumed: a file that readers hold in memory at once"
        )
    }
    options: Mapping[str, Any] = {"reader": None, "samples": 0}
    allowed: Mapping[str, Values] = {"samples": range(1_000_001)}
    unsupported: Mapping[Feature, str] = {
        Feature.FIXED_POINT: "nodes hold real numbers; formats travel in the metadata, unexecuted",
        Feature.LEARNING: "NIR has no learning rule; signs of phases travel in the metadata",
    }

    def passes(self, options: Options) -> Sequence[Pass]:
        """One that warns of what the reader loses, if the file is for one."""
        super().passes(options)
        if options.get("reader") is None:
            return ()
        from targets.nir.readers import reader_of

        reader = reader_of(options["reader"])
        refuse_absent(self)
        from targets.nir.for_reader import fitting

        return (Pass("fit_reader", lambda graph: fitting(graph, reader)),)

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Undirected couplings, no delay, unreached populations, too large feature maps."""
        planes = keeps_planes(graph)
        sizes = {p.name: weight_bytes(graph, p, planes) for p in graph.projections}
        most = max(sizes, key=sizes.__getitem__, default="")
        large = self.limits({}).violation(
            "matrix_bytes",
            f"graph '{graph.name}' as NIR nodes, '{most}' with {sizes.get(most, 0):g} bytes first",
            sum(sizes.values()),
            "narrow its feature maps"
            + ("" if planes else "; square ones stay convolutions, these become matrices"),
        )
        return (*unrunnable(graph), *unreached(graph), *([] if large is None else [large]))

    def export(self, program: Program, path: str | Path) -> None:
        """Write `program` as the NIR file `path`, in nodes of the option ``reader`` if given.

        With the option ``samples`` as many test samples go beside it, as NIRData.

        Raises
        ------
        TargetError
            If NIR is missing, or the graph breaks a limit.
        ProgramError
            If the disk refuses.
        """
        refuse_absent(self)
        refuse_first(self.check(program.graph))
        from targets.nir.files import save_nir

        if count := program.options.get("samples"):
            from targets.nir.samples import save_samples

            refuse_foreign(Path(path), self.marker, ProgramError)
            save_samples(program, count, Path(path).with_suffix(".nirdata"))
        save_nir(program.graph, path, program.options.get("reader"))

    def read(self, path: str | Path) -> Model:
        """The network in NIR file `path`, whoever wrote it; see `targets.nir.importer`.

        Raises
        ------
        TargetError
            If NIR is missing.
        ProgramError
            If the file is damaged.
        SpecError
            If it holds no network with an energy.
        """
        refuse_absent(self)
        from targets.nir.importer import import_nir

        return import_nir(path)

    def simulator(self, program: Program) -> Simulator:
        """The executor of the graph that the NIR nodes of `program` amount to."""
        from compilers.execution.engine import Engine
        from targets.interface.graph_simulator import GraphSimulator
        from targets.nir.as_written import as_written
        from targets.nir.files import nodes_of

        graph = program.graph
        written, maps = as_written(graph, nodes_of(graph, program.options.get("reader")))
        return GraphSimulator(graph, Engine(written, maps=maps))


BACKEND = NirBackend()
