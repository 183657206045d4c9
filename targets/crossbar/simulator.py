"""The executor of a graph with arrays in place of its linear maps, and what arrays remember."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from torch import Tensor

from compilers.execution.engine import Engine
from compilers.execution.maps import inward, outward
from compilers.ir.graph import Graph, Projection
from compilers.ir.operators import apply
from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from targets.crossbar.arrays.array import Array
from targets.crossbar.arrays.layouts import layout
from targets.crossbar.arrays.mapping import (
    array_mappings,
    digital_projections,
    input_mean,
    is_forward,
)
from targets.crossbar.arrays.options import read_options
from targets.crossbar.arrays.tile import Randomness
from targets.interface.graph_simulator import CHUNK_BYTES, GraphSimulator
from targets.interface.request import RunRequest

CONDUCTANCES, DEVICES, NOISE = "conductances/", "devices/", "noise"
"""Keys of a memory: conductances and the state of pulsed devices by id of their weight, and the
state of the noise of reads."""

WRITTEN = 1e-9
"""Difference, relative to the largest weight, from which a write did not get where it should."""


class CrossbarSimulator(GraphSimulator):
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
        graph, options = program.graph, read_options(program.options)
        digital = {p.name for p in digital_projections(graph, options)}
        analog = [p for p in graph.projections if p.name not in digital]
        maps = {p.name: partial(self._read, p) for p in analog}
        super().__init__(graph, Engine(graph, maps=maps))
        self.rests, self.pulses = options.perfect, options.learning != "written"
        self._randomness = Randomness(options.seed)
        self.arrays: dict[str, Array] = {}
        widest = 1
        for n, (mapping, projections) in enumerate(array_mappings(graph, options).items()):
            weight, seed = graph.arrays[mapping.weight], 10_000 * options.seed + n
            array = Array(weight, layout(mapping), options, self._randomness, seed)
            self.arrays |= {p.name: array for p in projections}
            widest = max(widest, mapping.reads * sum(mapping.lines))
        # Lines of the largest array, in and out, are most of what a sample takes.
        self.at_once = max(1, CHUNK_BYTES // (8 * widest))
        self.by_weight = {p.weight: self.arrays[p.name] for p in analog}
        self.biases = {p.name: _bias(graph, p.name) for p in graph.neurons}
        self._mean = input_mean(graph)
        self._given_back = {
            p.name: apply(
                p.operator,
                graph.arrays[p.weight].astype(np.float64),
                self._mean[None],
                graph.population(p.post).shape,
            )
            for p in analog
            if p.pre not in self.biases
        }
        if graph.plasticity or not options.centre:
            # The mean goes through the arrays as well, whose weights may learn.
            self._mean = np.zeros_like(self._mean)
            self._given_back = dict.fromkeys(self._given_back, np.zeros(1))

    def begin(self, job: RunRequest) -> None:
        """Clamp a new batch, under the present biases; the input's arrays are read once."""
        self.engine.load({}, self.biases)
        super().begin(job)

    def _read(self, projection: Projection, states: Tensor) -> Tensor:
        """The map that the executor is given in place of an operator."""
        array = self.arrays[projection.name]
        read = array.forward if is_forward(projection) else array.backward
        if projection.pre in self.biases:
            return inward(read(outward(states)))
        return inward(read(outward(states) - self._mean) + self._given_back[projection.name])

    # --- learning ------------------------------------------------------------------------------

    def sense(self, learner: PlasticWeights) -> None:
        """Take over the weights that the devices hold."""
        for name in self._plastic(learner):
            learner.weights[name] = self.by_weight[name].weights()

    def load(self, learner: PlasticWeights) -> None:
        """Write the devices, ideally, up to the end of their range; read back what they hold.

        Where they learn by pulses, they hold what the learner says already.
        """
        for name in () if self.pulses else self._plastic(learner):
            wanted, array = learner.weights[name], self.by_weight[name]
            array.update(wanted - array.weights())
            found = array.weights()
            missed = np.abs(found - wanted) > WRITTEN * np.abs(found).max(initial=1e-12)
            learner.clipped += int(np.count_nonzero(missed))
            learner.weights[name] = found
        self._take_biases(learner)

    def _plastic(self, learner: PlasticWeights) -> list[str]:
        return [name for name in self.by_weight if name in learner.weights]

    def _take_biases(self, learner: PlasticWeights) -> None:
        self.biases.update(learner.biases())
        self.engine.load({}, self.biases)
        self._stale = True

    def memory(self) -> dict[str, np.ndarray]:
        """Conductances, the state of pulsed devices, and that of the noise."""
        held = {f"{CONDUCTANCES}{name}": a.conductances() for name, a in self.by_weight.items()}
        devices = {
            f"{DEVICES}{name}/{key}": value
            for name, array in self.by_weight.items()
            for key, value in array.devices().items()
        }
        return {**held, **devices, NOISE: self._randomness.state()}

    def restore(self, memory: Mapping[str, np.ndarray], learner: PlasticWeights) -> None:
        """Go on with the conductances and the noise of `memory`."""
        for name, array in self.by_weight.items():
            array.restore(memory[f"{CONDUCTANCES}{name}"])
            start = f"{DEVICES}{name}/"
            array.restore_devices(
                {k[len(start) :]: value for k, value in memory.items() if k.startswith(start)}
            )
        self._randomness.restore(memory[NOISE])
        self._take_biases(learner)

    def weights(self) -> dict[str, np.ndarray]:
        """Weights by id as the devices hold them; where cells share one, their mean."""
        return {name: array.weights() for name, array in self.by_weight.items()}


def _bias(graph: Graph, name: str) -> np.ndarray:
    population = graph.population(name)
    if population.bias is None:
        return np.zeros(population.shape)
    return graph.arrays[population.bias].astype(np.float64)
