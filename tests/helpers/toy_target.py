"""A whole target, learning included: what `CONTRIBUTING.md` walks through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from compilers.ir.graph import Graph, Phase
from compilers.ir.operators import apply
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from targets.interface.protocols import Feature
from targets.interface.simulated_backend import SimulatedBackend
from targets.interface.simulator import SteppedSimulator

Values = Mapping[str, np.ndarray]
LACKING = (Feature.FIXED_POINT, Feature.SIGMA_DELTA, Feature.SPIKE)


class Moment(NamedTuple):
    """Membranes, clipped states, what was sent last: by population, (N, *shape)."""

    v: Values
    z: Values
    message: Values


class ToySimulator(SteppedSimulator[Moment]):
    """Graded leaky integrators in float64, one equation a line."""

    at_once = 64

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._weights = {p.weight: graph.arrays[p.weight] for p in graph.projections}
        self._biases = {p.name: graph.arrays[p.bias] for p in graph.neurons if p.bias}

    def rest(self, samples: int) -> Moment:
        v = {p.name: np.zeros((samples, *p.shape)) for p in self.graph.neurons}
        return Moment(v, self._clipped(v), v)

    def constant(self, x: np.ndarray) -> Values:
        (source,) = self.graph.sources
        return self._driven(self.rest(len(x)).v | self._biases, {source.name: x})

    def step(self, before: Moment, constant: Values, phase: Phase, y: np.ndarray | None) -> Moment:
        drive, output = self._driven(constant, before.message), self.graph.output
        if y is not None:
            drive[output] = drive[output] + phase.nudge * (y - before.z[output])
        leaks = {p.name: p.dynamics.leak for p in self.graph.neurons}
        v = {name: u + leaks[name] * (drive[name] - u) for name, u in before.v.items()}
        return Moment(v, self._clipped(v), self._clipped(v))

    def value(self, moment: Moment, population: str, variable: str) -> np.ndarray:
        return getattr(moment, variable)[population]

    def load(self, learner: PlasticWeights) -> None:
        self._weights.update(learner.operands())
        self._biases.update(learner.biases())
        self.changed()

    def _driven(self, drive: Values, messages: Values) -> dict[str, np.ndarray]:
        total = dict(drive)
        for p in self.graph.projections:
            if p.pre in messages:
                weight, shape = self._weights[p.weight], self.graph.population(p.post).shape
                arrived = apply(p.operator, weight, messages[p.pre], shape)
                total[p.post] = total[p.post] + p.scale * arrived
        return total

    def _clipped(self, v: Values) -> Values:
        boxes = {p.name: p.box or (-np.inf, np.inf) for p in self.graph.neurons}
        return {name: np.clip(u, *boxes[name]) for name, u in v.items()}


class ToyBackend(SimulatedBackend):
    name = "toy"
    summary = "graded neurons in a few lines"
    tolerance = 1e-9
    unsupported = dict.fromkeys(LACKING, "it sends states, in float64")

    def simulator(self, program: Program) -> ToySimulator:
        return ToySimulator(program.graph)


BACKEND = ToyBackend()
