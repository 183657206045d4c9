"""How true a gradient is, watched while training, and the fewest sweeps that keep it so."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.distributed import Ranks
from ep_neuro.estimators import FrozenMean, Gradient
from ep_neuro.network import Network
from ep_neuro.settle import Schedule
from ep_neuro.verify import cosine

LADDER = ((1, 1), (2, 1), (3, 2), (4, 3), (6, 4), (9, 6), (14, 10), (20, 15), (30, 20), (50, 35))
"""Sweeps of the free and the nudged phase to choose from, in the order of their cost."""

PLAIN = 6
"""Free sweeps up to which steps are whole: over-relaxation pays where many sweeps follow."""

REFERENCE = FrozenMean(
    beta=1e-4,
    free=Schedule(sweeps=500, tolerance=1e-8),
    nudged=Schedule(sweeps=500, tolerance=1e-4),
    fallback=False,
)
"""Both phases settled tightly, in float64, under a nudge that moves no neuron to an end of its box.

It is the implicit gradient (`ep_neuro.baselines.implicit_gradient`) to the tolerance of the
response, which is relative population by population: where units shrink, conjugate gradients would
have to reduce their residual by the ratio of the first unit and the last.
"""


class Truth(BaseModel):
    """What the gradient of `FrozenMean` has to be, and how often to look.

    Every so many steps a few samples of the batch are settled tightly (`REFERENCE`), and the
    gradient by the sweeps in use is held against theirs. Sweeps rise while the cosine is
    further from 1 than half of what is allowed, and fall when fewer leave it nearer than a quarter:
    the weights move on until the next look. The phases as the estimator's own schedules say are the
    last resort.

    Attributes
    ----------
    cosine : float
        Least cosine of the whole gradient to the implicit one.
    every : int
        Steps from one look to the next.
    samples : int
        Samples of a look, a process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cosine: Annotated[float, Field(gt=0, lt=1)] = 0.99
    every: Annotated[int, Field(ge=1)] = 100
    samples: Annotated[int, Field(ge=1)] = 8


@dataclass(frozen=True)
class Look:
    """The gradient held against the truth: as it was used until now, and the sweeps from now on.

    ``cosine`` is over all parameters, ``worst`` that of the worst weight; both are 0 where an
    equilibrium is too flat to settle tightly.
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
        self._reference = _reference(estimator)
        self._rungs = [*(shortened(estimator, *rung) for rung in fewer), estimator]
        self._rung: int | None = None

    @property
    def estimator(self) -> FrozenMean:
        """The estimator with the sweeps in use."""
        return self._rungs[self._rung or 0]

    def due(self, step: int) -> bool:
        """Whether to look before `step`, the first of which is 0."""
        return self._rung is None or step % self.truth.every == 0

    def look(self, network: Network, x: Tensor, y: Tensor, ranks: Ranks) -> Look:
        """Hold the gradient of the first samples against the truth, and choose the sweeps anew."""
        few = slice(None, self.truth.samples)
        x, y = x[few], y[few]
        exact = _exact(self._reference, network, x, y)

        def found(rung: int) -> tuple[float, float]:
            mine = (1.0, 1.0) if not len(x) else _cosines(self._rungs[rung], network, x, y, exact)
            all_ranks = list(zip(*ranks.gather(mine), strict=True))
            return min(all_ranks[0]), min(all_ranks[1])

        allowed = 1 - self.truth.cosine
        rung = self._rung or 0
        now = found(rung)
        used = now if self._rung is not None else None
        climbs = now[0] < 1 - allowed / 2
        while now[0] < 1 - allowed / 2 and rung + 1 < len(self._rungs):
            rung += 1
            now = found(rung)
        if not climbs and rung and found(rung - 1)[0] > 1 - allowed / 4:
            rung -= 1
        self._rung = rung
        cosine, worst = used or now
        chosen = self.estimator
        return Look(cosine, worst, chosen.free.sweeps, chosen.nudged.sweeps)

    def state(self) -> dict[str, Any]:
        """What another control needs to go on."""
        return {"rung": self._rung}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` of another gave."""
        self._rung = state["rung"]


def shortened(estimator: FrozenMean, free: int, nudged: int) -> FrozenMean:
    """`estimator` with so many sweeps and no tolerance."""
    plain: dict[str, Any] = {"relaxation": 1.0} if free <= PLAIN else {}
    phases = {
        name: schedule.model_copy(update={"sweeps": sweeps, "tolerance": 0.0, **plain})
        for name, schedule, sweeps in (
            ("free", estimator.free, free),
            ("nudged", estimator.nudged, nudged),
        )
    }
    return estimator.model_copy(update={**phases, "fallback": False})


def _reference(estimator: FrozenMean) -> FrozenMean:
    """`REFERENCE` with the steps of `estimator`: deep chains in units take no over-relaxation."""
    phases = {
        name: getattr(REFERENCE, name).model_copy(update={"relaxation": schedule.relaxation})
        for name, schedule in (("free", estimator.free), ("nudged", estimator.nudged))
    }
    return REFERENCE.model_copy(update=phases)


def _exact(reference: FrozenMean, network: Network, x: Tensor, y: Tensor) -> Gradient | None:
    """The gradient by `reference`; None where there are no samples, or one does not settle."""
    if not len(x):
        return None
    found = reference(copy.deepcopy(network).double(), x.double(), y.double())
    settled = found.free.settled and found.nudged is not None and found.nudged.settled
    return found.gradient if settled else None


def _cosines(
    estimator: FrozenMean, network: Network, x: Tensor, y: Tensor, exact: Gradient | None
) -> tuple[float, float]:
    """Cosine of the gradient, and that of its worst weight."""
    if exact is None:
        return 0.0, 0.0
    gradient = {k: g.double() for k, g in estimator(network, x, y).gradient.items()}
    weights = [
        cosine({name: gradient[name]}, {name: value})
        for name, value in exact.items()
        if name.startswith("weight/") and bool(value.any())
    ]
    return cosine(gradient, exact), min(weights, default=1.0)
