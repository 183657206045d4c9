"""What is watched while a program learns: a few synapses, and the traces of one sample."""

from __future__ import annotations

import numpy as np

from compilers.ir.graph import Graph, Population, Spiking
from ep_neuro.data.datasets import Split
from targets.experiments.onchip.to_network import forward, real_weight
from targets.interface.protocols import PhaseResult
from targets.interface.session import Session

SYNAPSES = 12
"""Synapses of each weight that are watched."""

NEURONS = 16
"""Neurons of each population whose traces are watched."""


class LearningMonitors:
    """A fixed choice of synapses, neurons and one sample, looked at again at every point.

    Parameters
    ----------
    graph : Graph
        What learns.
    split : Split
        Its first sample is the one whose traces are recorded.
    seed : int
        Of the choice.
    """

    def __init__(self, graph: Graph, split: Split, seed: int) -> None:
        self.sample = split.head(1)
        generator = np.random.default_rng([seed, 17])
        self.synapses = {
            p.weight: _some(generator, graph.arrays[p.weight].size, SYNAPSES)
            for p in forward(graph)
        }
        self.neurons = {p.name: _some(generator, p.size, NEURONS) for p in graph.neurons}

    def look(self, session: Session, graph: Graph) -> dict[str, np.ndarray]:
        """Watched weights and traces now, in real units.

        Parameters
        ----------
        session : Session
            Settles the sample through all phases; learns nothing.
        graph : Graph
            The graph with the weights of this moment.

        Returns
        -------
        dict of ndarray
            ``weight/PRE->POST`` (synapses,), and ``trace/POPULATION/PHASE`` (neurons,): what a rule
            reads at the end of the phase.
        """
        seen = {
            p.weight: real_weight(graph, p).ravel()[self.synapses[p.weight]] for p in forward(graph)
        }
        names = {p.name: f"{p.name}.{shown(p)}" for p in graph.neurons}
        result = session.settle(self.sample.x, self.sample.y, probes=list(names.values()))
        for phase, done in result.phases.items():
            for p in graph.neurons:
                values = trace(p, done, names[p.name])[0].ravel()
                seen[f"trace/{p.name}/{phase}"] = values[self.neurons[p.name]]
        return seen


def shown(population: Population) -> str:
    """The variable that a trace of `population` is taken from."""
    return "message" if isinstance(population.dynamics, Spiking) else "z"


def trace(population: Population, phase: PhaseResult, probe: str) -> np.ndarray:
    """Trace of every neuron at the end of `phase`, (N, *shape), in real units.

    The clipped state; of a spiking population, the mean of its messages over the last half of the
    phase.
    """
    values = np.asarray(phase.probes[probe])
    steps = len(values)
    last = values[steps // 2 :].mean(0) if shown(population) == "message" else values[-1]
    one = 1 if population.message is None else population.message.one
    return population.readout.offset + population.readout.gain * (last / one)


def _some(generator: np.random.Generator, size: int, wanted: int) -> np.ndarray:
    return np.sort(generator.choice(size, min(size, wanted), replace=False))
