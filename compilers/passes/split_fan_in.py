"""split_fan_in: neurons of partial sums where a core has too few input axons for one neuron.

A dense projection ``pre->post`` becomes ``pre->pre_to_post``, a population of partial sums, and
``pre_to_post->post``, which adds them up and applies the gain. What a neuron of `post` hears is the
same number, one step later: the graph computes what it would with one step more of delay on
``pre->post``, in integers to the bit. Partial sums speak when they change, whatever the encoding.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np

from compilers.hardware.limits import HardwareLimits
from compilers.hardware.partial_sums import division
from compilers.hardware.resources import partial_sums
from compilers.ir import graph as ir
from compilers.passes.choose_leak import LeakWarning
from compilers.passes.map_to_cores import input_axons

_RELAY = ir.SigmaDelta(leak=1.0, start=0.0, end=0.0, decay=1.0)
"""Shows its drive at once, and sends each change of it."""


def split_fan_in(graph: ir.Graph, hardware: HardwareLimits) -> ir.Graph:
    """Split the widest dense projections into each population until its neurons fit on cores.

    Parameters
    ----------
    graph : Graph
        With directed projections, quantised if it will be.
    hardware : HardwareLimits
        Of which ``axons_in_per_core`` bounds the neurons that one neuron hears.

    Returns
    -------
    Graph
        A population that cannot be split far enough stays whole, for the mapping to refuse.
    """
    found = graph
    for population in graph.neurons:
        found = _relieved(found, population, hardware)
    _warn_unsettled(found)
    return found


def _warn_unsettled(graph: ir.Graph) -> None:
    # Steps that contract do so with a step more: it turns the drive, and makes none larger.
    lowest = float(graph.provenance.get("spectrum.lowest", 0))
    if graph.split and lowest <= -1:
        names = ", ".join(f"'{name}'" for name in partial_sums(graph))
        warnings.warn(
            f"graph '{graph.name}': sums of {names} are heard a step later, and with an "
            f"eigenvalue of {lowest:.4g} of the recurrent drive it may not settle; "
            "give a smaller leak",
            LeakWarning,
            stacklevel=3,
        )


def _relieved(graph: ir.Graph, post: ir.Population, hardware: HardwareLimits) -> ir.Graph:
    limit, found = hardware.limit("axons_in_per_core"), graph
    for p in sorted(graph.into(post.name), key=lambda p: -graph.population(p.pre).size):
        if sum(input_axons(found, post)) <= limit:
            return found
        divided = division(graph, p, hardware)
        if not isinstance(divided, str):
            found = _split(found, p, *divided)
    return found if sum(input_axons(found, post)) <= limit else graph


def _split(graph: ir.Graph, p: ir.Projection, share: int, sums: ir.FixedPoint | None) -> ir.Graph:
    pre, post = graph.population(p.pre), graph.population(p.post)
    taken = {q.name for q in graph.populations}
    name = f"{p.pre}_to_{p.post}"
    while name in taken:
        name += "_"
    shares = math.ceil(pre.size / share)
    relay = ir.Population(
        name,
        (post.size, shares, 1),
        _RELAY,
        state=sums,
        message=None if sums is None else ir.FixedPoint(sums.bits + 1, 0),
    )
    ones = f"shares/{p.name}"
    first = replace(
        p,
        post=name,
        operator=ir.Partial(p.operator, share),  # type: ignore[arg-type]  # only those are divided
        scale=1.0,
        rescale=None if p.rescale is None else ir.Rescale(1, 0),
    )
    second = replace(p, pre=name, operator=ir.Total(), weight=ones, delay=1, exponent=None)
    kind = graph.arrays[p.weight].dtype
    at, before = graph.populations.index(post), graph.projections.index(p)
    return graph.with_arrays(
        populations=(*graph.populations[:at], relay, *graph.populations[at:]),
        projections=(*graph.projections[:before], first, second, *graph.projections[before + 1 :]),
        arrays={**graph.arrays, ones: np.ones((1, shares), kind)},
    )
