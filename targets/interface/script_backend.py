"""Targets that write a graph as a script of another simulator, and its arrays beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compilers.ir.graph import Graph
from compilers.program import Program
from ep_neuro.errors import ProgramError
from ep_neuro.storage.atomic import refuse_foreign, write_file
from targets.interface.refusals import refuse_first, refuse_integers
from targets.interface.simulated_backend import SimulatedBackend


class ScriptBackend(SimulatedBackend):
    """A subclass has `script_name`, a marker of each file, and what stands in both."""

    marker: bytes
    array_marker: bytes
    script_name: str

    def script(self, graph: Graph, *names: str) -> str:
        """The script; `names` are its own and that of the arrays, where they are not the usual."""
        raise NotImplementedError

    def arrays(self, graph: Graph) -> bytes:
        """The file of arrays that it reads."""
        raise NotImplementedError

    def emit(self, graph: Graph) -> Program:
        """The graph, and the script of it; a graph that breaks a limit has none.

        Raises
        ------
        TargetError
            If the graph is in integers.
        """
        refuse_integers(self, graph)
        files = {} if self.check(graph) else {self.script_name: self.script(graph)}
        return replace(super().emit(graph), files=files)

    def export(self, program: Program, path: str | Path) -> None:
        """Write the script of `program` as `path`, and its arrays beside it, as .npz.

        Raises
        ------
        TargetError
            If the graph is in integers or breaks a limit.
        ProgramError
            If the disk refuses, or files that we did not write stand there.
        """
        refuse_integers(self, program.graph)
        refuse_first(self.check(program.graph))
        path = Path(path)
        arrays = path.with_suffix(".npz")
        text = self.script(program.graph, path.name, arrays.name)
        refuse_foreign(path, self.marker, ProgramError)
        write_file(arrays, self.arrays(program.graph), ProgramError, marker=self.array_marker)
        write_file(path, text.encode(), ProgramError, marker=self.marker)
