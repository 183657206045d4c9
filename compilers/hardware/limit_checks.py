"""Whether a placed graph fits its machine: every limit that it breaks, each with a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from compilers.hardware.limits import HardwareLimits, Violation
from compilers.hardware.partial_sums import division
from compilers.hardware.placement import (
    FLOAT_BITS,
    CoreLoad,
    chips_used,
    cores_used,
    loads,
    state_bits,
    volume,
    weight_bits,
)
from compilers.ir.graph import FixedPoint, Graph, Population, Projection
from compilers.ir.operators import shift_channels

_CORE = {
    "neurons_per_core": ("neurons", "cut the population into more cores"),
    "synaptic_bytes_per_core": (
        "synaptic_bytes",
        "use fewer bits, or fewer channels in the populations that send to it",
    ),
    "memory_bytes_per_core": (
        "memory_bytes",
        "use fewer bits, or fewer channels in the populations that send to it",
    ),
    "axons_in_per_core": ("axons_in", "narrow the populations that send to it, or give a stride"),
    "axons_out_per_core": ("axons_out", "narrow the populations that it sends to"),
}
"""Limits of a core: the load that each bounds, and what to do."""


def violations(graph: Graph, hardware: HardwareLimits) -> tuple[Violation, ...]:
    """Every limit of `hardware` that `graph` breaks; pure.

    Of the cores of a population, the fullest stands for all. The number of chips is the one that
    the placement was made for.
    """
    found = [*_placement(graph), *_formats(graph, hardware)]
    if not found or graph.placement:
        found += [*_cores(graph, hardware), *_machine(graph, hardware)]
    return tuple(found)


def _placement(graph: Graph) -> Iterator[Violation]:
    """Neurons that stand on no core, or on several."""
    remedy = "run the pass 'map_to_cores'"
    for population in graph.neurons:
        times = np.zeros(volume(population), np.int64)
        for t in graph.placement:
            if t.population == population.name:
                times[slice(*t.channels), slice(*t.rows), slice(*t.columns)] += 1
        astray = int(np.count_nonzero(times != 1))
        if astray:
            subject = f"population '{population.name}', placement"
            yield Violation(subject, astray, 0, remedy, "neurons that lie on no core or on several")


def _formats(graph: Graph, hardware: HardwareLimits) -> Iterator[Violation]:
    """Widths of weights, states and messages."""
    fewer = "compile with fewer bits"
    checks = [("weight_bits", f"graph '{graph.name}', weights", weight_bits(graph), fewer)]
    # The input comes from the host, which is no core and sends what it likes.
    for population in graph.neurons:
        subject, width = f"population '{population.name}'", message_bits(population)
        checks.append(("message_bits", f"{subject}, messages", width, fewer))
        checks.append(("state_bits", f"{subject}, states", state_bits(population), fewer))
    for projection in graph.projections:
        if projection.exponent is not None:
            subject = f"projection '{projection.name}', weights with their channels' exponents"
            remedy = "compile with 5 bits or more, which share one exponent"
            checks.append(("weight_bits", subject, widened_bits(graph, projection), remedy))
    for limit, subject, bits, remedy in checks:
        broken = hardware.violation(limit, subject, bits, remedy)
        if broken is not None:
            yield broken


def widened_bits(graph: Graph, p: Projection) -> int:
    """Bits of the weights of `p` once their channels' exponents are applied, sign included."""
    exponent = None if p.exponent is None else graph.arrays[p.exponent]
    weight = shift_channels(graph.arrays[p.weight], exponent)
    return int(np.abs(weight).max(initial=0)).bit_length() + 1


def message_bits(population: Population) -> int:
    """Bits of a message's payload; a spike that is 0 or 1 needs one, a fixed sign none."""
    if population.message is None:
        return FLOAT_BITS
    return 1 if population.message == FixedPoint(2, 0) else population.message.bits


def _cores(graph: Graph, hardware: HardwareLimits) -> Iterator[Violation]:
    """Of each population and limit, the core that exceeds it most."""
    fullest: dict[tuple[str, str], tuple[int, CoreLoad]] = {}
    for load in loads(graph, hardware):
        for limit, (quantity, _) in _CORE.items():
            key, value = (", ".join(load.populations), limit), getattr(load, quantity)
            if value > fullest.get(key, (-1, load))[0]:
                fullest[key] = value, load
    for (populations, limit), (value, load) in fullest.items():
        quantity, remedy = _CORE[limit]
        subject = f"population '{populations}', {quantity.replace('_', ' ')} of core {load.core}"
        broken = hardware.violation(limit, subject, value, remedy)
        if broken is not None and limit == "axons_in_per_core":
            why = _why_whole(graph, load.populations[0], hardware)
            broken = replace(broken, remedy=why + remedy)
        if broken is not None:
            yield broken


def _why_whole(graph: Graph, name: str, hardware: HardwareLimits) -> str:
    """Why the widest projection that cannot be split into a population cannot; or nothing."""
    widest_first = sorted(graph.into(name), key=lambda p: -graph.population(p.pre).size)
    reasons = (division(graph, p, hardware) for p in widest_first)
    return next((f"{reason}: " for reason in reasons if isinstance(reason, str)), "")


def _machine(graph: Graph, hardware: HardwareLimits) -> Iterator[Violation]:
    """Chips of the machine, and cores where it has one chip only."""
    cores, chips = cores_used(graph), chips_used(graph)
    available = float(graph.provenance.get("chips", hardware.limit("chips")))
    if chips > available:
        more = f"narrow the layers, or use at least {chips} chips ({cores} cores)"
        yield Violation(f"graph '{graph.name}'", chips, available, more, "chips")
