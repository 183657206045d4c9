"""send_differences: nudged phases send what differs from the free phase, in a scale of its own."""

from __future__ import annotations

import math
from dataclasses import replace

from compilers.ir.bounds import BOUNDS
from compilers.ir.graph import Graph, Population
from compilers.passes.units import faintness
from ep_neuro.errors import GraphError


def send_differences(graph: Graph) -> Graph:
    """`graph` with phases under a nudge in which populations send differences, louder if fainter.

    A response grows fainter from the output on (`faintness`) and is about as large as the nudge
    there. Populations send it times the power of two that makes up for both, as far as integers
    reach: beyond, a response is too faint for its messages, and nothing there should learn by it.

    Raises
    ------
    GraphError
        If messages are no states: a mean of spikes and a sum of changes differ by their own noise.
    """
    if graph.encoding != "graded":
        problem = f"messages of the code {graph.encoding} are no states, whose difference is small"
        raise GraphError("rule 'difference'", problem, "use the code graded, or another rule")
    beta = max(abs(p.nudge) for p in graph.phases)
    bits = max(0, round(-math.log2(beta))) if beta else 0
    _, most = BOUNDS[Population, "louder"]
    louder = {name: min(faint + bits, most) for name, faint in faintness(graph).items()}
    return replace(
        graph,
        populations=tuple(replace(p, louder=louder.get(p.name, 0)) for p in graph.populations),
        phases=tuple(replace(p, difference=p.nudge != 0) for p in graph.phases),
    )


def response_graph(graph: Graph) -> Graph:
    """What runs in a phase that sends differences: the linear part of `graph`, without its input.

    States are what differs from the free phase, times ``2**louder`` of their population; boxes are
    what the free state of each neuron leaves of its own, and lie outside of the graph.
    """
    louder, neurons = {p.name: p.louder for p in graph.populations}, graph.neurons
    names, projections = {p.name for p in neurons}, []
    for q in (q for q in graph.projections if q.pre in names):
        more, rescale = louder[q.post] - louder[q.pre], q.rescale
        if rescale is not None:
            rescale = replace(rescale, shift=rescale.shift + more)
        projections.append(replace(q, scale=math.ldexp(q.scale, more), rescale=rescale))
    still = tuple(replace(p, box=None, bias=None) for p in neurons)
    return replace(graph, populations=(*graph.sources, *still), projections=tuple(projections))
