"""encode: what neurons send each other - graded states, their changes, or spikes."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import replace
from typing import Any

from compilers.ir import (
    ENCODINGS,
    Dynamics,
    Encoding,
    Graded,
    Graph,
    Phase,
    Population,
    SigmaDelta,
    Source,
    Spiking,
)
from ep_neuro.errors import GraphError

DYNAMICS: dict[Encoding, type[Graded] | type[SigmaDelta] | type[Spiking]] = {
    "graded": Graded,
    "sigma-delta": SigmaDelta,
    "spike": Spiking,
}
"""Dynamics of the neurons of each encoding."""


def encode(
    graph: Graph,
    code: str,
    *,
    steps: int | None = None,
    nudged_steps: int | None = None,
    beta: float | None = None,
    **parameters: float,
) -> Graph:
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
    **parameters : float
        Fields of the dynamics: ``leak``, ``start``, ``end``, ``decay``, ``bound``.

    Raises
    ------
    GraphError
        If the code or a parameter is unknown, or a population cannot spike.
    """
    if code not in ENCODINGS:
        near = difflib.get_close_matches(code, ENCODINGS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(ENCODINGS)}"
        raise GraphError(f"encoding '{code}'", "does not exist", hint)
    _refuse_unknown(code, parameters)
    populations = tuple(_encoded(p, code, parameters) for p in graph.populations)
    if nudged_steps is None and steps is not None:
        nudged_steps = max(1, steps // 2)
    phases = tuple(_timed(p, steps, nudged_steps, beta) for p in graph.phases)
    return replace(graph, populations=populations, phases=phases, encoding=code)


def _refuse_unknown(code: Encoding, parameters: dict[str, float]) -> None:
    known = [f.name for f in dataclasses.fields(DYNAMICS[code])]
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(known)}"
            raise GraphError(f"parameter '{name}'", f"'{code}' neurons have none", hint)


def _encoded(p: Population, code: Encoding, parameters: dict[str, float]) -> Population:
    if isinstance(p.dynamics, Source):
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
    values: dict[str, Any] = {"leak": p.dynamics.leak, **parameters}
    dynamics: Dynamics = DYNAMICS[code](**values)
    return replace(p, dynamics=dynamics)


def _timed(p: Phase, steps: int | None, nudged_steps: int | None, beta: float | None) -> Phase:
    length = steps if p.nudge == 0 else nudged_steps
    nudge = p.nudge if beta is None or p.nudge == 0 else abs(beta) * (1 if p.nudge > 0 else -1)
    return replace(p, steps=p.steps if length is None else length, nudge=nudge)
