"""The executor of a graph with arrays in place of its linear maps, and what arrays remember."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from torch import Tensor

from compilers.execution.engine import Engine, Snapshot
from compilers.execution.maps import inward, outward
from compilers.ir.graph import Graph, Phase, Projection
from compilers.ir.operators import apply
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from targets.crossbar.arrays.array import Array
from targets.crossbar.arrays.layouts import layout
from targets.crossbar.arrays.mapping import array_mappings, input_mean, is_forward
from targets.crossbar.arrays.options import read_options
from targets.crossbar.arrays.tile import Randomness
from targets.interface.simulator import SteppedSimulator

CHUNK_BYTES = 64 << 20
"""Working memory of one batch: lines of the largest array, in and out."""

CONDUCTANCES, NOISE = "conductances/", "noise"
"""Keys of a memory: conductances by id of their weight, and the state of the noise of reads."""

WRITTEN = 1e-9
"""Difference, relative to the largest weight, from which a write did not get where it should."""


class CrossbarSimulator(SteppedSimulator[Snapshot]):
    """Settles inputs on noisy arrays, and changes them by ideal writes.

    The arrays are programmed once, when the session opens; noise of reads goes on from call to
    call. A session of the same program and seed repeats all of it.

    Attributes
    ----------
    arrays : dict of str to Array
        By projection; both directions of a coupling hold the same one.
    biases : dict of ndarray
        By population, digital; learning changes them.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program.graph)
        options = read_options(program.options)
        self._randomness = Randomness(options.seed)
        self.arrays: dict[str, Array] = {}
        widest = 1
        for n, (mapping, projections) in enumerate(
            array_mappings(self.graph, options.conv).items()
        ):
            weight, seed = self.graph.arrays[mapping.weight], 10_000 * options.seed + n
            array = Array(weight, layout(mapping), options, self._randomness, seed)
            self.arrays |= {p.name: array for p in projections}
            widest = max(widest, mapping.reads * sum(mapping.lines))
        self.by_weight = {p.weight: self.arrays[p.name] for p in self.graph.projections}
        self.biases = {p.name: _bias(self.graph, p.name) for p in self.graph.neurons}
        self._mean = input_mean(self.graph)
        self._given_back = {
            p.name: apply(
                p.operator,
                self.graph.arrays[p.weight].astype(np.float64),
                self._mean[None],
                self.graph.population(p.post).shape,
            )
            for p in self.graph.projections
            if p.pre not in self.biases
        }
        if self.graph.plasticity or not options.centre:
            self.read_inputs_as_they_are()
        self.at_once = max(1, CHUNK_BYTES // (8 * widest))
        maps = {p.name: partial(self._read, p) for p in self.graph.projections}
        self._engine = Engine(self.graph, maps=maps)
        self._now: Snapshot | None = None

    # --- steps ---------------------------------------------------------------------------------

    def rest(self, samples: int) -> Snapshot:
        """The moment before the first step."""
        self._batch = self._engine.batch(samples)
        self._batch.rest()
        self._now = self._batch.moment()
        return self._now

    def constant(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Bias and input drive; the input's arrays are read once and the result is held."""
        self._batch = self._engine.batch(len(x))
        self._engine.load({}, self.biases)
        self._batch.clamp(self._engine.message(x))
        return {name: outward(self._batch.view("constant", name)) for name in self.biases}

    def step(
        self,
        before: Snapshot,
        constant: Mapping[str, np.ndarray],
        phase: Phase,
        y: np.ndarray | None,
    ) -> Snapshot:
        """The moment after one step of `phase`; the executor holds the `constant` drive."""
        self._go_to(before)
        self._batch.step(phase, None if y is None else self._engine.target(y))
        self._now = self._batch.moment()
        return self._now

    def value(self, moment: Snapshot, population: str, variable: str) -> np.ndarray:
        """A variable of a population, (N, *shape)."""
        self._go_to(moment)
        held = "sent" if variable == "told" else variable
        return np.array(outward(self._batch.view(held, population)), order="C")

    def _go_to(self, moment: Snapshot) -> None:
        if moment is not self._now:
            self._batch.go_to(moment)
            self._now = moment

    def _read(self, projection: Projection, states: Tensor) -> Tensor:
        array = self.arrays[projection.name]
        read = array.forward if is_forward(projection) else array.backward
        if projection.pre in self.biases:
            return inward(read(outward(states)))
        return inward(read(outward(states) - self._mean) + self._given_back[projection.name])

    def read_inputs_as_they_are(self) -> None:
        """Let the mean of the input go through the arrays, whose weights may learn."""
        self._mean = np.zeros_like(self._mean)
        self._given_back = dict.fromkeys(self._given_back, np.zeros(1))

    # --- learning ------------------------------------------------------------------------------

    def sense(self, learner: PlasticWeights) -> None:
        """Take over the weights that the devices hold."""
        for name in self._plastic(learner):
            learner.weights[name] = self.by_weight[name].weights()

    def load(self, learner: PlasticWeights) -> None:
        """Write the devices, ideally, up to the end of their range; read back what they hold."""
        for name in self._plastic(learner):
            wanted, array = learner.weights[name], self.by_weight[name]
            array.update(wanted - array.weights())
            found = array.weights()
            missed = np.abs(found - wanted) > WRITTEN * np.abs(found).max(initial=1e-12)
            learner.clipped += int(np.count_nonzero(missed))
            learner.weights[name] = found
        self.biases.update(learner.biases())
        self.changed()

    def _plastic(self, learner: PlasticWeights) -> list[str]:
        return [name for name in self.by_weight if name in learner.weights]

    def memory(self) -> dict[str, np.ndarray]:
        """Conductances, and the state of the noise."""
        held = {f"{CONDUCTANCES}{name}": a.conductances() for name, a in self.by_weight.items()}
        return {**held, NOISE: self._randomness.state()}

    def restore(self, memory: Mapping[str, np.ndarray], learner: PlasticWeights) -> None:
        """Go on with the conductances and the noise of `memory`."""
        for name, array in self.by_weight.items():
            array.restore(memory[f"{CONDUCTANCES}{name}"])
        self._randomness.restore(memory[NOISE])
        self.biases.update(learner.biases())
        self.changed()

    def weights(self, graph: Graph, learner: PlasticWeights | None) -> dict[str, np.ndarray]:
        """Weights by id as the devices hold them; where cells share one, their mean."""
        return {name: array.weights() for name, array in self.by_weight.items()}


def _bias(graph: Graph, name: str) -> np.ndarray:
    population = graph.population(name)
    if population.bias is None:
        return np.zeros(population.shape)
    return graph.arrays[population.bias].astype(np.float64)
