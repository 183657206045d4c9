"""A Python script that builds a quantised graph as a Lava process graph, for Loihi2HwCfg.

One process for each population and each directed projection; the input, which is constant, enters
as a bias that the host computes. The script stands beside ``lava_processes.py`` in the program's
``files`` and reads the program's records and arrays. It shares no code with `targets.lava`, whose
processes follow the phase commands of a session in shared memory: a chip's host has neither.
"""

from __future__ import annotations

from pathlib import Path

from compilers.hardware.limits import Violation
from compilers.ir.graph import Graph

FILES = ("lava_network.py", "lava_processes.py")
"""The script and its processes, the same for every graph; here they end in ``.txt``."""


def unwritable(graph: Graph) -> list[Violation]:
    """What a graph may hold and the script cannot say."""
    found = [
        Violation(f"projection '{p.name}', delay", p.delay, 1, "give every projection one step")
        for p in graph.projections
        if p.delay > 1
    ]
    inputs = len(graph.sources)
    if inputs != 1:
        subject = f"graph '{graph.name}', inputs besides one"
        found.append(Violation(subject, abs(inputs - 1), 0, "give it one Source population"))
    return found


def lava_files() -> dict[str, str]:
    """The script and its processes, by file name; a graph has one input and is quantised."""
    return {name: (Path(__file__).parent / f"{name}.txt").read_text("utf-8") for name in FILES}
