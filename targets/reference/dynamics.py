"""One step of each dynamics; a function here is the equation in the docstring of its record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from compilers.ir import Dynamics, Graded, Population, Shape, SigmaDelta, Spiking
from targets.reference.arithmetic import Arithmetic, within


@dataclass(frozen=True)
class State:
    """What a population holds between two steps; arrays are (N, *shape).

    Attributes
    ----------
    v, u : ndarray
        Membrane, and the filtered current of spiking populations.
    z : ndarray
        Clipped state; what was last sent if the population spikes.
    message : ndarray
        Sent in the last step, zero at rest.
    sent : ndarray
        Sum of all messages so far (sigma-delta).
    rest : ndarray
        Remainder of the leak, in integers.

    No array is ever written to, so a copy of the record restores the state.
    """

    v: np.ndarray
    u: np.ndarray
    z: np.ndarray
    message: np.ndarray
    sent: np.ndarray
    rest: np.ndarray


def blank(samples: int, shape: Shape, dtype: type[np.generic]) -> np.ndarray:
    """Zeros, (samples, *shape); images lie channels-last, as convolutions return them."""
    if len(shape) != 3:
        return np.zeros((samples, *shape), dtype)
    channels, height, width = shape
    return np.zeros((samples, height, width, channels), dtype).transpose(0, 3, 1, 2)


def at_rest(numbers: Arithmetic, population: Population, samples: int) -> State:
    """The state before the first step: membrane at 0, or half way to a spike."""
    spiking = isinstance(population.dynamics, Spiking)
    zero = blank(samples, population.shape, numbers.dtype)
    v = zero + numbers.membrane(population, 0.5) if spiking else zero
    z = zero if spiking else numbers.clip(population, v)
    return State(v=v, u=zero, z=z, message=zero, sent=zero, rest=zero)


@singledispatch
def advance(
    dynamics: Dynamics,
    numbers: Arithmetic,
    population: Population,
    state: State,
    drive: np.ndarray,
    t: int,
) -> State:
    """The state after step `t` under `drive`, in units of the membrane."""
    raise TypeError(f"no step for {type(dynamics).__name__}")


@advance.register
def _(
    dynamics: Graded,
    numbers: Arithmetic,
    population: Population,
    state: State,
    drive: np.ndarray,
    t: int,
) -> State:
    v, rest = numbers.leak(population, state.v, drive, state.rest)
    z = numbers.clip(population, v)
    return State(v=v, u=state.u, z=z, message=z, sent=state.sent, rest=rest)


@advance.register
def _(
    dynamics: SigmaDelta,
    numbers: Arithmetic,
    population: Population,
    state: State,
    drive: np.ndarray,
    t: int,
) -> State:
    v, rest = numbers.leak(population, state.v, drive, state.rest)
    z = numbers.clip(population, v)
    change = z - state.sent
    large = np.abs(change) >= numbers.threshold(population, t)
    message = numbers.send(population, change * large)
    return State(v=v, u=state.u, z=z, message=message, sent=state.sent + message, rest=rest)


@advance.register
def _(
    dynamics: Spiking,
    numbers: Arithmetic,
    population: Population,
    state: State,
    drive: np.ndarray,
    t: int,
) -> State:
    u, rest = numbers.leak(population, state.u, drive, state.rest)
    low, one, high = numbers.levels(population, (-dynamics.bound, 1.0, 1 + dynamics.bound))
    v = numbers.store(population, within(state.v + u, low, high), (low, high))
    spike = (v >= one).astype(v.dtype)
    v -= spike if one == 1 else one * spike
    return State(v=v, u=u, z=spike, message=spike, sent=state.sent, rest=rest)
