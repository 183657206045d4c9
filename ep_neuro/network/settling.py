"""Settling: which populations move together, how far, and when to stop."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.energy.activations import Activation, distance
from ep_neuro.energy.costs import Nudge
from ep_neuro.energy.operators import arranged
from ep_neuro.energy.spec import INPUT, NetworkSpec
from ep_neuro.network.cuda_graphs import Steps, Sweeps, recorder_of

if TYPE_CHECKING:
    from ep_neuro.network.network import Landscape, State

CHECK_EVERY = 3
"""Sweeps from one look at the residual to the next: a look costs a third of a small sweep."""

RETIRE_SHARE = 0.25
"""Share of settled samples at which they leave the batch."""

AUTO = {"sequential": (1.35, 1.6, 9), "coloured": (1.3, 1.7, 12)}
"""Over-relaxation under ``relaxation: auto``: at first, later, and the last sweep of the first.

What is still moving by then moves along slow modes, and those want more. The trained
`mnist_residual` takes, to a tolerance of 1e-3, 10.5 sequential sweeps a sample and 18 at most; 13.2
and 24 coloured ones; 15.0 and 18 coloured ones at 1.5 throughout.
"""


class Schedule(BaseModel):
    """How to settle.

    Attributes
    ----------
    method : {"sequential", "coloured", "synchronous", "even-odd"}
        Which populations move together. ``sequential``: one after another, from the input to the
        output, and back from it in a nudged phase; what they are told thus passes all of them in
        one sweep. ``coloured``: independent sets of a graph colouring. In both, a move minimises
        the energy exactly. ``synchronous``: all at once, as hardware does. ``even-odd``: the
        published sweep of Hopfield-Resnet13, every other population from the first one on, then
        the rest; `nudged` says how its output moves.
    sweeps : int
        Largest number of sweeps; every population moves once a sweep.
    relaxation : float or "auto"
        Step ``w`` in ``z <- clip(z + w (I - z))``. Sequential and coloured sweeps descend the
        energy for ``0 < w < 2``; synchronous ones need ``w < 2 / (1 - lambda_min)``. ``auto`` is
        what `AUTO` says by method, and 1 for the others.
    tolerance : float
        Stop once the residual of every sample is at most this, in heights of the box.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["sequential", "coloured", "synchronous", "even-odd"] = "sequential"
    sweeps: Annotated[int, Field(ge=1)] = 100
    relaxation: Annotated[float, Field(gt=0, lt=2)] | Literal["auto"] = "auto"
    tolerance: Annotated[float, Field(ge=0)] = 1e-4

    def step(self, sweep: int) -> float:
        """``w`` of `sweep`, the first of which is 1."""
        if self.relaxation != "auto":
            return self.relaxation
        early, late, last = AUTO.get(self.method, (1.0, 1.0, 0))
        return early if sweep <= last else late

    def steps(self, done: int, look: int) -> Steps:
        """``w`` of the sweeps after the first `done`, up to the next look; one every `look`."""
        until = min(done - done % look + look, self.sweeps)
        return tuple(self.step(sweep) for sweep in range(done + 1, until + 1))

    def groups(self, spec: NetworkSpec, nudged: bool = False) -> list[list[str]]:
        """Populations that move together, in the order of a sweep."""
        names = [p.name for p in spec.populations]
        if self.method == "sequential":
            return [[name] for name in (reversed(names) if nudged else names)]
        if self.method == "synchronous":
            return [names]
        if self.method == "even-odd":
            return [names[0::2], names[1::2]]
        return colouring(spec)

    def nudged(self, nudge: Nudge, drive: Tensor, z: Tensor, activation: Activation) -> Tensor:
        """Drive of the output under `nudge`, from its own `drive` and its present state `z`.

        The published sweep steps down the cost where others go to the minimum, if there is a
        formula for it. Both rest at the same state.
        """
        if self.method == "even-odd":
            return nudge.step(drive, z)
        return nudge.minimise(drive, z, activation)


PUBLISHED_FREE = Schedule(method="even-odd", sweeps=120, relaxation=1.0, tolerance=0.0)
PUBLISHED_NUDGED = Schedule(method="even-odd", sweeps=50, relaxation=1.0, tolerance=0.0)
"""The schedule of the published Hopfield-Resnet13: 120 free and twice 50 nudged sweeps."""


class Status(enum.Enum):
    """How settling ended; the value says what to do about it."""

    SETTLED = "settled"
    NOT_SETTLED = (
        "not settled: the residual is above the tolerance; give more sweeps, use method "
        "'sequential', lower the relaxation, or scale the weights down"
    )
    DIVERGED = (
        "not settled: the states are not finite; use method 'sequential', lower the relaxation, "
        "bound the populations with a box, or scale the weights down"
    )


