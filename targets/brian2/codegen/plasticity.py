"""Brian2 code of what learns: traces of neurons, and the tag that a rule writes in a synapse."""

from __future__ import annotations

import re
from collections.abc import Mapping

from compilers.ir.graph import Graph, Population, SigmaDelta, Spiking
from compilers.ir.plasticity import Plasticity

LEARN = "learn"
"""Event of all neurons in the last step of a phase that teaches, and the pathway that it takes."""

TEACHES = "gate != 0 and i >= 0"
"""When neurons emit it: all of them at once."""

SPELLED: Mapping[str, str] = {
    "pre": "x_pre",
    "post": "x_post",
    "sign": "gate_post",
    "weight": "w",
}
"""What code calls the names that a tag may read, but for the tag itself."""


def record_of(graph: Graph, weight: str, pre: str, post: str) -> Plasticity | None:
    """How the synapses of `weight` from `pre` to `post` learn; None if they do not.

    A weight in several places has its tag where its forward projection is.
    """
    for record in graph.plasticity:
        if record.weight == weight:
            first = graph.tie(weight)
            return record if (first.pre, first.post) == (pre, post) else None
    return None


def tag_code(record: Plasticity) -> str:
    """The statement that writes a tag: the rule's own, on traces in real units."""
    names = re.compile(rf"\b({'|'.join(SPELLED)})\b")
    return f"tag = {names.sub(lambda found: SPELLED[found.group()], record.rule.tag)}"


def trace_equations(graph: Graph, population: Population) -> list[str]:
    """The trace of neurons, and when it counts."""
    lines = ["x : 1", f"gate = {_gate(graph)} : 1 (shared)"]
    if isinstance(population.dynamics, Spiking):
        lines += ["n : 1", f"weight = {_weight(graph)} : 1 (shared)"]
        lines += [f"window = {_window(graph)} : 1 (shared)"]
    return lines


def trace_code(population: Population) -> str:
    """The statement that writes a trace: what others have been told, in real units."""
    shown = "z"
    if isinstance(population.dynamics, SigmaDelta):
        shown = "sent"
    elif isinstance(population.dynamics, Spiking):
        shown = "n / window"
    readout = population.readout
    return f"x = {float(readout.offset)!r} + {float(readout.gain)!r} * {shown}"


def forgets(graph: Graph, population: Population) -> list[str]:
    """Code at the start of a step: spikes are counted anew in every phase."""
    if not isinstance(population.dynamics, Spiking):
        return []
    begins = " and ".join(f"k != begin_{i}" for i in range(len(graph.phases)))
    return [f"n = int({begins}) * n"]


def _gate(graph: Graph) -> str:
    """Plasticity sign of a phase in its last step, 0 before."""
    return " + ".join(
        f"{float(phase.sign)!r} * int(k == end_{i} - 1)"
        for i, phase in enumerate(graph.phases)
        if phase.sign
    )


def _weight(graph: Graph) -> str:
    """What a spike counts in a trace: a triangle over what counts of a phase that teaches."""
    return " + ".join(
        f"0.5 * (end_{i} - late_{i} + 1 - abs(2 * k + 1 - late_{i} - end_{i}))"
        f" * int(k >= late_{i} and k < end_{i})"
        for i, phase in enumerate(graph.phases)
        if phase.sign
    )


def _window(graph: Graph) -> str:
    """Sum of these weights in a phase that teaches; 1 in any other."""
    terms = [
        f"(window_{i} - 1) * int(k >= begin_{i} and k < end_{i})"
        for i, phase in enumerate(graph.phases)
        if phase.sign
    ]
    return " + ".join(["1", *terms])
