"""The limits of what a chip learns, lifted one at a time: programs for the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from compilers.ir.graph import FixedPoint, Graded, Graph, Population, Source
from compilers.ir.plasticity import CONTRASTIVE
from compilers.learning.real_units import in_floating_point
from compilers.passes.make_plastic import program_of
from compilers.passes.quantize import quantize
from compilers.passes.units import coarseness
from compilers.program import Program
from targets.experiments.certificate.updates import Directions, learnt_by, read_between_spikes
from targets.experiments.comparison.compare import on_reference

FACTOR = 4
"""By which the `steps` and the nudging factor are lifted."""

FINE_BETA = 1e-3
"""Nudging factor where all limits are lifted, in floating point."""

WIDE_BITS = 16
"""Bits of a weight that hold any of fewer bits as it is."""

Way = Callable[[np.ndarray, np.ndarray], Directions]
"""From inputs and labels to what would be written."""


@dataclass(frozen=True)
class Lift:
    """How a limit is lifted, and what one does about it."""

    how: str
    remedy: str


LIFTS = {
    "target": Lift("on the reference", "learn on another target or by another lowering"),
    "steps": Lift(f"with {FACTOR}x", "compile with more --steps"),
    "one side": Lift("with two", "learn by contrastive, whose nudges have two sides"),
    "beta": Lift(f"with 1/{FACTOR}", "compile with a smaller --beta"),
    "messages": Lift("wide, graded", "take --code graded, or more bits if it is (--message-frac)"),
    "traces": Lift("of currents, not spikes", "compile with more --steps, or the code graded"),
    "numbers": Lift("in floating point", "give membranes more bits (--state-frac)"),
}
"""By name, in the order in which limits are told where lifting them brings alike: the target first,
as the others are lifted on the reference."""

ALL = "all"
"""Stands for all limits, lifted together."""


def lifts(program: Program) -> dict[str, Way]:
    """Programs for the reference, each with one limit lifted, and one with all."""
    graph = program.graph
    lifted = {"steps": _longer(graph)}
    if not _two_sided(graph):
        lifted["one side"] = _both_sides(graph)
    lifted["beta"] = _nudged(graph, 1 / FACTOR)
    if graph.quantised or graph.encoding != "graded":
        lifted["messages"] = _wide(graph)
    if graph.quantised:
        lifted["numbers"] = in_floating_point(graph)
    if program.target != "reference":
        lifted["target"] = graph
    free = _both_sides(_longer(_graded(in_floating_point(graph))))
    lifted[ALL] = _nudged(free, FINE_BETA / max(p.nudge for p in free.phases))
    ways: dict[str, Way] = {
        name: partial(learnt_by, on_reference(replace(program, graph=other)))
        for name, other in lifted.items()
    }
    if graph.encoding == "spike":
        ways["traces"] = partial(read_between_spikes, graph)
    return ways


def _longer(graph: Graph) -> Graph:
    return replace(graph, phases=tuple(replace(p, steps=FACTOR * p.steps) for p in graph.phases))


def _nudged(graph: Graph, factor: float) -> Graph:
    return replace(graph, phases=tuple(replace(p, nudge=factor * p.nudge) for p in graph.phases))


def _two_sided(graph: Graph) -> bool:
    once = all(r.rule.when == "phase" for r in graph.plasticity)
    return once and all(p.sign * p.nudge > 0 for p in graph.phases if p.sign)


def _both_sides(graph: Graph) -> Graph:
    """`graph` with the phases of the centered contrast, at its beta."""
    records = tuple(replace(r, rule=CONTRASTIVE) for r in graph.plasticity)
    return replace(graph, phases=program_of(CONTRASTIVE, graph), plasticity=records)


def _graded(graph: Graph) -> Graph:
    """`graph` in floating point, whose neurons send their states whole at every step."""

    def sends(p: Population) -> Population:
        return p if isinstance(p.dynamics, Source) else replace(p, dynamics=Graded(p.dynamics.leak))

    return replace(graph, populations=tuple(map(sends, graph.populations)), encoding="graded")


def _wide(graph: Graph) -> Graph:
    """`graph` with graded messages, in integers with all but one of the membranes' bits."""
    real = _graded(in_floating_point(graph))
    if not graph.quantised:
        return real
    state = next(p.state for p in graph.neurons if p.state is not None)
    fine = quantize(real, WIDE_BITS, FixedPoint(state.bits, state.frac), state.frac - 1)
    records = tuple(
        replace(
            r,
            bits=WIDE_BITS if r.weight in graph.ties else None,
            coarser=coarseness(fine, r.weight),
        )
        for r in graph.plasticity
    )
    return replace(fine, plasticity=records)
