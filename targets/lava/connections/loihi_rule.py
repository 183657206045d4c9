"""Lava's own rule in fixed point: traces of 7 bits, tags and weights of 8, rounded at random.

With ``z`` what a neuron has sent others, in heights of its box, and ``o`` its offset / gain,

    p   = clip(256 z, 1, 254)                      payload of the spike that carries the trace
    x1  = round(p / 2)                             of the sender
    y1  = sign (round(p / 2) + 128 o)              of the receiver, at the end of a phase
    T  += (x1 + 128 o) y1 / 64                     ends at +-255
    q  += T j 2**s / 128                           at a commit; ends as its bits say

and both are rounded up or down by one random number for all synapses of a process, as Lava draws
it. So an update has the values of the real one on average, and a step of the rate is one of 15
levels ``j``. Lava's engine takes ``y1`` with a sign; a chip has none there, and wants two gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compilers.hardware.limits import Violation
from compilers.ir.graph import Graph, Population, Spiking
from compilers.learning.synapses import Synapses
from compilers.learning.traces import trace_offset
from ep_neuro.errors import DataError
from targets.lava.connections.native import misfit

TRACE_BITS = 7
"""Bits of a trace; it has no sign, and a factor of a rule one more."""

ENDLESS = 1 << 60
"""Time constant of a trace that holds what it is given, in steps; it has to be a whole number."""

LEVELS = 15
"""Rates that a gate can tell apart: it opens by ``8 j``, of 7 bits."""

OPEN = 8
"""What a level of 1 opens a gate by; the engine divides by as much."""


def payload(population: Population, shown: np.ndarray) -> np.ndarray:
    """What a spike carries of the trace of `population`; `shown` in units of its messages."""
    assert population.message is not None
    finer = population.message.frac - TRACE_BITS - 1
    scaled = shown >> finer if finer >= 0 else shown << -finer
    # Never 0, which would be no spike, and leave the trace as it was.
    return np.clip(scaled, 1, (1 << (TRACE_BITS + 1)) - 2)


def seen(population: Population, carried: np.ndarray) -> np.ndarray:
    """The trace at the end that receives: half the payload, less where the population rests."""
    return np.round(carried / 2).astype(np.int64) + resting(population)


def resting(population: Population) -> int:
    """Trace that stands for 0 in real units, with its sign turned: ``128 o``."""
    return round(trace_offset(population, False) * (1 << TRACE_BITS))


@dataclass(frozen=True)
class Rate:
    """How far a commit goes: by ``T j 2**shift / 128`` in units of the weight."""

    exact: float
    """``j`` at a rate scale of 1 and one sample a commit, before it is rounded."""
    shift: int

    def level(self, scale: float) -> int:
        """``j`` at the rate scale `scale`, by which the mean over samples counts, too."""
        return min(max(round(self.exact * scale), 1), LEVELS)


def rate_of(graph: Graph, index: int) -> Rate:
    """The rate of record number `index` of `graph`, a weight."""
    s = Synapses(graph, index)
    assert s.pre is not None
    gains = s.pre.readout.gain * s.post.readout.gain
    exact = s.record.step * gains / (2 * s.unit)
    shift = max(0, math.ceil(math.log2(exact / LEVELS)))
    return Rate(exact / 2**shift, shift)


def rule_of(sender: Population, rate: Rate) -> tuple[str, str]:
    """Lava's texts of the tag and of the commit; the tag is cleared by the process."""
    rest = resting(sender)
    x1 = f"(x1{rest:+d})" if rest else "x1"
    return f"4*2^-5*x0*{x1}*y1", f"4*2^{rate.shift - 7}*u0*t*y3"


def check_input(x: np.ndarray) -> None:
    """Refuse inputs that a trace of the source cannot hold, by a `DataError`."""
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        problem = f"values from {low:g} to {high:g}, and Lava's traces of 7 bits hold 0 to 1"
        raise DataError("input x", problem, "use lowering batched, or a network that takes 0 to 1")


# --- what it cannot do -------------------------------------------------------------------------


def misfits(graph: Graph) -> Iterator[Violation]:
    """Everything about the learning of the integers of `graph` that the engine cannot do."""
    batched = "use lowering batched"
    spiking = sum(isinstance(p.dynamics, Spiking) for p in graph.neurons)
    if spiking:
        subject = f"graph '{graph.name}', spiking populations of integers that learn by Lava's rule"
        yield Violation(subject, spiking, 0, batched)
    for p in graph.populations:
        if not -(1 << TRACE_BITS) < resting(p) <= 0:
            subject = f"population '{p.name}', trace of 0 in a rule of 7 bits"
            yield Violation(subject, -resting(p), (1 << TRACE_BITS) - 1, batched)
    for index, record in enumerate(graph.plasticity):
        exact = rate_of(graph, index).exact if record.weight in graph.ties else 1
        if round(exact) < 1:
            # It would open by 1 all the same, and learn that much faster.
            subject = f"plasticity of '{record.weight}', times its rate in a gate's least"
            yield Violation(subject, round(1 / exact, 1), 2, f"raise the rate, or {batched}")
        if record.rule.keep and record.weight in graph.ties:
            subject = f"plasticity of '{record.weight}', rounding that is kept"
            yield Violation(subject, 1, 0, f"drop it, or {batched}")
        for q in graph.projections:
            why = misfit(graph, q) if q.weight == record.weight else None
            if why is not None:
                subject = f"plastic projection '{q.name}', no stock process: {why}"
                yield Violation(subject, 1, 0, f"try --state-frac 20, or {batched}")
