"""The chip-neutral compiler: network -> graph -> passes -> program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compilers.artifact import Program, load_program, save_program
from compilers.ir import Graph
from compilers.ir_text import parse_graph, print_graph
from compilers.pipeline import Emitter, Pass, Trace, common_passes, compile_network, run_passes

if TYPE_CHECKING:
    from ep_neuro.network import Network


def compile(model: Network, target: str | Emitter = "reference", **options: Any) -> Program:
    """Compile `model` for `target`, a backend or the name of one.

    Keywords are those of `compile_network`: ``code``, ``bits``, ``headroom``, ``message_frac``,
    ``state_frac``, ``leak``, ``steps``, ``nudged_steps``, ``beta``, ``parameters``, ``learn``,
    ``options``, ``provenance``, ``observer``, ``check``.
    """
    if isinstance(target, str):
        # The one place where the compiler looks up at the targets, and only when asked by name:
        # users and the command line say "lava", and nobody should need two imports for that.
        import targets

        target = targets.get(target)
    return compile_network(model, target, **options)


__all__ = [
    "Emitter",
    "Graph",
    "Pass",
    "Program",
    "Trace",
    "common_passes",
    "compile",
    "compile_network",
    "load_program",
    "parse_graph",
    "print_graph",
    "run_passes",
    "save_program",
]
