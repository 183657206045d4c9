"""The constants of a population in its own units, and whether float64 holds all that may come."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compilers.ir.graph import LEAK_BITS, FixedPoint, Graph, Population, Spiking
from compilers.ir.operators import receiving_axis
from ep_neuro.errors import GraphError

UNIT = 1 << LEAK_BITS
"""The integer that stands for a nudge of 1, and for a leak."""

DOUBLE = float(1 << 53)
"""Integers up to it are exact in float64."""

WORD = float(1 << 31)
"""Integers below it fit 32 bits."""

SINGLE = float(1 << 24)
"""Integers up to it, and sums of them in any order, are exact in float32."""


@dataclass(frozen=True)
class Constants:
    """Populations of equal constants are computed as one."""

    leak: float
    """In integers in units of ``2**-fine``."""
    box: tuple[float, float] | None
    """Ends of a state in units of messages; None: it has none."""
    levels: tuple[float, float]
    """Ends of the membrane of spiking neurons."""
    half: float = 0.5
    """Half way to a spike."""
    bound: float = math.inf
    """What no state exceeds in size, in units of messages."""
    state: FixedPoint | None = None
    message: FixedPoint | None = None
    """Formats of the membrane and of the messages; None in floating point."""
    finer: int = 0
    """Fractional bits that a membrane has and a message has not."""
    hard: bool = False
    """A spike empties the membrane."""
    shows: bool = True
    """No state can exceed the message's format."""
    sends: bool = True
    """No change of a state can exceed the message's format."""
    fine: int = LEAK_BITS
    """Fractional bits that a membrane keeps of what leaks, in integers: no more than it needs."""

    @classmethod
    def real(cls, population: Population) -> Constants:
        """In floating point."""
        over = _over(population)
        bound = 1.0 if isinstance(population.dynamics, Spiking) else math.inf
        levels, hard = (-over, 1 + over), _hard(population)
        return cls(_leak(population), population.box, levels, bound=bound, hard=hard)

    @classmethod
    def whole(cls, population: Population) -> Constants:
        """In integers; `GraphError` if the population has no formats."""
        state, message = formats(population)
        over, bound, box = _over(population), -message.range[0], None
        if population.box is not None:
            low, high = population.box
            box = (round(low * message.one), round(high * message.one))
            bound = min(bound, max(abs(edge) for edge in box))
        bound = 1 if isinstance(population.dynamics, Spiking) else bound
        low, high = (math.floor(edge * state.one + 0.5) for edge in (-over, 1 + over))
        leak = round(UNIT * _leak(population))
        common = math.gcd(UNIT, leak)
        return cls(
            leak=leak // common,
            fine=LEAK_BITS - common.bit_length() + 1,
            box=box,
            levels=(low, high),
            half=math.floor(0.5 * state.one + 0.5),
            bound=bound,
            state=state,
            message=message,
            finer=state.frac - message.frac,
            hard=_hard(population),
            shows=box is not None and bound <= message.range[1],
            sends=2 * bound <= message.range[1],
        )


def formats(population: Population) -> tuple[FixedPoint, FixedPoint]:
    """Formats of the membrane and of the messages; an input has the latter only."""
    if population.message is None:
        raise GraphError(
            f"population '{population.name}'",
            "it has no number format in a graph of integers",
            "run the pass 'quantize' on the whole graph",
        )
    return population.state or population.message, population.message


def fits_double(graph: Graph) -> bool:
    """Whether float64 holds every integer that `graph` can come to, learnt weights included."""
    return all(product < DOUBLE and 2 * UNIT * drive < DOUBLE for product, drive in _largest(graph))


def fits_word(graph: Graph) -> bool:
    """Whether 32 bits hold what neurons are driven with, learnt weights included."""
    return all(drive < WORD for _, drive in _largest(graph))


def _largest(graph: Graph) -> Iterator[tuple[float, float]]:
    """Of each population what a sum times its gain, and what all of its drive, cannot exceed."""
    learnt = {r.weight: (1 << ((r.bits or 1) - 1)) - 1 for r in graph.plasticity}
    for post in graph.neurons:
        # The membrane, a bias and a nudge as large, and what they may differ by.
        drive, largest_product = float(4 << formats(post)[0].bits), 0.0
        if post.bias is not None:
            drive += float(np.abs(graph.arrays[post.bias].astype(np.float64)).max())
        for p in graph.into(post.name):
            weight, pre = graph.arrays[p.weight], graph.population(p.pre)
            exponent = 0 if p.exponent is None else int(graph.arrays[p.exponent].max())
            largest = max(int(np.abs(weight).max()), learnt.get(p.weight, 0)) << exponent
            receiving = receiving_axis(p.operator)
            fan_in = weight.size // weight.shape[receiving]
            sent = 1 if isinstance(pre.dynamics, Spiking) else -formats(pre)[1].range[0]
            assert p.rescale is not None
            product = float(fan_in * largest * sent * abs(p.rescale.multiplier))
            largest_product = max(largest_product, product)
            drive += product * 2.0**p.rescale.shift + 1
        yield largest_product, drive


def _hard(population: Population) -> bool:
    return getattr(population.dynamics, "reset", "soft") == "hard"


def _leak(population: Population) -> float:
    return float(getattr(population.dynamics, "leak", 1.0))


def _over(population: Population) -> float:
    return float(getattr(population.dynamics, "bound", 0.0))
