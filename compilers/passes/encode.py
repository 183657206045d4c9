"""encode: what neurons send each other - graded states, their changes, or spikes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from compilers.ir import graph as ir
from compilers.ir.dynamics import RESETS
from compilers.ir.operators import adjoint, apply
from compilers.passes.thresholds import Edge, falls, usual_precision
from ep_neuro.errors import GraphError, nearest

DYNAMICS: dict[ir.Encoding, type[ir.Graded] | type[ir.SigmaDelta] | type[ir.Spiking]] = {
    "graded": ir.Graded,
    "sigma-delta": ir.SigmaDelta,
    "spike": ir.Spiking,
}
"""Dynamics of the neurons of each encoding."""

Parameter = float | str | Mapping[str, float | str]
"""One value for all populations, or one for each by name."""

UNBOUNDED = 1e6
"""Bound of a membrane that no phase reaches: drives are a few heights of a box a step."""

_FALL = ("start", "end", "decay")


def encode(
    graph: ir.Graph,
    code: str,
    *,
    steps: int | None = None,
    nudged_steps: int | None = None,
    beta: float | None = None,
    precision: float | Literal["auto"] | None = "auto",
    **parameters: Parameter,
) -> ir.Graph:
    """Give every neuron the dynamics of `code`; its leak stays unless `parameters` has one.

    Parameters
    ----------
    graph : Graph
        With leaks chosen; for spikes with boxes folded.
    code : {"graded", "sigma-delta", "spike"}
        The encoding.
    steps, nudged_steps : int, optional
        Length of the free and of each nudged phase; the nudged ones get half of `steps` if only
        that is given, and None keeps what the graph has.
    beta : float, optional
        Magnitude of the nudging factor; None keeps what the graph has.
    precision : float or "auto", optional
        Error of an output, in heights of its box, that the last thresholds of sigma-delta may
        cause (``auto``: `compilers.passes.thresholds.usual_precision`); those of each population
        follow from it by `compilers.passes.thresholds.falls`. None, or any
        of ``start``, ``end`` and ``decay``: one threshold for all, that of `SigmaDelta` where
        nothing else is said.
    **parameters : float or mapping
        Fields of the dynamics: ``leak``, ``start``, ``end``, ``decay``, ``bound``, ``reset``; one
        value, or one for each population by its name.

    Raises
    ------
    GraphError
        If the code or a parameter is unknown, a population is missing from a parameter or unknown
        in it, or a population cannot spike.
    """
    if code not in ir.ENCODINGS:
        raise GraphError(f"encoding '{code}'", "does not exist", nearest(code, ir.ENCODINGS))
    _refuse_unknown(code, parameters)
    if nudged_steps is None and steps is not None:
        nudged_steps = max(1, steps // 2)
    phases = tuple(_timed(p, steps, nudged_steps, beta) for p in graph.phases)
    graph = replace(graph, phases=phases, encoding=code)
    if code == "sigma-delta" and precision is not None and not set(_FALL) & set(parameters):
        if precision == "auto":
            output = graph.population(graph.output)
            low, high = output.box or (0.0, 1.0)
            precision = usual_precision(graph.cost, (high - low) * output.readout.gain)
        parameters = {**parameters, **_balanced(graph, precision)}
    values = {name: _by_population(graph, name, value) for name, value in parameters.items()}
    populations = tuple(_encoded(p, code, values) for p in graph.populations)
    return replace(graph, populations=populations)


def _balanced(graph: ir.Graph, precision: float) -> dict[str, Parameter]:
    """Parameters of the thresholds by population, from the weights and the free phase."""
    neurons = {p.name: p.shape for p in graph.neurons}
    ways = [
        Edge(p.pre, p.post, _back(graph, p))
        for p in graph.projections
        if p.pre in neurons and isinstance(p.operator, ir.Conv | ir.Dense)
    ]
    steps = graph.phases[0].steps if graph.phases else 1
    leaks = {p.dynamics.leak for p in graph.neurons if not isinstance(p.dynamics, ir.Source)}
    found = falls(neurons, graph.output, ways, steps, precision, whole=leaks == {1})
    return {name: {p: getattr(fall, name) for p, fall in found.items()} for name in _FALL}


def _back(graph: ir.Graph, p: ir.Projection) -> Callable[[np.ndarray], np.ndarray]:
    weight = graph.arrays[p.weight].astype(np.float64)
    shape, operator = graph.population(p.pre).shape, adjoint(p.operator)
    return lambda z: p.scale * apply(operator, weight, z, shape)


def _by_population(graph: ir.Graph, name: str, value: Parameter) -> Mapping[str, Any]:
    neurons = [p.name for p in graph.neurons]
    if not isinstance(value, Mapping):
        return dict.fromkeys(neurons, value)
    for wrong in sorted(set(value) ^ set(neurons)):
        problem = "is no population of neurons" if wrong in value else "has no value"
        remedy = f"give one value each for {', '.join(neurons)}"
        raise GraphError(f"parameter '{name}'", f"'{wrong}' {problem}", remedy)
    return value


def _refuse_unknown(code: ir.Encoding, parameters: Mapping[str, Parameter]) -> None:
    known = [f.name for f in dataclasses.fields(DYNAMICS[code])]
    for name in parameters:
        if name not in known:
            problem = f"'{code}' neurons have none"
            raise GraphError(f"parameter '{name}'", problem, nearest(name, known))


def _encoded(
    p: ir.Population, code: ir.Encoding, parameters: Mapping[str, Mapping[str, Any]]
) -> ir.Population:
    if isinstance(p.dynamics, ir.Source):
        return p
    if code == "spike" and p.box != (0.0, 1.0):
        unbounded = p.box is None
        raise GraphError(
            f"population '{p.name}'",
            "it is linear, and a spike rate lies between 0 and 1"
            if unbounded
            else f"its box {p.box} is not (0, 1) yet",
            "give it a box, [-0.5, 1.5] for an output, or use sigma-delta"
            if unbounded
            else "run fold_boxes first",
        )
    values: dict[str, Any] = {"leak": p.dynamics.leak}
    values.update((name, value[p.name]) for name, value in parameters.items())
    if (reset := values.get("reset", "soft")) not in RESETS:
        # A target whose neurons have one reset sets it after this.
        problem = f"{reset} is not {' or '.join(RESETS)}"
        raise GraphError("parameter 'reset'", problem, f"choose from {', '.join(RESETS)}")
    dynamics: ir.Dynamics = DYNAMICS[code](**values)
    return replace(p, dynamics=dynamics)


def _timed(
    p: ir.Phase, steps: int | None, nudged_steps: int | None, beta: float | None
) -> ir.Phase:
    length = steps if p.nudge == 0 else nudged_steps
    nudge = p.nudge if beta is None or p.nudge == 0 else abs(beta) * (1 if p.nudge > 0 else -1)
    return replace(p, steps=p.steps if length is None else length, nudge=nudge)


def with_spiking(graph: ir.Graph, **fields: Any) -> ir.Graph:
    """`graph` whose spiking neurons have these fields of `Spiking`; others stay as they are."""
    populations = (
        replace(p, dynamics=replace(p.dynamics, **fields))
        if isinstance(p.dynamics, ir.Spiking)
        else p
        for p in graph.populations
    )
    return replace(graph, populations=tuple(populations))
