"""Looking at the compiler's work: stages as they come by, programs and graph texts on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compilers.hardware.resources import resources
from compilers.ir.graph import Graph
from compilers.ir.text import parse_graph, print_graph
from compilers.program import MANIFEST, load_program
from ep_neuro.errors import ConfigError

EVERY_STAGE = "all"
"""Stands for the names of all stages."""


class StagePrinter:
    """An observer of the pipeline that prints the graph after one stage, or after every stage."""

    def __init__(self, wanted: str | None, show: Callable[[str], None]) -> None:
        self.wanted, self.show, self.seen = wanted, show, list[str]()

    def __call__(self, name: str, graph: Graph) -> None:
        self.seen.append(name)
        if self.wanted in (name, EVERY_STAGE):
            self.show(f"# after {name}\n{print_graph(graph)}")

    def finish(self) -> None:
        """Raise `ConfigError` if the wanted stage never came."""
        if self.wanted not in (None, EVERY_STAGE, *self.seen):
            raise ConfigError(
                f"--print-after {self.wanted}",
                "no pass of this name ran",
                f"choose from {EVERY_STAGE}, {', '.join(self.seen)}",
            )


def program_facts(path: Path) -> dict[str, Any] | None:
    """What there is to say of the program or the text of a graph at `path`; None if it is neither.

    Raises
    ------
    ProgramError
        If the program is damaged.
    GraphError
        If the text is not that of one graph.
    """
    folder = path.parent if path.is_file() else path
    if (folder / MANIFEST).is_file():
        program = load_program(folder)
        return {
            "kind": "program",
            "target": program.target,
            "resources": resources(program.graph),
            "options": dict(program.options),
            "provenance": dict(program.provenance),
            "graph": print_graph(program.graph),
        }
    if path.suffix != ".txt" or not path.is_file():
        return None
    # The text names its arrays but does not hold them; all other records read without them.
    records = path.read_text("utf-8", "replace").splitlines()
    kept = [line for line in records if not line.startswith(("array(", "#"))]
    return {"kind": "graph", "graph": print_graph(parse_graph("\n".join(kept), {}))}
