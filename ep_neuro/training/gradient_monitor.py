"""How true a gradient is, watched while training, and the fewest sweeps that keep it so."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.estimators import FrozenMean, Gradient
from ep_neuro.estimators.gradient_check import cosine, in_units
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule
from ep_neuro.training.distributed import Ranks

LADDER = ((1, 1), (2, 1), (3, 1), (4, 2), (6, 4), (9, 6), (14, 10), (20, 15), (30, 20), (50, 35))
"""Sweeps of the free and the nudged phase to choose from, in the order of their cost.

What is missing of a weakly coupled network's gradient is missing from its free state: one nudged
sweep, which visits the populations from the output back, is then all but settled.
"""

START = 1
"""Rung to begin on: one free sweep alone sees no feedback, and may do once the weights are calm."""

CLIMB, UNEASY, FALL = 0.5, 0.25, 0.1
"""Shares of the distance from 1 that a cosine may have: above the first, sweeps rise; above the
second, looks come more often; sweeps fall if fewer stay below the third. The weights move on until
the next look, tenfold in thirty steps early in training, and its samples are others."""

OFTEN = 4
"""How many times more often to look where a cosine is uneasy; and the part of its age within which
a young network moves no further than a look can follow."""

PLAIN = 6
"""Free sweeps up to which steps are whole: over-relaxation pays where many sweeps follow."""

REFERENCE = FrozenMean(
    beta=1e-4,
    free=Schedule(sweeps=500, tolerance=1e-8),
    nudged=Schedule(sweeps=500, tolerance=1e-4),
    fallback=False,
)
"""Both phases settled tightly, in float64, under a nudge that moves no neuron to an end of its box.

It is the implicit gradient (`ep_neuro.estimators.baselines.implicit_gradient`) to the tolerance of
the response, which is relative population by population: where units shrink, conjugate gradients
would have to reduce their residual by the ratio of the first unit and the last.
"""

SOON = 20
"""Plain sweeps within which a weakly coupled network is at rest, where over-relaxation only rings;
`REFERENCE` goes on from there where they were too few."""

FAR = 0.1
"""Distance of the two nudged states of `REFERENCE`, in box heights, above which no equilibrium
answered the nudge, but another one, or an end of the box, took them in."""


class Truth(BaseModel):
    """What the gradient of `FrozenMean` has to be, and how often to look.

    At a look a few samples of the batch are settled tightly (`REFERENCE`), and the gradient by the
    sweeps in use is held against theirs. Sweeps rise while the cosine comes near to what is asked
    (`CLIMB`): the weights move on until the next look. The phases as the estimator's own schedules
    say are the last resort. The next look comes after one step where the sweeps changed, and after
    twice the steps of last time where they did not, up to `every`, or a quarter of that while the
    cosine is not well above (`UNEASY`), and up to a quarter of the steps so far unless it is far
    above (`FALL`): young weights move fast. Once `every` apart, looks let the sweeps fall where
    fewer leave the cosine far above.

    Attributes
    ----------
    cosine : float
        Least cosine of the whole gradient, in units, to the implicit one.
    every : int
        Most steps from one look to the next.
    samples : int
        Samples of a look, a process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cosine: Annotated[float, Field(gt=0, lt=1)] = 0.99
    every: Annotated[int, Field(ge=1)] = 100
    samples: Annotated[int, Field(ge=1)] = 16


@dataclass(frozen=True)
class Look:
    """The gradient held against the truth: as it was used until now, and the sweeps from now on.

    ``cosine`` is over all parameters, ``worst`` that of the worst weight; both are 0 where an
    equilibrium is too flat to settle tightly, or the gradient is not finite.
    """

    cosine: float
    worst: float
    free: int
    nudged: int


