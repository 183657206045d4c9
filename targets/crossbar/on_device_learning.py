"""Equilibrium propagation with the devices in the loop: settle on the arrays, change the arrays.

`CrossbarSession.learn` follows the rules of a plastic graph and writes ideally. This is centered
EP on any graph, as outer products that pulses on the devices can make.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compilers.ir.graph import Graph, Phase
from ep_neuro.data.datasets import Split
from ep_neuro.errors import GraphError
from targets.crossbar.arrays.mapping import is_forward
from targets.crossbar.session import CrossbarSession


@dataclass(frozen=True)
class DeviceRule:
    """How a batch changes the arrays.

    Attributes
    ----------
    rate : float
        Learning rate of weights and biases, in real units.
    pulsed : bool
        Whether weights change by pulses on the devices of option ``cells``, or by ideal writes.
        Biases are digital.
    """

    rate: float = 0.05
    pulsed: bool = False


def step(session: CrossbarSession, x: np.ndarray, y: np.ndarray, rule: DeviceRule) -> None:
    """Settle one batch on the arrays and change them by the centered contrast.

    With the nudged states written as ``m + h`` and ``m - h``, the gradient (Laborieux et al. 2021,
    eq. 11) is ``(m_post h_pre^T + h_post m_pre^T) / beta``: two outer products, whose
    difference needs no writing and erasing of almost equal ones.

    Parameters
    ----------
    session : CrossbarSession
        Open; its arrays and biases change.
    x, y : ndarray
        Inputs (N, *input shape) and labels or targets, as for `settle`.
    rule : DeviceRule
        Size and kind of the change.

    Raises
    ------
    GraphError
        If the graph's nudged phases are not one of each sign with the same beta.
    TargetError
        If its neurons spike.
    """
    graph, simulator = session.graph, session.simulator
    plus, minus = nudged(graph)
    simulator.read_inputs_as_they_are()
    ends = session.equilibria(x, y)
    high, low = ends[plus.name], ends[minus.name]
    mean = {name: (z + low[name]) / 2 for name, z in high.items()}
    half = {name: (z - low[name]) / 2 for name, z in high.items()}
    rate = rule.rate / (plus.nudge * len(x))
    for p in graph.projections:
        # What is computed in digital stays as it is; see `Options`.
        if is_forward(p) and p.name in simulator.arrays:
            # States are in graph units; a weight's gradient is in the heights of both boxes.
            unit = rate * np.prod([graph.population(n).readout.gain for n in (p.pre, p.post)])
            for pre, post in ((mean[p.pre], half[p.post]), (half[p.pre], mean[p.post])):
                if pre.any() and post.any():
                    simulator.arrays[p.name].learn(pre, post, float(unit), pulsed=rule.pulsed)
    for name, bias in simulator.biases.items():
        bias += rate * half[name].sum(0)


def nudged(graph: Graph) -> tuple[Phase, Phase]:
    """The phases of positive and of negative nudge; `GraphError` unless they mirror each other."""
    signed = sorted((p for p in graph.phases if p.sign), key=lambda p: -p.sign)
    if [p.sign for p in signed] != [1, -1] or signed[0].nudge != -signed[1].nudge:
        found = ", ".join(f"'{p.name}' of sign {p.sign} and nudge {p.nudge:g}" for p in signed)
        problem = f"its plastic phases are {found or 'none'}, not one of each sign and equal nudge"
        raise GraphError(f"graph '{graph.name}'", problem, "compile it with its default phases")
    return signed[0], signed[1]


def learn(
    session: CrossbarSession,
    split: Split,
    rule: DeviceRule,
    *,
    epochs: int = 1,
    batch: int = 32,
    seed: int = 0,
) -> Iterator[int]:
    """Learn `split` batch by batch in an order drawn by `seed`; yields after each epoch."""
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        order = rng.permutation(len(split))
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            step(session, split.x[chosen], split.y[chosen], rule)
        yield epoch
