"""Centered EP with a frozen mean: both nudged phases for the price of one."""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.activations import Clip, distance
from ep_neuro.costs import Nudge
from ep_neuro.deployed import Circuit
from ep_neuro.estimators.contrast import (
    Estimate,
    Gradient,
    contrast,
    readout_gradient,
    response,
)
from ep_neuro.estimators.phases import both_phases
from ep_neuro.graphs import Steps, Sweeps, recorder_of
from ep_neuro.network import Landscape, Network, State
from ep_neuro.settle import CHECK_EVERY, RETIRE_SHARE, Schedule, SettleResult, Status, settle

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class FrozenMean(BaseModel):
    """Centered EP whose nudged states are ``m +- h`` about a drive that stays the free one.

    With ``I`` the drive at the free equilibrium, ``g = -beta dC/dz`` there and ``J`` the linear
    part of the drive, the nudged states are ``clip(I +- (J h + g))`` and ``h`` is half their
    difference: only ``h`` is convolved, and the gradient is ``-(m h^T + h m^T) / beta``.

    What is approximated: ``g`` and the drive of ``m`` are those of the free state. Where no neuron
    comes within reach of an end of its box, ``m`` *is* the free state, and the result is the
    implicit gradient for any beta. Elsewhere one nudged state is clipped and the other is not,
    ``m`` moves, and what it sends to others is left out. Smooth activations respond by their slope.

    Attributes
    ----------
    beta : float
        Nudging factor; it only matters near the ends of boxes.
    free, nudged : Schedule
        The tolerance of `nudged` is in heights of the box, as everywhere; ``h`` is smaller than
        the state by a factor beta, and by more with every coupling between a population and the
        output. From ten populations on it should be 0, with as many sweeps as the response takes
        to arrive, and without `fallback`; ``examples/paper/depth_ablation.py`` does so.
    precision : {"float32", "bfloat16"}
        Type in which weights multiply states in both phases; states and gradient keep theirs.
        ``h`` is a tensor of its own and loses no digits to the mean.
    fallback : bool
        Settle the samples whose response misses the tolerance of `nudged`, which happens where an
        equilibrium is nearly flat, again as two phases of twice the sweeps (`Centered`), in full
        precision.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["frozen-mean"] = "frozen-mean"
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.2
    free: Schedule = Schedule()
    nudged: Schedule = Schedule(sweeps=50)
    precision: Literal["float32", "bfloat16"] = "float32"
    fallback: bool = True

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        """Estimate the gradient for inputs `x` (N, ...) and targets `y` (N, *target shape).

        The free phase begins at `start`, at rest by default.
        """
        with torch.no_grad():
            landscape = Landscape(network, x, PRECISIONS[self.precision])
            free = settle(landscape, self.free, start)
            output = network.spec.output
            force = -self.beta * network.cost.slope(free.state[output], y)
            pair = Pair(landscape, free.state, force)
            nudged = pair.settle(self.nudged)
            late = ~(nudged.residual <= self.nudged.tolerance)
            mean, half = pair.mean(), pair.half()
        late &= self.fallback
        scale = (~late).to(force) / (len(x) * self.beta)
        gradient = response(network, pair.landscape.operators, x, mean, half, scale)
        if bool(late.any()):
            again, nudged = self._in_two_phases(network, x, y, free.state, nudged, late)
            gradient = {k: g + again[k] for k, g in gradient.items()}
        return Estimate(gradient | readout_gradient(network, free.state, y), free, nudged)

    def _in_two_phases(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        free: State,
        nudged: SettleResult,
        late: Tensor,
    ) -> tuple[Gradient, SettleResult]:
        """What the `late` samples give to the gradient of the batch; `nudged` with their phases."""
        schedule = self.nudged.model_copy(update={"sweeps": 2 * self.nudged.sweeps})
        start = {p: v[late] for p, v in free.items()}
        nudge = Nudge.both(self.beta, y[late], network.cost)
        result, plus, minus = both_phases(Landscape(network, x[late]), start, nudge, schedule)
        share = float(late.float().mean())
        gradient = contrast(network, x[late], plus, minus, 2 * self.beta / share)
        return gradient, nudged.replaced(late, result, schedule.tolerance)


class Pair:
    """Two states ``I + up`` and ``I - down`` about the frozen drive ``I``."""

    def __init__(self, landscape: Landscape | Circuit, free: State, force: Tensor) -> None:
        self.landscape = landscape.pinned(free)
        self.free, self.force = free, force
        self.drive = {p: landscape.drive(free, p) for p in free}
        self.reach = {p: self._reach(p) for p in free}
        self.up = {p: self._held(p, torch.zeros_like(v), 1) for p, v in free.items()}
        self.down = {p: self._held(p, torch.zeros_like(v), -1) for p, v in free.items()}

    def half(self) -> State:
        """``h``, half the difference of the two states."""
        return {p: self._half(p) for p in self.up}

    def mean(self) -> State:
        """``m``, the mean of the two states."""
        return {
            p: self.drive[p] + (self.up[p] - self.down[p]) / 2
            if isinstance(self.landscape.activations[p], Clip)
            else self.free[p]
            for p in self.up
        }

    def settle(self, schedule: Schedule) -> SettleResult:
        """Move until the response to the nudge rests; the states hold ``+`` first, then ``-``.

        Samples whose response rests leave the batch, as in `settle`.
        """
        groups = schedule.groups(self.landscape.spec, nudged=True)
        size = len(self.force)
        residual, index = self.force.new_zeros(size), torch.arange(size, device=self.force.device)
        active, half = self, self.half()
        silent = set(half)  # Before the first sweep there is no response.
        recorder = recorder_of(schedule.tolerance, self.force.device)
        run = Sweeps(
            lambda steps: active._sweeps(groups, half, silent, steps),
            [self.up, self.down, half],
            recorder,
        )
        sweep = work = 0
        while sweep < schedule.sweeps:
            steps = schedule.steps(sweep, CHECK_EVERY)
            found = run(steps)
            sweep += len(steps)
            work += len(steps) * len(index)
            residual[index] = found
            late = ~(found <= schedule.tolerance)
            if not bool(late.any()):
                break
            if recorder is None and float(late.float().mean()) <= 1 - RETIRE_SHARE:
                self._store(active, index)
                active, index = active._select(late), index[late]
                half = active.half()
        self._store(active, index)
        return self._result(residual, sweep, work / max(1, size), schedule.tolerance)

    def _select(self, keep: Tensor) -> Pair:
        """The pair of the samples `keep` (N,)."""
        other = copy.copy(self)
        other.landscape = self.landscape.select(keep)
        other.force = self.force[keep]
        other.free, other.up, other.down = (
            {p: v[keep] for p, v in states.items()} for states in (self.free, self.up, self.down)
        )
        other.reach = {
            p: ends and {sign: (low[keep], high[keep]) for sign, (low, high) in ends.items()}
            for p, ends in self.reach.items()
        }
        return other

    def _store(self, active: Pair, index: Tensor) -> None:
        """Take the states at `index` from the pair that holds those samples alone."""
        if active is self:
            return
        for mine, theirs in ((self.up, active.up), (self.down, active.down)):
            for p, v in theirs.items():
                mine[p][index] = v

    def _sweeps(
        self, groups: list[list[str]], half: State, silent: set[str], steps: Steps
    ) -> Tensor:
        """A sweep for each of `steps`; how far each sample was from rest in the last, (N,)."""
        for step in steps[:-1]:
            self._sweep(groups, half, silent, step, measured=False)
        found = self._sweep(groups, half, silent, steps[-1], measured=True)
        assert found is not None
        return found

    def _sweep(
        self,
        groups: list[list[str]],
        half: State,
        silent: set[str],
        step: float,
        measured: bool,
    ) -> Tensor | None:
        """Move every population once; how far each sample was from rest, (N,), if `measured`."""
        changes = []
        for group in groups:
            moved = {p: self._move(p, half, silent, step, measured) for p in group}
            changes += [change for change in moved.values() if change is not None]
            half.update({p: self._half(p) for p in group})
            silent.difference_update(group)
        return torch.stack(changes).amax(0) if changes else None

    def _move(
        self, name: str, half: State, silent: set[str], step: float, measured: bool
    ) -> Tensor | None:
        """Move the pair of population `name`; how far it was from rest, (N,), if `measured`."""
        force = self.landscape.linear_drive(half, name, silent)
        if name == self.landscape.spec.output:
            force = force + self.force
        change = None
        if measured:
            rest = self._held(name, force, 1)
            change = distance(self.landscape.activations[name], rest, self.up[name])
        for side, sign in ((self.up, 1), (self.down, -1)):
            side[name] = self._relaxed(name, side[name], force, sign, step)
        return change

    def _relaxed(self, name: str, value: Tensor, force: Tensor, sign: int, step: float) -> Tensor:
        if isinstance(self.landscape.activations[name], Clip):
            return self._held(name, torch.lerp(value, force, step), sign)
        return torch.lerp(value, self._held(name, force, sign), step)

    def _held(self, name: str, force: Tensor, sign: int) -> Tensor:
        """`force` as far as the state can follow it from the frozen drive."""
        activation = self.landscape.activations[name]
        if not isinstance(activation, Clip):
            return activation.slope(self.free[name]) * force
        ends = self.reach[name]
        if ends is None:
            return force
        return force.clamp(*ends[sign])

    def _reach(self, name: str) -> dict[int, tuple[Tensor, Tensor]] | None:
        """Lowest and highest ``up`` (1) and ``down`` (-1) that keep `name` in its box."""
        activation = self.landscape.activations[name]
        if not isinstance(activation, Clip) or activation.box is None:
            return None
        low, high = activation.box
        down, up = low - self.drive[name], high - self.drive[name]
        return {1: (down, up), -1: (-up, -down)}

    def _half(self, name: str) -> Tensor:
        return (self.up[name] + self.down[name]) / 2

    def _result(self, residual: Tensor, sweeps: int, work: float, tolerance: float) -> SettleResult:
        mean, half = self.mean(), self.half()
        state = {p: torch.cat([mean[p] + half[p], mean[p] - half[p]]) for p in half}
        finite = all(bool(torch.isfinite(v).all()) for v in half.values())
        settled = bool((residual <= tolerance).all())
        status = Status.SETTLED if settled else Status.NOT_SETTLED
        return SettleResult(state, status if finite else Status.DIVERGED, residual, sweeps, work)
