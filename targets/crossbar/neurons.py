"""One step of each dynamics in float64; a branch is the equation in the docstring of its record."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from compilers.ir.graph import Graded, Population, SigmaDelta, Spiking


@dataclass(frozen=True)
class State:
    """What a population holds between two steps; arrays are (N, *shape) and never written to.

    Attributes
    ----------
    v, u : ndarray
        Membrane, and the filtered current of spiking populations.
    z : ndarray
        Clipped state.
    message : ndarray
        Sent in the last step, zero at rest.
    held : tuple of ndarray
        What the input lines of the arrays are driven with, at the last steps, the newest first:
        a converter holds what it was last told, so changes need no adding up behind the array.
    """

    v: np.ndarray
    u: np.ndarray
    z: np.ndarray
    message: np.ndarray
    held: tuple[np.ndarray, ...]

    @property
    def told(self) -> np.ndarray:
        """The sum of all messages of neurons that send their changes."""
        return self.held[0]


def at_rest(population: Population, samples: int, depth: int) -> State:
    """The state before the first step; lines hold `depth` steps."""
    zero = np.zeros((samples, *population.shape))
    spiking = isinstance(population.dynamics, Spiking)
    v = zero + 0.5 if spiking else zero
    z = zero if spiking else clip(population, zero)
    return State(v, zero, z, zero, (zero,) * depth)


def clip(population: Population, v: np.ndarray) -> np.ndarray:
    """`v` within the box."""
    return v if population.box is None else np.clip(v, *population.box)


def advance(population: Population, state: State, drive: np.ndarray, t: int) -> State:
    """The state after step `t` (from 1) under `drive`."""
    dynamics = population.dynamics
    if isinstance(dynamics, Spiking):
        u = state.u + dynamics.leak * (drive - state.u)
        v = np.clip(state.v + u, -dynamics.bound, 1 + dynamics.bound)
        spike = (v >= 1).astype(v.dtype)
        return State(v - spike, u, spike, spike, (spike, *state.held[:-1]))
    assert isinstance(dynamics, Graded | SigmaDelta)
    v = state.v + dynamics.leak * (drive - state.v)
    z = clip(population, v)
    if isinstance(dynamics, Graded):
        return State(v, state.u, z, z, (z, *state.held[:-1]))
    change = z - state.held[0]
    message = change * (np.abs(change) >= dynamics.threshold(t))
    sent = state.held[0] + message
    return replace(state, v=v, z=z, message=message, held=(sent, *state.held[:-1]))