class TruthControl:
    """Chooses the sweeps of an estimator by what they do to its gradient.

    Parameters
    ----------
    truth : Truth
    estimator : FrozenMean
        Its method and precision hold for all sweeps; its schedules are the most that is done.
    """

    def __init__(self, truth: Truth, estimator: FrozenMean) -> None:
        self.truth = truth
        limit = (estimator.free.sweeps, estimator.nudged.sweeps)
        fewer = [rung for rung in LADDER if rung[0] < limit[0] and rung[1] <= limit[1]]
        self._references = [_reference(estimator, plain=plain) for plain in (True, False)]
        self._rungs = [*(shortened(estimator, *rung) for rung in fewer), estimator]
        self._rung: int | None = None
        self._next, self._wait = 0, 1
        self.latest: Look | None = None

    @property
    def estimator(self) -> FrozenMean:
        """The estimator with the sweeps in use."""
        return self._rungs[self._current]

    @property
    def _current(self) -> int:
        """The rung in use."""
        return min(START, len(self._rungs) - 1) if self._rung is None else self._rung

    def due(self, step: int) -> bool:
        """Whether to look before `step`, the first of which is 0."""
        return step >= self._next

    def look(self, step: int, network: Network, x: Tensor, y: Tensor, ranks: Ranks) -> Look:
        """Hold the gradient of the first samples before `step` against the truth; choose sweeps."""
        few = slice(None, self.truth.samples)
        x, y = x[few], y[few]
        exact = _exact(self._references, network, x, y)

        def found(rung: int) -> tuple[float, float]:
            mine = (1.0, 1.0) if not len(x) else _cosines(self._rungs[rung], network, x, y, exact)
            all_ranks = list(zip(*ranks.gather(mine), strict=True))
            return min(all_ranks[0]), min(all_ranks[1])

        allowed = 1 - self.truth.cosine
        before = rung = self._current
        now = found(rung)
        used = now if self._rung is not None else None
        enough = now[0] >= 1 - CLIMB * allowed
        tried = {rung: now[0]}
        while now[0] < 1 - CLIMB * allowed and rung + 1 < len(self._rungs):
            rung += 1
            now = found(rung)
            tried[rung] = now[0]
        if 0 < (best := max(tried.values())) < 1 - CLIMB * allowed:
            # What no sweeps bring back is missing for another reason, such as a nudge that clips.
            rung = min(r for r, cos in tried.items() if cos >= best - FALL * allowed)
        climbs = rung > before
        calm = self._wait >= self.truth.every
        falls = calm and enough and rung > 0 and found(rung - 1)[0] >= 1 - FALL * allowed
        rung -= falls
        longest = self.truth.every
        if now[0] < 1 - UNEASY * allowed:
            longest //= OFTEN
        if now[0] < 1 - FALL * allowed:
            longest = min(longest, step // OFTEN)
        self._wait = 1 if climbs or falls else max(1, min(2 * self._wait, longest))
        self._next = step + self._wait
        self._rung = rung
        chosen = self.estimator
        self.latest = Look(*(used or now), chosen.free.sweeps, chosen.nudged.sweeps)
        return self.latest

    def state(self) -> dict[str, Any]:
        """What another control needs to go on."""
        latest = None if self.latest is None else asdict(self.latest)
        return {"rung": self._rung, "next": self._next, "wait": self._wait, "latest": latest}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` of another gave; of an older version, look anew."""
        if "next" in state:
            self._rung, self._next, self._wait = (state[k] for k in ("rung", "next", "wait"))
            self.latest = Look(**state["latest"]) if state["latest"] else None


def shortened(estimator: FrozenMean, free: int, nudged: int) -> FrozenMean:
    """`estimator` with so many sweeps and no tolerance."""
    phases = {
        name: schedule.model_copy(
            update={
                "sweeps": sweeps,
                "tolerance": 0.0,
                "relaxation": _step(schedule, free),
            }
        )
        for name, schedule, sweeps in (
            ("free", estimator.free, free),
            ("nudged", estimator.nudged, nudged),
        )
    }
    return estimator.model_copy(update={**phases, "fallback": False})


def _step(schedule: Schedule, free: int) -> float | Literal["auto"]:
    """Relaxation of so few sweeps: whole steps, unless `schedule` itself takes smaller ones."""
    if free > PLAIN:
        return schedule.relaxation
    return 1.0 if schedule.relaxation == "auto" else min(schedule.relaxation, 1.0)


def _reference(estimator: FrozenMean, *, plain: bool) -> FrozenMean:
    """`REFERENCE` by a few plain sweeps, or by the steps of `estimator`.

    Deep chains in units take no over-relaxation, and their own schedules say so.
    """
    phases = {}
    for name in ("free", "nudged"):
        theirs = getattr(estimator, name)
        steps: dict[str, Any] = {"relaxation": theirs.relaxation}
        if plain:
            steps = {"relaxation": _step(theirs, PLAIN), "sweeps": SOON}
        phases[name] = getattr(REFERENCE, name).model_copy(update=steps)
    return REFERENCE.model_copy(update=phases)


def _exact(references: list[FrozenMean], network: Network, x: Tensor, y: Tensor) -> Gradient | None:
    """The gradient by `references`; None where there are no samples, or no equilibrium."""
    if not len(x):
        return None
    plain, own = references
    network, x, y = copy.deepcopy(network).double(), x.double(), y.double()
    found = plain(network, x, y)
    if not (found.nudged and found.free.settled and found.nudged.settled):
        found = own(network, x, y, found.free.state)
    if not (found.nudged and found.free.settled and found.nudged.settled):
        return None
    for p in network.spec.populations:
        plus, minus = found.nudged.state[p.name].chunk(2)
        if float((plus - minus).abs().max()) > FAR * p.height:
            return None
    return found.gradient


def _cosines(
    estimator: FrozenMean, network: Network, x: Tensor, y: Tensor, exact: Gradient | None
) -> tuple[float, float]:
    """Cosine of the gradient, and that of its worst weight."""
    if exact is None:
        return 0.0, 0.0
    found = {k: g.double() for k, g in estimator(network, x, y).gradient.items()}
    gradient, exact = in_units(network, found), in_units(network, exact)
    weights = [
        _finite(cosine({name: gradient[name]}, {name: value}))
        for name, value in exact.items()
        if name.startswith("weight/") and bool(value.any())
    ]
    return _finite(cosine(gradient, exact)), min(weights, default=1.0)


def _finite(value: float) -> float:
    """`value`, or 0: sweeps rise for a gradient that is no number."""
    return value if math.isfinite(value) else 0.0
