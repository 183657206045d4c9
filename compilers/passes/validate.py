"""validate: refuses a graph that is inconsistent, and changes nothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from compilers.hardware.resources import CROSSBAR, bytes_per_sample
from compilers.ir import graph as ir
from compilers.ir.bounds import LARGE, LONGEST, MOST, out_of_bounds
from compilers.ir.dynamics import RESETS
from compilers.ir.operators import adjoint, misfit, unsplit
from compilers.passes.make_plastic import check_plasticity
from ep_neuro.errors import GraphError
from ep_neuro.storage.value_checks import fault, memory

_CODES = {ir.Graded: "graded", ir.SigmaDelta: "sigma-delta", ir.Spiking: "spike"}

FARTHEST = 31
"""Largest shift of a channel's weights: what 32 bits hold then still fits into 64."""

COUNTS = {"bits", "chips", *CROSSBAR}
"""Notes that are read as numbers."""


def validate(graph: ir.Graph) -> ir.Graph:
    """Return `graph` as it is.

    Raises
    ------
    GraphError
        At the first name that repeats or does not exist, number out of its bounds
        (`compilers.ir.bounds`), operator that does not fit its populations, array that is missing,
        of another shape or not finite, tied projections that disagree, dynamics out of range, phase
        that starts from a later one, plasticity that cannot learn, or note that counts and is no
        number; or if one sample takes more than the memory of this machine.
    """
    for kind, names in _names(graph).items():
        _refuse_repeats(kind, names)
    _check_numbers(graph)
    for population in graph.populations:
        _check_population(graph, population)
    for coupling in graph.couplings:
        _check_edge(graph, coupling)
    for projection in graph.projections:
        _check_edge(graph, projection)
        _check_projection(graph, projection)
    _check_size(graph)
    _check_ties(graph)
    _check_output(graph)
    _check_phases(graph)
    check_plasticity(graph)
    for note in COUNTS & set(graph.provenance):
        if not re.fullmatch("[0-9]{1,18}", graph.provenance[note]):
            problem = f"{graph.provenance[note]!r} is no number"
            raise GraphError(f"note '{note}'", problem, "compile the model again")
    return graph


def _names(graph: ir.Graph) -> dict[str, list[str]]:
    return {
        "population": [p.name for p in graph.populations],
        "coupling": [f"{c.pre}->{c.post}" for c in graph.couplings],
        "projection": [p.name for p in graph.projections],
        "phase": [p.name for p in graph.phases],
    }


