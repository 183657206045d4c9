"""What a run costs on a machine: energy, time and memory traffic, estimated from counted events.

Static power, the host, barriers and waiting for messages are left out: all are lower bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compilers.hardware.limits import HardwareLimits
from compilers.hardware.placement import (
    messages,
    state_bits,
    state_words,
    synapses_into,
    weight_bits,
)
from compilers.ir.graph import Graph, Projection
from compilers.ir.operators import fanout
from ep_neuro.errors import TargetError


@dataclass(frozen=True)
class Activity:
    """What one sample did in one phase, counted: messages and synaptic operations by sender."""

    events: Mapping[str, float]
    synops: Mapping[str, float]
    steps: int


@dataclass(frozen=True)
class Cost:
    """One sample in one phase."""

    parts: Mapping[str, float]
    """Energy by what it is spent on, joule: messages, hops, synaptic operations, neuron updates."""
    seconds: float
    """Work of the busiest core; of one core that does it all where the graph is not placed."""
    memory_bytes: float
    """Weights read, and states read and written."""
    between_chips: float = 0.0
    """Messages that leave their chip."""

    @property
    def joule(self) -> float:
        """Sum of the parts."""
        return sum(self.parts.values())


def phase_cost(graph: Graph, hardware: HardwareLimits, activity: Activity) -> Cost:
    """Cost of `activity` of `graph` on `hardware`.

    Every neuron is taken to be active at every step, as the steps of a leaky integrator are. On a
    placed graph a message counts once for each core that it goes to, and hops from router to
    router; the neurons of a population are taken to be equally busy.

    Raises
    ------
    TargetError
        If the hardware has no energy constants.
    """
    energy = hardware.energy
    if energy is None:
        problem = "has no energy constants"
        raise TargetError(f"hardware '{hardware.name}'", problem, "add 'energy' to its YAML file")
    per_event = _routes(graph, hardware)
    delivered, hops, crossing = (
        sum(n * per_event[name][i] for name, n in activity.events.items()) for i in range(3)
    )
    updates = activity.steps * sum(p.size for p in graph.neurons)
    synops = sum(activity.synops.values())
    parts = {
        "messages": energy.event.value * delivered,
        "hops": energy.hop.value * hops,
        "synaptic operations": energy.synaptic_operation.value * synops,
        "neuron updates": energy.active_update.value * updates,
    }
    seconds = _seconds(graph, hardware, activity)
    return Cost(parts, seconds, memory_traffic(graph, activity), crossing)


def memory_traffic(graph: Graph, activity: Activity) -> float:
    """Bytes: one weight a synaptic operation, every state read and written at every step."""
    weights = sum(activity.synops.values()) * weight_bits(graph) / 8
    states = sum(p.size * state_words(graph, p) * state_bits(p) / 8 for p in graph.neurons)
    return weights + 2 * activity.steps * states


def learning_joule(
    graph: Graph, hardware: HardwareLimits, phases: Sequence[Activity]
) -> float | None:
    """Energy of one learning step: all `phases`, and one change of every stored weight.

    A weight that both directions share, or several cores, changes in every place that stores it.
    None if the hardware has no constant for the change of a weight.
    """
    if hardware.energy is None or hardware.energy.weight_update.value == 0:
        return None
    settling = sum(phase_cost(graph, hardware, phase).joule for phase in phases)
    return settling + hardware.energy.weight_update.value * stored_weights(graph, hardware)


def stored_weights(graph: Graph, hardware: HardwareLimits) -> int:
    """Weights in all places that store them; each projection once where nothing is placed."""
    if not graph.placement:
        return sum(graph.arrays[p.weight].size for p in graph.projections)
    shared = hardware.parameter("shared_kernels", 1) > 0
    return sum(
        synapses_into(graph, p, t, shared)
        for t in graph.placement
        for p in graph.into(t.population)
    )


# --- routes and shares -------------------------------------------------------------------------


def _routes(graph: Graph, hardware: HardwareLimits) -> dict[str, tuple[float, float, float]]:
    """Of each population, per message: cores it goes to, hops on the way, chips left behind.

    Unplaced populations, and the input, which comes from outside, count one core and no hops.
    """
    alone = dict.fromkeys((p.name for p in graph.populations), (1.0, 0.0, 0.0))
    if not graph.placement:
        return alone
    sent = messages(graph)
    hops, chip = _distances(graph, hardware)
    found = {}
    for population in graph.neurons:
        cores = sorted({t.core for t in graph.placement if t.population == population.name})
        rows = sent[cores] / population.size
        apart = chip[cores][:, None] != chip[None, :]
        found[population.name] = (
            float(rows.sum()),
            float((rows * hops[cores]).sum()),
            float((rows * apart).sum()),
        )
    return {**alone, **found}


def _distances(graph: Graph, hardware: HardwareLimits) -> tuple[np.ndarray, np.ndarray]:
    """Hops between cores, and the chip of each core.

    Routers form a square on each chip, row by row; chips form a line and are joined at the same
    router of each, one hop apart.
    """
    chip = np.zeros(1 + max(t.core for t in graph.placement), np.int64)
    for t in graph.placement:
        chip[t.core] = t.chip
    per_chip, per_router = hardware.limit("cores"), hardware.parameter("cores_per_router", 1)
    index = np.arange(len(chip))
    router = (index % per_chip if math.isfinite(per_chip) else index) // per_router
    on_chip = min(per_chip, len(chip)) / per_router
    side = max(1, math.ceil(math.sqrt(on_chip)))
    x, y = router % side, router // side
    far = np.stack([np.abs(a[:, None] - a[None, :]) for a in (x, y, chip)])
    return far.sum(0), chip


def _seconds(graph: Graph, hardware: HardwareLimits, activity: Activity) -> float:
    energy = hardware.energy
    assert energy is not None
    synop, update = (q.value for q in (energy.synaptic_operation_time, energy.active_update_time))
    if not graph.placement:
        neurons = sum(p.size for p in graph.neurons)
        return synop * sum(activity.synops.values()) + update * activity.steps * neurons
    received = _received(graph, activity)
    busiest = 0.0
    for population in graph.neurons:
        sizes: dict[int, int] = {}
        for t in graph.placement:
            if t.population == population.name:
                sizes[t.core] = sizes.get(t.core, 0) + t.size
        share = max(sizes.values(), default=0) / population.size
        work = synop * received[population.name] + update * activity.steps * population.size
        busiest = max(busiest, share * work)
    return busiest


def _received(graph: Graph, activity: Activity) -> dict[str, float]:
    """Synaptic operations by receiving population, each sender's split by its synapses."""
    received = dict.fromkeys((p.name for p in graph.populations), 0.0)
    for sender in graph.populations:
        ways = {p.post: _synapses(graph, p) for p in graph.out_of(sender.name)}
        total = sum(ways.values())
        for post, count in ways.items():
            received[post] += activity.synops.get(sender.name, 0.0) * count / total
    return received


def _synapses(graph: Graph, p: Projection) -> int:
    pre, post = graph.population(p.pre), graph.population(p.post)
    return int(fanout(p.operator, graph.arrays[p.weight].shape, pre.shape, post.shape).sum())
