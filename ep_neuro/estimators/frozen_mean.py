"""Centered EP with a frozen mean: both nudged phases for the price of one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from pydantic import field_validator
from torch import Tensor

from ep_neuro.energy.activations import Clip, distance
from ep_neuro.energy.costs import Nudge
from ep_neuro.estimators.base import register_estimator
from ep_neuro.estimators.contrast import (
    Estimate,
    Gradient,
    contrast,
    readout_gradient,
    response,
)
from ep_neuro.estimators.two_phase import Beta, TwoPhase, both_phases
from ep_neuro.network.cuda_graphs import Steps, Sweeps, recorder_of
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import (
    CHECK_EVERY,
    RETIRE_SHARE,
    Schedule,
    SettleResult,
    Status,
    settle,
)

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


@register_estimator("frozen-mean")
class FrozenMean(TwoPhase):
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
        The tolerance of `nudged` is relative to the response: the length of a sweep's change of
        ``h`` in lengths of ``h``, population by population, so that it means the same at any depth,
        where ``h`` may be smaller than a digit of the state. With a tolerance of 0 a phase has a
        fixed number of sweeps, and its residual is not taken.
    precision : {"float32", "bfloat16"}
        Type of weights and states in both phases; the gradient keeps that of the network. ``h`` is
        a tensor of its own and loses no digits to the mean.
    fallback : bool
        Settle the samples whose response misses the tolerance of `nudged`, which happens where an
        equilibrium is nearly flat, again as two phases of twice the sweeps (`Centered`), in full
        precision.
    """

    kind: Literal["frozen-mean"] = "frozen-mean"
    beta: Beta = 0.2
    nudged: Schedule = Schedule(sweeps=50, tolerance=1e-2)
    precision: Literal["float32", "bfloat16"] = "float32"
    fallback: bool = True

    @field_validator("nudged", mode="before")
    @classmethod
    def _tolerance_is_that_of_a_response_unless_it_says_otherwise(cls, value: Any) -> Any:
        return {"sweeps": 50, "tolerance": 1e-2, **value} if isinstance(value, dict) else value

    def __call__(
        self, network: Network, x: Tensor, y: Tensor, start: State | None = None
    ) -> Estimate:
        with torch.no_grad():
            landscape = Landscape(network, x, PRECISIONS[self.precision])
            free = settle(landscape, self.free, start, measure=False)
            assert free.drive is not None
            output = network.spec.output
            z = free.state[output]
            force = -self.beta * network.cost.slope(z.to(y.dtype), y)
            landscape = landscape.pinned(free.state)
            pair = Pair(landscape, free.state, free.drive, force.to(z.dtype))
            nudged = pair.settle(self.nudged)
            measured = self.nudged.tolerance > 0
            late = ~(nudged.residual <= self.nudged.tolerance) & (self.fallback and measured)
            again = bool(late.any())
            scale = (~late).to(y) if again else 1.0
            scale = scale / (len(x) * self.beta)
            gradient = response(landscape, pair.mean(), pair.half, scale)
        if again:
            more, nudged = self._in_two_phases(network, x, y, free.state, nudged, late)
            gradient = {k: g + more[k] for k, g in gradient.items()}
        return Estimate(gradient | readout_gradient(network, free.state, y), free, nudged)

    @torch.no_grad()
    def free_phase(self, network: Network, x: Tensor) -> SettleResult:
        """The free phase alone, in its precision."""
        landscape = Landscape(network, x, PRECISIONS[self.precision])
        return settle(landscape, self.free, measure=False)

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
        # All of them: a tolerance of whole states would say nothing of what they answer.
        longer = {"sweeps": 2 * self.nudged.sweeps, "tolerance": 0.0}
        schedule = self.nudged.model_copy(update=longer)
        start = {p: v[late].to(y.dtype) for p, v in free.items()}
        nudge = Nudge.both(self.beta, y[late], network.cost)
        landscape = Landscape(network, x[late])
        result, plus, minus = both_phases(landscape, start, nudge, schedule)
        share = float(late.float().mean())
        gradient = contrast(landscape, plus, minus, 2 * self.beta / share)
        answers = [distance(landscape.activations[p], plus[p], v) / 2 for p, v in minus.items()]
        answer = torch.stack(answers).amax(0)
        relative = replace(result, residual=result.residual / answer.repeat(2))
        return gradient, nudged.replaced(late, relative, self.nudged.tolerance)


