"""The update equations of `compilers.ir.graph`, one function for each dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compilers.execution.maps import inside
from compilers.ir.graph import Dynamics, Graded, Population, SigmaDelta, Spiking

if TYPE_CHECKING:
    from compilers.execution.engine import Engine


class Cells:
    """State of the populations of one dynamics and equal constants, for a batch of samples.

    Each tensor holds them one after the other, (N, *shape) each, images channels-last, so that a
    step takes as many calls for all of them as for one; it is written to in place.

    Parameters
    ----------
    populations : sequence of Population
    engine : Engine
    samples : int
        N.

    Attributes
    ----------
    v, u : Tensor
        Membrane, and the filtered current of spiking populations. Whichever of them leaks is
        fine (`compilers.execution.arithmetic`), and `plain` is what it holds.
    z : Tensor
        Clipped state; what was last sent if the population spikes.
    message : Tensor
        Sent in the last step, zero at rest.
    sent : Tensor
        Sum of the messages so far, where messages are changes.
    told : Tensor
        Messages of the last step as receivers take them up.
    constant, base, drive : Tensor
        Drive of input and bias; this with all that receivers have added up; what drives a step.
    signed : bool
        Messages may be negative.
    size, large : Tensor, list of (Population, Tensor)
        Sizes of changes, and the same by population (sigma-delta).
    safe : bool
        No membrane can leave its format.
    rooms : tuple of Tensor, optional
        Where states are differences: what the free membranes leave to either end of their boxes,
        and how far outside they are.
    """

    def __init__(self, populations: Sequence[Population], engine: Engine, samples: int) -> None:
        self.populations, numbers = tuple(populations), engine.numbers
        self.numbers = numbers
        self.dynamics = populations[0].dynamics
        self.constants = numbers.constants(populations[0])
        self._places: dict[str, tuple[slice, tuple[int, ...]]] = {}
        end = 0
        for p in populations:
            span = slice(end, end + samples * p.size)
            self._places[p.name] = (span, (samples, *inside(p.shape)))
            end = span.stop
        self.changes = engine.changes and isinstance(self.dynamics, Graded)
        summing, spiking = isinstance(self.dynamics, SigmaDelta), isinstance(self.dynamics, Spiking)

        def zeros(dtype: torch.dtype) -> Tensor:
            return torch.zeros(end, dtype=dtype, device=numbers.device)

        self.v, self.drive, self.spare, self.constant = (zeros(numbers.wide) for _ in range(4))
        self.base = zeros(numbers.wide) if engine.adding else self.constant
        self.u = zeros(numbers.wide) if spiking else self.v
        self.plain = zeros(numbers.wide) if self.constants.fine and numbers.integers else self.u
        self.z = zeros(numbers.narrow)
        self.message = zeros(numbers.narrow) if summing else self.z
        self.sent = zeros(numbers.narrow) if summing or self.changes else self.z
        self.told = self.sent if summing and engine.holds else self.message
        if self.changes:
            self.told = zeros(numbers.narrow)
        box = self.constants.box
        self.signed = not spiking and (summing or self.changes or box is None or box[0] < 0)
        self.size = zeros(numbers.narrow) if summing else self.z
        self.large = [(p, self.part(self.size, p.name)) for p in populations if summing]
        self.safe = False
        self.rooms: tuple[Tensor, Tensor, Tensor] | None = None

    def span(self, name: str) -> slice:
        """Where population `name` stands."""
        return self._places[name][0]

    def part(self, values: Tensor, name: str) -> Tensor:
        """The view (N, *shape) of population `name` in `values`."""
        span, shape = self._places[name]
        return values[span].view(shape)

    def kept(self) -> list[Tensor]:
        """All that the next step depends on."""
        found = {id(t): t for t in (self.v, self.u, self.plain, self.z, self.message, self.sent)}
        return list({**found, id(self.told): self.told}.values())

    def rest(self) -> None:
        """Go to the state before the first step: membrane at 0, or half way to a spike."""
        for values in self.kept():
            values.zero_()
        if isinstance(self.dynamics, Spiking):
            self.v.fill_(self.constants.half)
        else:
            self.numbers.clip(self)


@singledispatch
def advance(dynamics: Dynamics, cells: Cells, t: int) -> None:
    """Move `cells` by step `t` under their drive, in units of the membrane."""
    raise TypeError(f"no step for {type(dynamics).__name__}")


@advance.register
def _(dynamics: Graded, cells: Cells, t: int) -> None:
    cells.numbers.leak(cells, cells.v)
    cells.numbers.clip(cells)
    if cells.changes:
        torch.sub(cells.z, cells.sent, out=cells.told)
        cells.sent.copy_(cells.z)


@advance.register
def _(dynamics: SigmaDelta, cells: Cells, t: int) -> None:
    cells.numbers.leak(cells, cells.v)
    cells.numbers.clip(cells)
    change = torch.sub(cells.z, cells.sent, out=cells.message)
    torch.abs(change, out=cells.size)
    for p, size in cells.large:
        torch.ge(size, cells.numbers.threshold(p, t), out=size)
    change.mul_(cells.size)
    cells.numbers.send(cells, change)
    cells.sent.add_(change)


@advance.register
def _(dynamics: Spiking, cells: Cells, t: int) -> None:
    cells.numbers.leak(cells, cells.u)
    cells.numbers.fire(cells)