def _refuse_repeats(kind: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise GraphError(f"{kind} '{name}'", f"the name stands {count} times", "rename one")


def _check_numbers(graph: ir.Graph) -> None:
    subjects: list[tuple[str, Any]] = [
        *((f"population '{p.name}'", p) for p in graph.populations),
        *((f"coupling '{c.pre}->{c.post}'", c) for c in graph.couplings),
        *((f"projection '{p.name}'", p) for p in graph.projections),
        *((f"phase '{p.name}'", p) for p in graph.phases),
        *((f"tile of '{t.population}'", t) for t in graph.placement),
        *((f"plasticity of '{r.weight}'", r) for r in graph.plasticity),
    ]
    for subject, record in subjects:
        problem = out_of_bounds(record)
        if problem is not None:
            raise GraphError(subject, problem, "choose one in between")


# --- populations -------------------------------------------------------------------------------


def _check_population(graph: ir.Graph, p: ir.Population) -> None:
    subject = f"population '{p.name}'"
    if not p.shape or p.size > MOST:
        problem = (
            f"shape {p.shape} has {p.size:,} neurons" if p.shape else "shape () has no neurons"
        )
        raise GraphError(subject, problem, f"give sizes, {MOST:,} neurons at most")
    if p.box is not None and not (all(map(math.isfinite, p.box)) and p.box[0] < p.box[1]):
        raise GraphError(subject, f"box {p.box} is no finite interval", "give (lo, hi), lo < hi")
    if abs(p.readout.gain) < 1 / LARGE or not math.isfinite(p.readout.gain + p.readout.offset):
        raise GraphError(subject, f"{p.readout} gives no real units", "give a gain, 1 for instance")
    if p.bias is not None:
        _check_array(graph, p.bias, f"bias of {subject}", p.shape, whole=p.state is not None)
    if isinstance(p.dynamics, ir.Source):
        return
    sums = any(q.post == p.name for q in graph.split)
    if _CODES[type(p.dynamics)] != ("sigma-delta" if sums else graph.encoding):
        found = type(p.dynamics).__name__
        raise GraphError(subject, f"{found} neurons in a '{graph.encoding}' graph", "run encode")
    _check_dynamics(subject, p.dynamics)
    if (p.state is None) != (p.message is None):
        raise GraphError(subject, "has only one of two number formats", "run quantize")
    d, edges = p.dynamics, p.box or ()
    reals = [*edges, *(getattr(d, name, 0.0) for name in ("start", "end", "bound"))]
    if p.state is not None and p.message is not None:
        most = 1 << (LONGEST - max(p.state.frac, p.message.frac))
        if max(map(abs, reals)) > most:
            problem = f"box {p.box} or {d} is beyond {most:,}, which integers stand for"
            raise GraphError(subject, problem, "narrow it, or compile in floating point")


def _check_dynamics(subject: str, d: ir.Graded | ir.SigmaDelta | ir.Spiking) -> None:
    limits: dict[str, tuple[object, bool, str]] = {"leak": (d.leak, 0 < d.leak <= 1, "in (0, 1]")}
    if isinstance(d, ir.SigmaDelta):
        limits["start"] = (d.start, 0 <= d.start < math.inf, "finite and >= 0")
        limits["end"] = (d.end, 0 <= d.end < math.inf, "finite and >= 0")
        limits["decay"] = (d.decay, 0 < d.decay <= 1, "in (0, 1]")
    if isinstance(d, ir.Spiking):
        limits["bound"] = (d.bound, 0 <= d.bound < math.inf, "finite and >= 0")
        limits["reset"] = (d.reset, d.reset in RESETS, "soft or hard")
    for name, (value, holds, wanted) in limits.items():
        if not holds:
            raise GraphError(subject, f"{name} {value} is not {wanted}", "correct it")


def _check_array(
    graph: ir.Graph, name: str, subject: str, shape: tuple[int, ...] | None, whole: bool = False
) -> None:
    array = graph.arrays.get(name)
    if array is None:
        raise GraphError(subject, f"array '{name}' is missing", "add it to the graph's arrays")
    if shape is not None and array.shape != shape:
        raise GraphError(subject, f"array '{name}' is {array.shape}, not {shape}", "reshape it")
    problem = fault(array, "fiu")
    if problem is not None:
        remedy = "train with a smaller learning rate, or mend the file"
        raise GraphError(subject, f"array '{name}' {problem}", remedy)
    if whole and not np.issubdtype(array.dtype, np.integer):
        problem = f"array '{name}' is {array.dtype}, in a graph of integers"
        raise GraphError(subject, problem, "run quantize")
    integers = np.issubdtype(array.dtype, np.integer) and array.size > 0
    if integers and not -MOST <= array.min() <= array.max() <= MOST:
        problem = f"array '{name}' holds integers beyond {MOST:,}"
        raise GraphError(subject, problem, "use fewer bits")


# --- edges -------------------------------------------------------------------------------------


def _check_edge(graph: ir.Graph, edge: ir.Coupling | ir.Projection) -> None:
    kind = "coupling" if isinstance(edge, ir.Coupling) else "projection"
    subject = f"{kind} '{edge.pre}->{edge.post}'"
    names = {p.name for p in graph.populations}
    for end in (edge.pre, edge.post):
        if end not in names:
            remedy = f"choose from {', '.join(sorted(names))}"
            raise GraphError(subject, f"population '{end}' does not exist", remedy)
    pre, post = graph.population(edge.pre), graph.population(edge.post)
    if isinstance(post.dynamics, ir.Source):
        raise GraphError(subject, f"'{post.name}' is clamped", "let it lead to a neuron")
    _check_array(graph, edge.weight, subject, None)
    problem = misfit(edge.operator, graph.arrays[edge.weight].shape, pre.shape, post.shape)
    if problem is not None:
        raise GraphError(subject, problem, "change the operator, the weight or a population")


def _check_projection(graph: ir.Graph, p: ir.Projection) -> None:
    subject = f"projection '{p.name}'"
    if not math.isfinite(p.scale):
        raise GraphError(subject, f"scale {p.scale} is not finite", "correct it")
    if graph.population(p.post).state is not None and (
        p.rescale is None or not np.issubdtype(graph.arrays[p.weight].dtype, np.integer)
    ):
        raise GraphError(subject, "it is in floating point and its post not", "run quantize")
    if p.exponent is not None:
        _check_array(graph, p.exponent, subject, graph.arrays[p.weight].shape[:1], whole=True)
        shifts = graph.arrays[p.exponent]
        if not 0 <= shifts.min() <= shifts.max() <= FARTHEST:
            problem = f"shifts of {shifts.min()} to {shifts.max()} bits are not in 0 to {FARTHEST}"
            raise GraphError(subject, problem, "run quantize")


def _check_size(graph: ir.Graph) -> None:
    needed, there = bytes_per_sample(graph), memory()
    if needed > there:
        largest = max(graph.populations, key=lambda p: p.size)
        raise GraphError(
            f"graph '{graph.name}'",
            f"one sample takes {needed / 1e9:,.0f} GB, this machine has {there / 1e9:,.0f} GB",
            f"narrow population '{largest.name}' ({largest.size:,} neurons), or shorten delays",
        )


def _check_ties(graph: ir.Graph) -> None:
    first: dict[str, ir.Projection] = {}
    for p in graph.projections:
        other = first.setdefault(p.weight, p)
        back = (p.pre, p.post) == (other.post, other.pre)
        own, its = unsplit(p.operator), unsplit(other.operator)
        opposite = [] if isinstance(its, ir.Total) else [adjoint(its)]
        allowed = opposite if back else [its, *opposite]
        if own not in allowed:
            problem = f"{p.operator} and {other.operator} of '{other.name}' share '{p.weight}'"
            raise GraphError(f"projection '{p.name}'", problem, "use adjoint operators")
        if p.exponent != other.exponent:
            problem = f"its exponent is not that of '{other.name}', which shares '{p.weight}'"
            raise GraphError(f"projection '{p.name}'", problem, "quantise tied weights once")
    for c in graph.couplings:
        if not isinstance(c.operator, ir.Dense | ir.Conv):
            problem = f"{c.operator} is the backward half of a coupling"
            raise GraphError(f"coupling '{c.pre}->{c.post}'", problem, "give the forward half")


# --- the whole ---------------------------------------------------------------------------------


def _check_output(graph: ir.Graph) -> None:
    if graph.output not in {p.name for p in graph.neurons}:
        remedy = f"choose from {', '.join(p.name for p in graph.neurons)}"
        raise GraphError(f"output '{graph.output}'", "no population of neurons", remedy)
    if not 0 < graph.timestep < math.inf:
        raise GraphError("timestep", f"{graph.timestep} s is not above 0", "give 0.001")


def _check_phases(graph: ir.Graph) -> None:
    if not graph.phases:
        raise GraphError(f"graph '{graph.name}'", "has no phase", "add a free phase")
    earlier: list[str] = []
    for p in graph.phases:
        subject = f"phase '{p.name}'"
        if not math.isfinite(p.nudge):
            raise GraphError(subject, f"nudge {p.nudge} is not finite", "correct it")
        if p.start is not None and p.start not in earlier:
            raise GraphError(subject, f"starts from '{p.start}', not an earlier phase", "reorder")
        earlier.append(p.name)