@dataclass(frozen=True)
class SettleResult:
    """Where settling ended, and whether that is an equilibrium.

    Attributes
    ----------
    state : dict of Tensor, (N, *population shape)
        States by population.
    status : Status
        ``SETTLED`` only if every sample met the tolerance.
    residual : Tensor, (N,)
        Largest ``|clip(I) - z|`` over all neurons in the last sweep, in heights of their boxes; not
        a number where nobody asked for it.
    sweeps : int
        Sweeps done, until the last sample settled.
    work : float
        Sweeps a sample: those that settle early stop early.
    drive : dict of Tensor or None
        Drive of each population at its last move, (N, *population shape).
    residuals, energies : list of float
        Largest residual and mean energy (``beta C`` included) by sweep, if recorded.
    """

    state: State
    status: Status
    residual: Tensor
    sweeps: int
    work: float = 0.0
    drive: State | None = None
    residuals: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether every sample met the tolerance."""
        return self.status is Status.SETTLED

    @property
    def unmeasured(self) -> bool:
        """Whether nobody asked for the residual."""
        return bool(self.residual.isnan().all()) and self.status is not Status.DIVERGED

    @property
    def message(self) -> str:
        """The status, the residual and the remedy in one line."""
        if self.settled:
            return f"settled in {self.sweeps} sweeps, residual {self.residual.max():.2g}"
        if self.unmeasured:
            return f"{self.sweeps} sweeps, whose residual was not taken"
        state, remedy = self.status.value.split(": ", 1)
        return f"{state} after {self.sweeps} sweeps, residual {self.residual.max():.2g}: {remedy}"

    def replaced(self, late: Tensor, again: SettleResult, tolerance: float) -> SettleResult:
        """Of two nudged phases in one batch, with the samples `late` (N,) as `again` has them.

        States hold ``+beta`` first, then ``-beta``; the residual is the larger of the two.
        """
        state = {p: v.clone() for p, v in self.state.items()}
        residual = self.residual.clone()
        for p, v in again.state.items():
            state[p][late.repeat(2)] = v.to(state[p].dtype)
        residual[late] = torch.maximum(*again.residual.chunk(2)).to(residual.dtype)
        settled = bool((residual <= tolerance).all())
        return SettleResult(
            state=state,
            status=Status.SETTLED if settled else Status.NOT_SETTLED,
            residual=residual,
            sweeps=self.sweeps + again.sweeps,
            work=self.work + float(late.float().mean()) * again.work,
        )


def settle(
    landscape: Landscape,
    schedule: Schedule,
    state: State | None = None,
    nudge: Nudge | None = None,
    *,
    record: bool = False,
    measure: bool = True,
    on_sweep: Callable[[int, State], None] | None = None,
) -> SettleResult:
    """Minimise the energy of `landscape`, plus ``beta C`` under a `nudge`, over the box.

    Parameters
    ----------
    landscape : Landscape
        The energy of one batch.
    schedule : Schedule
        Order, step and stopping rule.
    state : State, optional
        Where to start; at rest by default. Not modified.
    nudge : Nudge, optional
        Target and nudging factor of a nudged phase.
    record : bool
        Keep residual and energy of every sweep (costs an energy a sweep).
    measure : bool
        Take the residual. A schedule without a tolerance needs none, and a look costs a third of a
        small sweep.
    on_sweep : callable, optional
        Called with (sweep, state) after each sweep.
    """
    groups = schedule.groups(landscape.spec, nudge is not None)
    active = _Active(landscape, schedule, state, nudge)
    watched = record or on_sweep is not None
    measured = measure or watched or schedule.tolerance > 0
    recorder = None if watched else recorder_of(schedule.tolerance, active.device)
    run = Sweeps(
        lambda steps: active.sweeps(groups, steps, measured), [active.z, active.drive], recorder
    )
    residuals: list[float] = []
    energies: list[float] = []
    sweep = work = 0
    with torch.no_grad():
        while sweep < schedule.sweeps:
            steps = schedule.steps(sweep, 1 if watched else CHECK_EVERY)
            found = run(steps)
            sweep += len(steps)
            work += len(steps) * active.landscape.size
            if on_sweep is not None:
                on_sweep(sweep, active.z)
            if not measured or not (record or sweep % CHECK_EVERY == 0):
                continue
            worst = float(found.max())
            if record:
                residuals.append(worst)
                energies.append(float(nudged_energy(landscape, active.z, nudge).mean()))
            if worst <= schedule.tolerance or worst != worst:
                break
            if not watched and recorder is None:
                active.retire(found <= schedule.tolerance)
    z, drive, residual = active.everything()
    # A state that is not finite leaves a residual that is not either.
    finite = not measured or bool(torch.isfinite(residual).all())
    settled = bool((residual <= schedule.tolerance).all())
    status = Status.SETTLED if settled else Status.NOT_SETTLED
    return SettleResult(
        state=z,
        status=status if finite else Status.DIVERGED,
        residual=residual,
        sweeps=sweep,
        work=work / max(1, landscape.size),
        drive=drive,
        residuals=residuals,
        energies=energies,
    )


class _Active:
    """The samples that still move; those that have settled are set aside."""

    def __init__(
        self, landscape: Landscape, schedule: Schedule, state: State | None, nudge: Nudge | None
    ) -> None:
        self.landscape, self.schedule, self.nudge = landscape, schedule, nudge
        start = landscape.rest() if state is None else state
        # In one layout, so that states that were saved and read go on in the same bits.
        self.z = {p: arranged(v) for p, v in start.items()}
        self.drive: State = {}
        self._silent = landscape.silent() if state is None else set()
        self._index: Tensor | None = None
        self._resting: tuple[State, State] = ({}, {})
        self._residual = next(iter(self.z.values())).new_full((landscape.size,), float("nan"))

    @property
    def device(self) -> torch.device:
        """Where the states lie."""
        return self._residual.device

    def sweeps(self, groups: list[list[str]], steps: Steps, measured: bool) -> Tensor:
        """A sweep for each of `steps`; the residual of each active sample in the last.

        It is not a number unless it is to be `measured`.
        """
        for step in steps[:-1]:
            self._sweep(groups, step, measured=False)
        found = self._sweep(groups, steps[-1], measured)
        return self._residual if found is None else found

    def _sweep(self, groups: list[list[str]], relaxation: float, measured: bool) -> Tensor | None:
        """Move every population once; the residual of each active sample if `measured`."""
        found: Tensor | None = None
        for group in groups:
            change = self._move(group, relaxation, measured)
            if change is not None:
                found = change if found is None else torch.maximum(found, change)
        if found is not None:
            self._residual[slice(None) if self._index is None else self._index] = found
        return found

    def retire(self, settled: Tensor) -> None:
        """Set `settled` samples aside once they are worth the copying."""
        if float(settled.float().mean()) < RETIRE_SHARE:
            return
        if self._index is None:
            self._index = torch.arange(len(settled), device=settled.device)
            clones = ({p: v.clone() for p, v in state.items()} for state in (self.z, self.drive))
            self._resting = (next(clones), next(clones))
        self._store()
        keep = (~settled).nonzero().squeeze(1)
        self._index = self._index[keep]
        self.z, self.drive = (
            {p: v[keep] for p, v in state.items()} for state in (self.z, self.drive)
        )
        self.landscape = self.landscape.select(keep)
        self.nudge = None if self.nudge is None else self.nudge.select(keep)

    def everything(self) -> tuple[State, State, Tensor]:
        """States, drives and residuals of all samples."""
        if self._index is None:
            return self.z, self.drive, self._residual
        self._store()
        return *self._resting, self._residual

    def _store(self) -> None:
        for resting, active in zip(self._resting, (self.z, self.drive), strict=True):
            for p, v in active.items():
                resting[p][self._index] = v

    def _move(self, group: list[str], relaxation: float, measured: bool) -> Tensor | None:
        """Move the populations of `group` at once; the residual of each sample if `measured`."""
        landscape, z, moved, residual = self.landscape, self.z, {}, None
        for name in group:
            activation = landscape.activations[name]
            target = landscape.drive(z, name, self._silent)
            self.drive[name] = target
            if self.nudge is not None and name == landscape.spec.output:
                target = self.schedule.nudged(self.nudge, target, z[name], activation)
            moved[name] = arranged(activation.relax(z[name], target, relaxation))
            if measured:
                change = distance(activation, activation(target), z[name])
                residual = change if residual is None else torch.maximum(residual, change)
        z.update(moved)
        self._silent.difference_update(group)
        return residual


def nudged_energy(landscape: Landscape, z: State, nudge: Nudge | None) -> Tensor:
    """``E + beta C`` of each sample, (N,)."""
    energy = landscape.energy(z)
    return energy if nudge is None else energy + nudge.value(z[landscape.spec.output])


def colouring(spec: NetworkSpec) -> list[list[str]]:
    """Independent sets of populations: no coupling joins two of one set.

    Greedy in the order of the spec, which gives two sets for a chain and three for a
    Hopfield-ResNet. Moving a whole set is then an exact block minimisation of the energy.
    """
    neighbours: dict[str, set[str]] = {p.name: set() for p in spec.populations}
    for c in spec.couplings:
        if c.pre != INPUT:
            neighbours[c.pre].add(c.post)
            neighbours[c.post].add(c.pre)
    colours: dict[str, int] = {}
    for name, near in neighbours.items():
        taken = {colours[n] for n in near if n in colours}
        colours[name] = next(i for i in range(len(neighbours)) if i not in taken)
    return [[n for n, c in colours.items() if c == i] for i in range(max(colours.values()) + 1)]
