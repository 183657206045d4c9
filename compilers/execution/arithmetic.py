"""The two arithmetics of the IR on tensors: floats, and integers with saturation that is counted.

Membranes and currents that leak are *fine*: in integers the membrane times ``2**fine`` plus the
remainder of the leak, so that both move by one multiplication. `Cells.plain` is the membrane that
it holds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compilers.execution.constants import UNIT, Constants, fits_double, formats
from compilers.ir.graph import (
    LEAK_BITS,
    Conv,
    ConvTranspose,
    FixedPoint,
    Graph,
    Population,
    Projection,
)
from compilers.ir.operators import shift_channels
from compilers.learning.plastic_weights import learns_between_samples

if TYPE_CHECKING:
    from compilers.execution.neurons import Cells

SINGLE_BITS = 24
"""Integers of so many bits, and sums of two of them, are exact in float32."""


class Floating:
    """Floating point throughout; nothing saturates.

    Parameters
    ----------
    dtype : dtype
    device : device

    Attributes
    ----------
    integers : bool
    full, wide, narrow : dtype
        Of biases and targets, of drives and membranes, and of messages and states.
    half : Tensor
        0.5, wide.
    single : bool
        float32 may stand for integers where it is exact.
    learns : bool
        Weights change as they run.
    saturations : Counter
        By population the values that met the end of their format.
    """

    integers, single, learns = False, False, False

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.saturations: Counter[str] = Counter()
        self.full = self.wide = self.narrow = dtype
        self.device, self.half = device, torch.tensor(0.5, dtype=dtype, device=device)

    def widen(self) -> None:
        """Go on in numbers that hold every sum."""

    def constants(self, population: Population) -> Constants:
        """Leak, box and formats of `population` in its own units."""
        return Constants.real(population)

    def weight(self, projection: Projection, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The weight as operators take it, float64."""
        return arrays[projection.weight].astype(np.float64)

    def factor(self, projection: Projection) -> float | None:
        """What a weight can be multiplied by in place of a gain of the result, if it can."""
        return projection.scale

    def rounds(self, projection: Projection) -> bool:
        """Whether a result is rounded, halves up."""
        return False

    def gain(self, projection: Projection, found: Tensor) -> Tensor:
        """An operator's result in the units of the receiving membrane."""
        return found if projection.scale == 1 else projection.scale * found

    def real(self, population: Population, values: Tensor) -> Tensor:
        """States or messages in graph units, as float64."""
        return values.double()

    def message(self, population: Population, x: Tensor) -> Tensor:
        """Real numbers as messages."""
        return x.to(self.device, self.narrow)

    def target(self, population: Population, y: Tensor) -> Tensor:
        """Real targets of the output in units of its membrane."""
        return y.to(self.device, self.full)

    def leak(self, cells: Cells, fine: Tensor) -> None:
        """``v + leak (I - v)`` as the membrane's format holds it, in place."""
        torch.sub(cells.drive, fine, out=cells.spare)
        fine.add_(cells.spare, alpha=cells.constants.leak)

    def clip(self, cells: Cells) -> None:
        """Set `cells.z` to the membrane clipped to the box, in units of messages."""
        if cells.rooms is not None:
            low, high, outside = cells.rooms
            torch.sub(cells.v.clamp(low, high), outside, out=cells.z)
        elif cells.constants.box is None:
            cells.z.copy_(cells.v)
        else:
            torch.clamp(cells.v, *cells.constants.box, out=cells.z)

    def fire(self, cells: Cells) -> None:
        """Move the membrane by the current, and set `cells.z` to the spikes."""
        cells.v.add_(cells.u).clamp_(*cells.constants.levels)
        torch.ge(cells.v, 1, out=cells.z)
        self.reset(cells, 1)

    def reset(self, cells: Cells, one: int) -> None:
        """Take what a spike costs off the membranes that fired: `one`, or all that is there."""
        if cells.constants.hard:
            cells.v.mul_(1 - cells.z)
        else:
            cells.v.sub_(cells.z, alpha=one)

    def send(self, cells: Cells, values: Tensor) -> None:
        """Let `values` be as the message's format can hold them, in place."""

    def threshold(self, population: Population, t: int) -> float:
        """Threshold of a sigma-delta population at step `t`, in units of messages."""
        return population.dynamics.threshold(t)  # type: ignore[union-attr]

    def nudge(self, constants: Constants, beta: float, y: Tensor, shown: Tensor) -> Tensor:
        """``beta (y - z)`` in units of the membrane, as is `y`; `shown` is in message units."""
        return self.distance(constants, y, shown).mul_(beta)

    def distance(self, constants: Constants, y: Tensor, shown: Tensor) -> Tensor:
        """``y - z`` in units of the membrane."""
        return y - shown

    def room(self, population: Population, held: Tensor, edge: int) -> Tensor:
        """From the membrane `held` to the lower (0) or upper (1) end of the box, louder."""
        if population.box is None:
            return torch.full_like(held, math.inf if edge else -math.inf)
        return (population.box[edge] - held) * 2.0**population.louder


