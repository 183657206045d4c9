"""An interpreter of NIR nodes: forward Euler with dt = 1, under what the metadata adds to NIR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from compilers.ir.graph import Graph, Phase, Population, SigmaDelta, Spiking
from targets.interface.simulator import SteppedSimulator
from targets.nir.executable import Circuit
from targets.nir.export import to_nir


@dataclass(frozen=True)
class State:
    """What a population holds between two steps, each (N, size); no array is written to.

    `v` and `u` are membrane and current, `z` the clipped state, `message` what was sent in the
    last step, `told` the sum of all messages, `past` what receivers took the stream to mean at
    the last steps, the newest first.
    """

    v: np.ndarray
    u: np.ndarray
    z: np.ndarray
    message: np.ndarray
    told: np.ndarray
    past: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Snapshot:
    """Steps made since rest, and the states then."""

    t: int
    states: Mapping[str, State]


class NirSimulator(SteppedSimulator[Snapshot]):
    """Settles inputs on the NIR nodes of a graph."""

    at_once = 256

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._circuit = Circuit(graph, to_nir(graph))

    def rest(self, samples: int) -> Snapshot:
        """The moment before the first step."""
        circuit, states = self._circuit, {}
        for p in circuit.graph.neurons:
            zero = np.zeros((samples, p.size))
            spiking = isinstance(p.dynamics, Spiking)
            z = zero if spiking else _clip(p, zero)
            v = zero + 0.5 if spiking else zero
            states[p.name] = State(v, zero, z, zero, zero, (zero,) * circuit.depth)
        return Snapshot(0, states)

    def constant(self, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """What bias and inputs drive each population with."""
        return self._circuit.constant(x)

    def step(
        self,
        before: Snapshot,
        constant: Mapping[str, np.ndarray],
        phase: Phase,
        y: np.ndarray | None,
    ) -> Snapshot:
        """The moment after one step of `phase`."""
        circuit = self._circuit
        past = {name: state.past for name, state in before.states.items()}
        states: dict[str, State] = {}
        for p in circuit.graph.neurons:
            state = before.states[p.name]
            current = circuit.current(p.name, past, constant[p.name])
            if phase.nudge and y is not None and p.name == circuit.graph.output:
                current = current + phase.nudge * (y.reshape(len(y), -1) - state.z)
            states[p.name] = _advance(circuit, p, state, current, before.t + 1)
        return Snapshot(before.t + 1, states)

    def value(self, moment: Snapshot, population: str, variable: str) -> np.ndarray:
        """A variable of a population, (N, size)."""
        found: np.ndarray = getattr(moment.states[population], variable)
        return found


def _advance(circuit: Circuit, p: Population, state: State, current: np.ndarray, t: int) -> State:
    if isinstance(p.dynamics, Spiking):
        u = circuit.leak(p.name, state.u, current)
        bound = p.dynamics.bound
        v = np.clip(state.v + circuit.gain(p.name) * u, -bound, 1 + bound)
        message = (v >= 1).astype(v.dtype)
        return State(v - message, u, message, message, state.told, (message, *state.past[:-1]))
    v = circuit.leak(p.name, state.v, current)
    z = message = _clip(p, v)
    meant, told = z, state.told
    if isinstance(p.dynamics, SigmaDelta):
        change = z - state.told
        message = change * (np.abs(change) >= p.dynamics.threshold(t))
        meant = told = state.told + message
    return State(v, state.u, z, message, told, (meant, *state.past[:-1]))


def _clip(p: Population, v: np.ndarray) -> np.ndarray:
    return v if p.box is None else np.clip(v, *p.box)
