"""Thresholds of sigma-delta messages: coarse where they hardly move the output, late with depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compilers.ir.graph import SigmaDelta
from ep_neuro.deployment.nudgeable import SQUARED_ERROR

PRECISION = 0.004
"""Error of an output, in heights of its box, that all last thresholds together may cause."""

LOGITS = 6.0
"""The same where a softmax is taken of the output, in logits, whatever room its box leaves them.

All thresholds at once, at their worst: of a trained network they err by far less.
"""

START = 1.0
"""Threshold at the first step, in heights of the box."""

LARGEST, FINEST = 0.1, 2.0**-8
"""Bounds of the last threshold.

A state below it is never told. Such losses all have one sign, so that they add up where random
errors average out: next to the output a coarse threshold does more harm than any other. Messages of
8 fractional bits can say nothing finer than the lower bound.
"""

SPREAD, REACHED = 0.38, 0.95
"""Shares of a phase: until the deepest population begins, and until the finest threshold stands."""

STEEPEST, HIGHEST = FINEST / 2, 2.0**30
"""Where neurons take whole steps: least decay of a threshold, and bound of the first one."""

ACTIVE = 0.5
"""Share of the hidden neurons that are taken to pass changes on; the others sit at an end of
their box."""

PROBES = 4
"""Random directions in which the output is looked at."""

DIGITS = 6
"""Significant digits that are kept, so that sums in another order give the same numbers."""


@dataclass(frozen=True)
class Edge:
    """A coupling as changes pass it, in graph units.

    ``back`` is the adjoint of the way forward, float64 (N, *post shape) to (N, *pre shape).
    """

    pre: str
    post: str
    back: Callable[[np.ndarray], np.ndarray]


def usual_precision(cost: str, height: float) -> float:
    """The precision for this `cost` and real `height` of the output's box if nobody says one."""
    return PRECISION if cost == SQUARED_ERROR else LOGITS / height


def falls(
    shapes: Mapping[str, tuple[int, ...]],
    output: str,
    ways: Sequence[Edge],
    steps: int,
    precision: float = PRECISION,
    *,
    whole: bool = False,
) -> dict[str, SigmaDelta]:
    """How the threshold of each population falls.

    The last threshold is inversely proportional to what a message of the population moves at the
    output: to keep a given error of the output, the sum of ``log(1 / threshold)`` over all neurons,
    which is about the number of their messages, is least then. All thresholds fall at one rate,
    and later the deeper a population lies: it speaks when what it hears has nearly settled.

    Neurons that take `whole` steps hear all at once what the population before them sends at once.
    There each threshold stands at its end from the step at which the signal arrives by the longest
    path, and keeps the population silent before, so that most neurons speak once or never.

    Parameters
    ----------
    shapes : mapping
        Shape of every population of neurons.
    output : str
        The population that is read.
    ways : sequence of Edge
        All couplings between neurons.
    steps : int
        Length of the free phase.
    precision : float
        Error of an output, in heights of its box.
    whole : bool
        Whether the leak is 1.

    Returns
    -------
    dict of SigmaDelta
        By population, each with its ``start``, ``end`` and ``decay``.
    """
    moved = sensitivities(shapes, output, ways)
    hidden = sum(math.prod(shape) for name, shape in shapes.items() if name != output)
    share = precision * math.sqrt(math.prod(shapes[output]) / max(1, hidden))
    ends = {
        name: precision if name == output else share / moved[name] if moved[name] else LARGEST
        for name in shapes
    }
    ends = {name: min(LARGEST, max(FINEST, end)) for name, end in ends.items()}
    depth = depths(shapes, ways)
    deepest = max(1, *depth.values())
    if whole:
        steep = max(STEEPEST, HIGHEST ** (-1 / deepest))
        return {
            name: SigmaDelta(
                start=_rounded(end * steep ** -depth[name]),
                end=_rounded(end),
                decay=_rounded(steep),
            )
            for name, end in ends.items()
        }
    rate = (min(ends.values()) / START) ** (1 / (steps * (REACHED - SPREAD)))
    return {
        name: SigmaDelta(
            start=_rounded(START * rate ** (-steps * SPREAD * depth[name] / deepest)),
            end=_rounded(end),
            decay=_rounded(rate),
        )
        for name, end in ends.items()
    }


def sensitivities(
    shapes: Mapping[str, tuple[int, ...]], output: str, ways: Sequence[Edge]
) -> dict[str, float]:
    """What one neuron's message moves at the output, norm over the output, rms over the neurons.

    Found by passing random signs from the output back along every path of the couplings, each
    hidden population on it counted with the share `ACTIVE` of its neurons (Hutchinson 1990: the
    mean square of what arrives is that of all outputs together).
    """
    generator = np.random.default_rng(0)
    front: dict[str, np.ndarray] = {
        output: generator.choice([-1.0, 1.0], (PROBES, *shapes[output]))
    }
    total: dict[str, np.ndarray] = {}
    # A path visits no population twice; where couplings run in a circle it ends here.
    for _ in range(len(shapes) - 1):
        arrived: dict[str, np.ndarray] = {}
        for way in ways:
            if way.post in front and way.pre != output:
                arrived[way.pre] = arrived.get(way.pre, 0.0) + way.back(front[way.post])
        for name, value in arrived.items():
            total[name] = total.get(name, 0.0) + value
        front = {name: ACTIVE * value for name, value in arrived.items()}
    rms = {name: math.sqrt(float(np.square(value).mean())) for name, value in total.items()}
    return {name: rms.get(name, 0.0) for name in shapes}


def depths(shapes: Mapping[str, tuple[int, ...]], ways: Sequence[Edge]) -> dict[str, int]:
    """Couplings on the longest path to each population from one that hears the input alone."""
    depth = dict.fromkeys(shapes, 0)
    for _ in range(len(shapes) - 1):
        for way in ways:
            depth[way.post] = min(len(shapes) - 1, max(depth[way.post], depth[way.pre] + 1))
    return depth


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
