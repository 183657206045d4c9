"""The crossbar as a backend: what it can do, what it refuses, what a run costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from compilers.hardware.limits import HardwareLimits, Violation
from compilers.ir.graph import Graph
from compilers.pipeline import Pass
from compilers.program import Program, versions
from ep_neuro.errors import TargetError
from targets.crossbar.arrays.mapping import array_mappings, map_to_tiles, noted, tile_list
from targets.crossbar.arrays.options import OPTIONS, read_options
from targets.crossbar.cost import estimate, hardware
from targets.interface.protocols import CostEstimate, Feature, Options, RunResult
from targets.interface.refusals import refuse_integers, refuse_unready, unreached, unrunnable
from targets.interface.simulated_backend import SimulatedBackend

if TYPE_CHECKING:
    from targets.crossbar.session import CrossbarSession

TILE_LIST = "tiles.txt"
"""File of a program that lists its arrays."""


class CrossbarBackend(SimulatedBackend):
    """Memristor arrays that compute every drive, with digital neurons around them (aihwkit).

    The array of a coupling is read from the front for its forward projection and from behind for
    its feedback, so both see the same errors. Options, among them ``preset`` (ideal, pcm, reram):
    see `targets.crossbar.arrays.options.Options`.
    """

    name = "crossbar"
    summary = "memristor arrays read in both directions, with device errors (aihwkit)"
    tolerance = 1e-4
    package = "aihwkit"
    how_to_get = (
        "aihwkit is not installed; `pip install 'ep-neuro[crossbar]'`, or "
        "`pip install aihwkit==1.2.0`"
    )
    options: Mapping[str, Any] = OPTIONS
    unsupported: Mapping[Feature, str] = {
        Feature.FIXED_POINT: "conductances are real numbers; its options dac_bits and adc_bits "
        "round what goes in and out",
    }

    def limits(self, options: Options) -> HardwareLimits:
        """Cells that the simulation holds, and constants of energy, each with its source."""
        return hardware()

    def passes(self, options: Options) -> Sequence[Pass]:
        """`map_to_tiles`, which counts the arrays.

        Raises
        ------
        ConfigError
            For an unknown option, or one out of range.
        """
        return (Pass("map_to_tiles", partial(map_to_tiles, options=read_options(options))),)

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Undirected couplings, projections without delay, unreached populations, many cells."""
        options = noted(graph)
        large = hardware().violation(
            "cells",
            f"graph '{graph.name}', its arrays",
            sum(array.cells for array in array_mappings(graph, options)),
            "use shared kernels" if options.conv == "unrolled" else "narrow the network",
        )
        return (*unrunnable(graph), *unreached(graph), *([] if large is None else [large]))

    def emit(self, graph: Graph) -> Program:
        """The graph itself, with the list of its arrays; `TargetError` if it is in integers."""
        refuse_integers(self, graph)
        # It has become plastic since it was mapped, perhaps, and then has more arrays.
        graph = map_to_tiles(graph, noted(graph))
        files = {TILE_LIST: tile_list(graph)}
        notes = {**graph.provenance, **versions()}
        return Program(target=self.name, graph=graph, files=files, provenance=notes)

    def open(self, program: Program) -> CrossbarSession:
        """Program the arrays.

        Raises
        ------
        TargetError
            If aihwkit is missing or cannot be loaded, or the graph is in integers or breaks a
            limit.
        ConfigError
            If an option of the program is unknown or out of range.
        """
        refuse_unready(self, program.graph)
        try:
            from targets.crossbar.session import CrossbarSession
        except (ImportError, OSError) as error:
            problem = f"aihwkit is installed and cannot be loaded ({error})"
            how = "`pip install 'ep-neuro[crossbar]'` brings versions that fit each other"
            raise TargetError(f"target '{self.name}'", problem, how) from error
        return CrossbarSession(program)

    def estimate(self, program: Program, result: RunResult) -> CostEstimate:
        """Energy and time of the free phase; see `targets.crossbar.cost`."""
        return estimate(program, result)


BACKEND = CrossbarBackend()
