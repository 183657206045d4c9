"""What a chip would write for one batch, and the exact gradient of the weights that it holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

import targets
from compilers.ir.graph import Graph, Spiking
from compilers.learning.plastic_weights import PlasticWeights
from compilers.learning.real_units import in_floating_point, real_bias, real_weight, spec_of
from compilers.learning.synapses import Synapses
from compilers.learning.traces import spike_weights, trace
from compilers.program import Program
from ep_neuro.energy.costs import one_hot
from ep_neuro.errors import TargetError
from ep_neuro.estimators.baselines import Implicit
from ep_neuro.estimators.gradient_check import TIGHT
from ep_neuro.network.network import Network
from targets.experiments.comparison.compare import on_reference
from targets.interface.request import prepare

UNWRITTEN = 2.0**-40
"""Scale of the rates at which no commit reaches a step of an integer weight: all stays in tags."""

Directions = dict[str, np.ndarray]
"""Estimates of the negative gradient of the mean cost, by id of weight or bias; real units."""


def written(program: Program, x: np.ndarray, y: np.ndarray, scale: float = 1.0) -> Directions:
    """What one commit changes on the target of `program`, over its rate; `scale` is of the rate."""
    with targets.learner(program) as session:
        before = session.memory()
        session.learn(x, y, batch=len(x), rate_scale=scale)
        after = session.memory()
    graph, found = program.graph, {}
    for s in _synapses(graph):
        name = s.record.weight
        change = s.operand(after[name] - before[name]) * s.unit
        found[name] = change / (s.record.step * scale * contrast(graph))
    return found


def learnt_by(program: Program, x: np.ndarray, y: np.ndarray) -> Directions:
    """What a batch would change on the target of `program`, over its rate, before it is rounded.

    To the steps of an integer weight it is rounded at random, and right on average; so what counts
    is the tag, which stays where it is if the rate is too low to write anything. A target that
    keeps no tags tells what it writes.
    """
    graph = program.graph
    records = tuple(replace(r, decay=0.0) for r in graph.plasticity)
    if graph.quantised:
        try:
            return _tagged(
                replace(program, graph=_keeping(replace(graph, plasticity=records))), x, y
            )
        except TargetError:
            # The learning engine of a chip rounds what it writes, and remembers nothing.
            pass
    return written(replace(program, graph=replace(graph, plasticity=records)), x, y)


def _keeping(graph: Graph) -> Graph:
    records = tuple(replace(r, rule=replace(r.rule, keep=True)) for r in graph.plasticity)
    return replace(graph, plasticity=records)


def _tagged(program: Program, x: np.ndarray, y: np.ndarray) -> Directions:
    with targets.learner(program) as session:
        session.learn(x, y, batch=len(x), rate_scale=UNWRITTEN)
        memory = session.memory()
    tags = {s.record.weight: memory[f"tag/{s.record.weight}"] for s in _synapses(program.graph)}
    return _mean(program.graph, tags, len(x))


def read_between_spikes(graph: Graph, x: np.ndarray, y: np.ndarray) -> Directions:
    """What spikes would teach if rules read the filtered currents instead, in floating point.

    They are averaged as spikes are, with the same weights, and held in the box.
    """
    graph = in_floating_point(graph)
    program = on_reference(Program("reference", graph))
    names = [p.name for p in graph.neurons if isinstance(p.dynamics, Spiking)]
    learner, (source,) = PlasticWeights(graph), graph.sources
    with targets.open(program) as session:
        phases = session.settle(x, y, probes=[f"{name}.u" for name in names]).phases
    clamped = {source.name: trace(source, prepare(graph, x).x)}
    for phase in (p for p in graph.phases if p.sign):
        weights = spike_weights(phase.steps, from_rest=phase.start is None)
        currents = {n: phases[phase.name].probes[f"{n}.u"] for n in names}
        sums = {
            n: np.tensordot(weights, np.asarray(u, np.float64), 1).clip(0, weights.sum())
            for n, u in currents.items()
        }
        traces = {n: trace(graph.population(n), s, int(weights.sum())) for n, s in sums.items()}
        learner.accumulate(phase.sign, {**clamped, **traces}, {})
    return _mean(graph, learner.tags, len(x))


def _mean(graph: Graph, tags: dict[str, np.ndarray], samples: int) -> Directions:
    return {
        s.record.weight: tags[s.record.weight] * (s.tag_unit / samples / contrast(graph))
        for s in _synapses(graph)
    }


def _synapses(graph: Graph) -> list[Synapses]:
    return [Synapses(graph, index) for index in range(len(graph.plasticity))]


def contrast(graph: Graph) -> float:
    """By which a tag exceeds the gradient: the sum of signs times nudges."""
    return sum(p.sign * p.nudge for p in graph.phases)


def exact(graph: Graph, x: np.ndarray, y: np.ndarray) -> tuple[Directions, float]:
    """The negative gradient of the mean cost at the equilibrium of `graph`, of all that learns.

    And the share of the samples that did not come to rest there.

    By implicit differentiation, in float64, of the weights and biases that the graph has in real
    units. A stuck synapse has none.

    Parameters
    ----------
    graph : Graph
        Lowered, in floating point or in integers.
    x, y : ndarray, (N, *input shape), (N,)
        Inputs and labels.

    Raises
    ------
    CheckFailed
        If the equilibrium is no strict minimum of the energy.
    """
    network = Network(spec_of(graph)).double()
    for tie in map(graph.tie, graph.ties):
        network.weights[tie.name].data = torch.from_numpy(real_weight(graph, tie.weight))
    for p in graph.neurons:
        # One a neuron, where a normalised input makes those of a channel differ.
        network.biases[p.name].data = torch.from_numpy(real_bias(graph, p))
    wanted = one_hot(torch.from_numpy(y), network.spec.target_shape, torch.float64)
    estimate = Implicit(free=TIGHT)(network, torch.from_numpy(x).double(), wanted)
    gradient, found = estimate.gradient, {}
    unsettled = float((estimate.free.residual > TIGHT.tolerance).double().mean())
    for s in _synapses(graph):
        name = s.record.weight
        if s.pre is None:
            slope = gradient[f"bias/{s.post.name}"].numpy()
            found[name] = -slope.reshape(len(slope), -1).sum(1)
        else:
            found[name] = -gradient[f"weight/{graph.tie(name).name}"].numpy()
        if s.record.mask is not None:
            found[name] = found[name] * (graph.arrays[s.record.mask] != 0)
    return found, unsettled
