"""The chip-neutral compiler: network -> graph -> passes -> program."""

from __future__ import annotations

from compilers.ir.graph import Graph
from compilers.ir.text import parse_graph, print_graph
from compilers.pipeline import (
    Emitter,
    Lowering,
    Pass,
    Trace,
    common_passes,
    compile,
    compile_network,
    run_passes,
)
from compilers.program import Program, load_program, save_program


def backend_of(target: str | Emitter) -> Emitter:
    """The backend called `target`, or `target` itself; `TargetError` if there is none."""
    if isinstance(target, str):
        # The one place where the compiler looks up at the targets, and only when asked by name:
        # users and the command line say "lava", and nobody should need two imports for that.
        import targets

        return targets.get(target)
    return target


__all__ = [
    "Emitter",
    "Graph",
    "Lowering",
    "Pass",
    "Program",
    "Trace",
    "backend_of",
    "common_passes",
    "compile",
    "compile_network",
    "load_program",
    "parse_graph",
    "print_graph",
    "run_passes",
    "save_program",
]