class Integer(Floating):
    """Exact integers: in float64 while all of `graph` fits it, else in int64.

    Messages of a graph of images are float32, for its convolutions, if that holds them; where
    weights learn everything is, until a sum comes that does not fit (`widen`). On a GPU all is
    float64, for its convolutions may multiply sums of weights.

    Raises
    ------
    GraphError
        If a population has no number format.
    """

    integers = True

    def __init__(self, graph: Graph, device: torch.device) -> None:
        super().__init__(torch.float64, device)
        held = [f for p in graph.populations for f in formats(p)]
        self.full = self.wide = torch.float64 if fits_double(graph) else torch.int64
        self.single, self.learns = device.type == "cpu", bool(graph.plasticity)
        images = any(isinstance(p.operator, Conv | ConvTranspose) for p in graph.projections)
        short = self.wide == torch.float64 and all(f.bits <= SINGLE_BITS for f in held)
        learns = learns_between_samples(graph)
        self.narrow = torch.float32 if (images or learns) and short and self.single else self.wide
        if learns and self.narrow == torch.float32:
            self.wide, self.half = torch.float32, self.half.float()

    def widen(self) -> None:
        self.wide, self.half = self.full, self.half.double()

    def constants(self, population: Population) -> Constants:
        return Constants.whole(population)

    def weight(self, projection: Projection, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        exponent = None if projection.exponent is None else arrays[projection.exponent]
        return shift_channels(arrays[projection.weight], exponent).astype(np.float64)

    def factor(self, projection: Projection) -> float | None:
        assert projection.rescale is not None
        if self.full == torch.int64:
            return None
        return projection.rescale.multiplier * 2.0**projection.rescale.shift

    def rounds(self, projection: Projection) -> bool:
        assert projection.rescale is not None
        return projection.rescale.shift < 0

    def gain(self, projection: Projection, found: Tensor) -> Tensor:
        factor = self.factor(projection)
        if factor is None:
            assert projection.rescale is not None
            return self._shift(found * projection.rescale.multiplier, projection.rescale.shift)
        if not self.rounds(projection):
            return found * factor
        return torch.add(self.half, found, alpha=factor).floor_()

    def real(self, population: Population, values: Tensor) -> Tensor:
        return values.double() / formats(population)[1].one

    def message(self, population: Population, x: Tensor) -> Tensor:
        whole = (x.to(self.device) * formats(population)[1].one).add_(0.5).floor_()
        return self._held(population, whole, formats(population)[1]).to(self.narrow)

    def target(self, population: Population, y: Tensor) -> Tensor:
        whole = (y.to(self.device) * formats(population)[0].one).add_(0.5).floor_()
        return whole.to(self.full)

    def leak(self, cells: Cells, fine: Tensor) -> None:
        own = cells.constants
        if own.leak == 1 << own.fine:
            fine.copy_(cells.drive)
        else:
            torch.sub(cells.drive, cells.plain, out=cells.spare)
            fine.add_(cells.spare, alpha=int(own.leak))
            self._down(fine, own.fine, cells.plain)
        if not cells.safe:
            self._saturate_fine(cells, fine)

    def _saturate_fine(self, cells: Cells, fine: Tensor) -> None:
        low, high = cells.constants.state.range  # type: ignore[union-attr]
        if not _leaves(cells.plain, low, high):
            return
        for p in cells.populations:
            plain = cells.part(cells.plain, p.name)
            held = self._held(p, plain, formats(p)[0])
            cells.part(fine, p.name).sub_(plain - held, alpha=1 << cells.constants.fine)
            plain.copy_(held)

    def clip(self, cells: Cells) -> None:
        own = cells.constants
        q = cells.z if cells.z.dtype == self.wide else cells.spare
        if cells.rooms is not None:
            low, high, outside = cells.rooms
            q.copy_(self._shift(cells.plain.clamp(low, high).sub_(outside), -own.finer))
        elif own.finer > 0:
            self._nearest(cells.v, own.fine + own.finer, q)
        else:
            torch.mul(cells.plain, 1 << -own.finer, out=q)
        if own.box is not None:
            q.clamp_(*own.box)
        if q is not cells.z:
            cells.z.copy_(q)
        if not own.shows:
            self.send(cells, cells.z)

    def fire(self, cells: Cells) -> None:
        own = cells.constants
        low, high = own.levels
        cells.v.add_(cells.plain).clamp_(low, high)
        state = own.state
        assert state is not None
        if low < state.range[0] or state.range[1] < high:
            self._saturate(cells, cells.v, state)
        torch.ge(cells.v, state.one, out=cells.z)
        self.reset(cells, state.one)

    def send(self, cells: Cells, values: Tensor) -> None:
        assert cells.constants.message is not None
        if not cells.constants.sends:
            self._saturate(cells, values, cells.constants.message)

    def threshold(self, population: Population, t: int) -> float:
        one = formats(population)[1].one
        return max(1, round(population.dynamics.threshold(t) * one))  # type: ignore[union-attr]

    def nudge(self, constants: Constants, beta: float, y: Tensor, shown: Tensor) -> Tensor:
        distance = self.distance(constants, y, shown)
        distance *= round(UNIT * beta)
        return self._down(distance, LEAK_BITS, distance)

    def distance(self, constants: Constants, y: Tensor, shown: Tensor) -> Tensor:
        return y - self._shift(shown.to(self.full), constants.finer)

    def room(self, population: Population, held: Tensor, edge: int) -> Tensor:
        state, most = formats(population)[0], float(4 << formats(population)[0].bits)
        if population.box is None:
            return torch.full_like(held, most if edge else -most)
        room = (round(population.box[edge] * state.one) - held).double() * 2.0**population.louder
        return room.clamp_(-most, most).to(self.wide)

    # --- saturation ----------------------------------------------------------------------------

    def _saturate(self, cells: Cells, values: Tensor, limits: FixedPoint) -> None:
        if _leaves(values, *limits.range):
            for p in cells.populations:
                part = cells.part(values, p.name)
                part.copy_(self._held(p, part, limits))

    def _held(self, population: Population, values: Tensor, limits: FixedPoint) -> Tensor:
        held = values.clamp(*limits.range)
        self.saturations[population.name] += int(torch.count_nonzero(held != values))
        return held

    # --- shifts --------------------------------------------------------------------------------

    def _shift(self, values: Tensor, bits: int) -> Tensor:
        """`compilers.ir.integers.shift`, as a tensor of its own."""
        if bits >= 0:
            return values * (1 << bits)
        return self._nearest(values, -bits, torch.empty_like(values))

    def _nearest(self, values: Tensor, bits: int, out: Tensor) -> Tensor:
        """``values >> bits``, rounded to nearest, halves up."""
        if self.full == torch.int64:
            if bits > 63:
                return out.zero_()
            torch.add(values, 1 << (bits - 1), out=out)
            return out.bitwise_right_shift_(bits)
        return torch.add(self.half, values, alpha=2.0**-bits, out=out).floor_()

    def _down(self, values: Tensor, bits: int, out: Tensor) -> Tensor:
        """``values >> bits``."""
        if self.full == torch.int64:
            return torch.bitwise_right_shift(values, bits, out=out)
        return torch.mul(values, 2.0**-bits, out=out).floor_()


def _leaves(values: Tensor, low: float, high: float) -> bool:
    least, largest = values.aminmax()
    return not (low <= least.item() and largest.item() <= high)
