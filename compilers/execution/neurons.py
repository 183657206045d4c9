"""One step of each dynamics; a function here is the equation in the docstring of its record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from compilers.execution.arithmetic import Arithmetic
from compilers.execution.maps import inside
from compilers.ir import Dynamics, Graded, Population, SigmaDelta, Spiking


@dataclass(frozen=True)
class State:
    """What a population holds between two steps; tensors are (N, *shape), images channels-last.

    Attributes
    ----------
    v, u : Tensor
        Membrane, and the filtered current of spiking populations. Whichever of them leaks is
        fine (`compilers.execution.arithmetic`).
    z : Tensor
        Clipped state; what was last sent if the population spikes.
    message : Tensor
        Sent in the last step, zero at rest.
    sent : Tensor
        Sum of all messages so far (sigma-delta).

    No tensor is ever written to, so a copy of the record restores the state.
    """

    v: Tensor
    u: Tensor
    z: Tensor
    message: Tensor
    sent: Tensor


def at_rest(numbers: Arithmetic, population: Population, samples: int) -> State:
    """The state before the first step: membrane at 0, or half way to a spike."""
    fine = torch.zeros(samples, *inside(population.shape), dtype=numbers.wide)
    zero = fine.to(numbers.narrow)
    if isinstance(population.dynamics, Spiking):
        half = torch.full_like(zero, numbers.membrane(population, 0.5))
        return State(v=half, u=fine, z=zero, message=zero, sent=zero)
    return State(v=fine, u=fine, z=numbers.clip(population, fine), message=zero, sent=zero)


@singledispatch
def advance(
    dynamics: Dynamics,
    numbers: Arithmetic,
    population: Population,
    state: State,
    drive: Tensor,
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
    drive: Tensor,
    t: int,
) -> State:
    v = numbers.leak(population, state.v, drive)
    z = numbers.clip(population, v)
    return State(v=v, u=state.u, z=z, message=z, sent=state.sent)


@advance.register
def _(
    dynamics: SigmaDelta,
    numbers: Arithmetic,
    population: Population,
    state: State,
    drive: Tensor,
    t: int,
) -> State:
    v = numbers.leak(population, state.v, drive)
    z = numbers.clip(population, v)
    change = z - state.sent
    size = change.abs()
    large = torch.ge(size, numbers.threshold(population, t), out=size)
    message = numbers.send(population, large.mul_(change))
    return State(v=v, u=state.u, z=z, message=message, sent=state.sent + message)


@advance.register
def _(
    dynamics: Spiking,
    numbers: Arithmetic,
    population: Population,
    state: State,
    drive: Tensor,
    t: int,
) -> State:
    u = numbers.leak(population, state.u, drive)
    v, spike = numbers.fire(population, state.v, u)
    return State(v=v, u=u, z=spike, message=spike, sent=state.sent)
