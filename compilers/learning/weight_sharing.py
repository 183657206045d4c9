"""Which plastic synapses share one weight: a simulator adds their tags up, and a chip cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compilers.hardware.limits import Violation
from compilers.ir.graph import Dense, Graph
from compilers.learning.synapses import Synapses

FREEZE = "freeze it in Python (make_plastic(graph, only=...))"
"""How to keep a weight from learning."""

REMEDY = f"unshare it (a dense coupling), {FREEZE}, or learn it off chip"
"""What one can do about a weight that a chip cannot learn."""


def shared_plasticity(graph: Graph) -> Sequence[Violation]:
    """Every record whose synapses stand in several places of the plane with one weight; pure.

    On a chip each synapse changes by itself, so the copies of a kernel would drift apart; and a
    bias of a map is one number for all places of a channel.
    """
    found = []
    for index, record in enumerate(graph.plasticity):
        synapses = Synapses(graph, index)
        if isinstance(synapses.operator, Dense):
            continue
        places = math.prod(synapses.post.shape[1:])
        if places > 1:
            what = f"plasticity of '{record.weight}', places that share each value"
            found.append(Violation(what, places, 1, REMEDY))
    return tuple(found)