class Pair:
    """The states ``clip(I + F)`` and ``clip(I - F)`` about a frozen drive ``I``.

    ``F`` is the drive of ``half``, half the difference of the two, plus the force of the nudge.
    Both are kept as their distance from ``I``: ``half`` may be smaller than a digit of ``I``.

    Parameters
    ----------
    landscape : Landscape
    free, drive : State
        Free state, and the drive that holds it there.
    force : Tensor, (N, *output shape)
        ``-beta dC/dz`` at the free state.
    """

    def __init__(self, landscape: Landscape, free: State, drive: State, force: Tensor) -> None:
        self.landscape = landscape.pinned(free)
        self.free, self.drive, self.force = free, drive, force
        self.up: State = {}
        self.down: State = {}
        self.half = {p: v.new_zeros(()).expand_as(v) for p, v in free.items()}
        self._silent = set(free)  # Before the first sweep there is no response.
        self._ends: dict[str, tuple[Tensor, Tensor] | None] = {}

    def mean(self) -> State:
        """Mean of the two states."""
        return {p: self._mean(p) for p in self.half}

    def _mean(self, name: str) -> Tensor:
        if name not in self.up or not isinstance(self.landscape.activations[name], Clip):
            return self.free[name]
        return torch.add(self.drive[name], self.up[name] + self.down[name], alpha=0.5)

    def settle(self, schedule: Schedule) -> SettleResult:
        """Move until the response to the nudge rests, by the tolerance relative to itself.

        Samples whose response rests leave the batch, as in `settle`.
        """
        groups = schedule.groups(self.landscape.spec, nudged=True)
        size, measured = len(self.force), schedule.tolerance > 0
        index = torch.arange(size, device=self.force.device)
        residual = self.force.new_full((size,), float("nan"))
        active = self
        recorder = recorder_of(schedule.tolerance, self.force.device)
        run = Sweeps(
            lambda steps: active._sweeps(groups, steps, measured),
            [self.up, self.down, self.half],
            recorder,
        )
        sweep = work = 0
        while sweep < schedule.sweeps:
            steps = schedule.steps(sweep, CHECK_EVERY)
            found = run(steps)
            sweep += len(steps)
            work += len(steps) * len(index)
            if not measured:
                continue
            residual[index] = found
            late = ~(found <= schedule.tolerance)
            if not bool(late.any()):
                break
            if recorder is None and float(late.float().mean()) <= 1 - RETIRE_SHARE:
                self._store(active, index)
                active, index = active._select(late), index[late]
        self._store(active, index)
        finite = not measured or bool(torch.isfinite(residual).all())
        settled = bool((residual <= schedule.tolerance).all())
        status = Status.SETTLED if settled else Status.NOT_SETTLED
        return SettleResult(
            cast(State, _Both(self)),
            status if finite else Status.DIVERGED,
            residual,
            sweep,
            work / max(1, size),
        )

    def _select(self, keep: Tensor) -> Pair:
        """The pair of the samples `keep` (N,)."""
        other = copy.copy(self)
        other.landscape, other.force = self.landscape.select(keep), self.force[keep]
        parts = (self.free, self.drive, self.up, self.down, self.half)
        other.free, other.drive, other.up, other.down, other.half = (
            {p: v[keep] for p, v in states.items()} for states in parts
        )
        other._ends = {}
        return other

    def _store(self, active: Pair, index: Tensor) -> None:
        """Take the states at `index` from the pair that holds those samples alone."""
        if active is self:
            return
        sides = ((self.up, active.up), (self.down, active.down), (self.half, active.half))
        for mine, theirs in sides:
            for p, v in theirs.items():
                mine[p][index] = v

    def _sweeps(self, groups: list[list[str]], steps: Steps, measured: bool) -> Tensor:
        """A sweep for each of `steps`; how far each sample moved in the last, (N,)."""
        for step in steps[:-1]:
            self._sweep(groups, step, measured=False)
        found = self._sweep(groups, steps[-1], measured)
        return self.force.new_full((len(self.force),), float("nan")) if found is None else found

    def _sweep(self, groups: list[list[str]], step: float, measured: bool) -> Tensor | None:
        """Move every population once; how far each sample moved, (N,), if `measured`."""
        changes = []
        for group in groups:
            moved = {p: self._moved(p, step) for p in group}
            if measured:
                changes += [_relative(half, self.half[p]) / step for p, half in moved.items()]
            self.half.update(moved)
            self._silent.difference_update(group)
        return torch.stack(changes).amax(0) if measured else None

    def _moved(self, name: str, step: float) -> Tensor:
        """Half the difference of the two states of population `name`, once they have moved."""
        force = self.landscape.linear_drive(self.half, name, self._silent)
        if name == self.landscape.spec.output:
            force = force + self.force
        activation = self.landscape.activations[name]
        if not isinstance(activation, Clip):
            target = activation.slope(self.free[name]) * force
            return target if step == 1 else torch.lerp(self.half[name], target, step)
        ends = self._reach(name, activation)
        if ends is None:
            return force if step == 1 else torch.lerp(self.half[name], force, step)
        if step == 1 or name not in self.up:
            up, down = force, force.neg()
        else:
            up = torch.lerp(self.up[name], force, step)
            down = torch.lerp(self.down[name], force.neg_(), step)
        self.up[name], self.down[name] = up.clamp_(*ends), down.clamp_(*ends)
        return torch.sub(up, down).mul_(0.5)

    def _reach(self, name: str, activation: Clip) -> tuple[Tensor, Tensor] | None:
        """Lowest and highest distance from the frozen drive that keeps `name` in its box."""
        if name not in self._ends:
            drive, box = self.drive[name], activation.box
            self._ends[name] = None if box is None else (box[0] - drive, box[1] - drive)
        return self._ends[name]


class _Both(Mapping[str, Tensor]):
    """States of both nudged phases, (2 N, *population shape), made when they are asked for."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def __getitem__(self, name: str) -> Tensor:
        mean, half = self._pair._mean(name), self._pair.half[name]
        return torch.cat([mean + half, mean - half])

    def __iter__(self) -> Iterator[str]:
        return iter(self._pair.half)

    def __len__(self) -> int:
        return len(self._pair.half)


def _relative(new: Tensor, old: Tensor) -> Tensor:
    """Length of the step from `old` to `new` in lengths of `new`, sample by sample, (N,)."""
    axes = tuple(range(1, new.dim()))
    step, length = (torch.linalg.vector_norm(v, dim=axes) for v in (new - old, new))
    # Where a population does not respond at all, it is at rest.
    return torch.where(step == 0, step, step / length)
