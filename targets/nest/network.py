"""A graph as a network of NEST: neurons, synapses, and the steps at which a phase begins.

One step is 1 ms, the resolution and the delay. NEST runs only forwards, so each phase begins anew:
neurons are set to where they start from, and one step in which they stay there (`RateNetwork`), or
fire as they last did (`SpikeNetwork`), sends what the first step of the phase receives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from compilers.ir.graph import Graded, Graph, Projection, Spiking
from compilers.ir.operators import apply
from targets.interface.fanout import sites

REACH = 64.0
"""Largest size of a state of a linear population: receivers clip what all senders send alike."""

HELD, AT_ONCE, LONG = 1e300, 1e-3, 1e300
"""Time constants, ms, of a rate that stays, of one that follows in a step, and of a membrane."""

FAR = 1e5
"""Beyond what reaches a membrane in one step, and within its bound."""

LIGHT_NODES = 65_000
"""Most neurons of a thread whose synapses may be ``static_synapse_hpc``: 24 bytes each instead of
40, as they number their ends in 16 bits, of which 534 are left for recorders."""


class NestNetwork(ABC):
    """Neurons and synapses of `graph`; the flat arrays below are of all neurons, in its order."""

    synapse: Mapping[str, Any]

    def __init__(self, graph: Graph, threads: int, states: bool = True) -> None:
        import nest

        nest.ResetKernel()
        nest.verbosity = nest.VerbosityLevel.ERROR
        nest.set(resolution=1.0, local_num_threads=threads)
        self.nest, self.graph, self.now, self.states = nest, graph, 0.0, states
        self.light = -(-sum(p.size for p in graph.neurons) // threads) <= LIGHT_NODES
        self.begun_from = {phase.start for phase in graph.phases}
        ends = np.cumsum([0, *(p.size for p in graph.neurons)])
        self.part = {p.name: slice(*ends[i : i + 2]) for i, p in enumerate(graph.neurons)}
        self.low, self.span = np.zeros(ends[-1]), np.ones(ends[-1])
        self.neurons = self._create()
        self.first = self.neurons[0].global_id
        for p in graph.projections:
            if p.pre in self.part:
                self._connect(p)
        output = self.neurons[self.part[graph.output]]
        self.nudge = None
        if any(phase.nudge for phase in graph.phases):
            nest.Connect(output, output, "one_to_one", {**self.synapse, "weight": 0.0})
            self.nudge = nest.GetConnections(output, output)
        self.ends: dict[str | None, Any] = {None: self._rest()}

    def run(
        self,
        name: str,
        steps: int,
        nudge: float,
        start: str | None,
        drive: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Run a phase; by ``population/v`` and ``population/spike`` what it did, (steps, size).

        `drive` is what bias, input and target drive each population with at every step. Membranes
        of spiking neurons are there if the network was built with `states`.
        """
        if self.nudge is not None:
            self.nudge.weight = -nudge
        flat, output = np.concatenate([drive[p] for p in self.part]), self.part[self.graph.output]
        flat[output] -= nudge * self.low[output]
        self._begin(self.ends[start], flat)
        records, self.ends[name] = self._settle(steps, name in self.begun_from)
        return {
            f"{p}/{kind}": values[:, part]
            for kind, values in records.items()
            for p, part in self.part.items()
        }

    def _connect(self, p: Projection) -> None:
        pre, post = self.part[p.pre], self.part[p.post]
        scale = p.scale * self.span[pre.start] / self.span[post.start]
        for early, late, weights in sites(self.graph, p):
            synapse = {**self.synapse, "weight": scale * weights}
            if "delay" in synapse:
                synapse["delay"] = np.ones(len(weights))
            ids = early + self.first + pre.start, late + self.first + post.start
            self.nest.Connect(*ids, "one_to_one", synapse)

    def _simulate(self, steps: int) -> None:
        self.nest.Simulate(float(steps))
        self.now += steps

    def _table(self, events: Mapping[str, Any], key: str | None, steps: int) -> np.ndarray:
        """What a recorder gathered in the last `steps`, (steps, neurons); ones if `key` is None."""
        step = np.rint(events["times"] - (self.now - steps)).astype(np.int64) - 1
        neuron = np.asarray(events["senders"], np.int64) - self.first
        table, real = np.zeros((steps, len(self.low))), step >= 0
        table[step[real], neuron[real]] = 1.0 if key is None else events[key][real]
        return table

    def _recorder(self, model: str, **params: Any) -> Any:
        return self.nest.Create(model, params=params)

    @abstractmethod
    def _create(self) -> Any:
        """All neurons, one after the other."""

    @abstractmethod
    def _rest(self) -> Any:
        """Where a phase starts that names none."""

    @abstractmethod
    def _begin(self, start: Any, drive: np.ndarray) -> None:
        """Go to `start`, under `drive`."""

    @abstractmethod
    def _settle(self, steps: int, ends: bool) -> tuple[dict[str, np.ndarray], Any]:
        """Take the steps: what was recorded, and where the phase ends, if `ends` is to be known."""


class RateNetwork(NestNetwork):
    """Graded neurons: ``threshold_lin_rate_ipn``, whose receivers clip what they are sent.

    ``tau dx/dt = mu + sum w clip(x_pre, 0, 1) - x``, integrated exactly, so that one step of
    1 ms is ``x += leak (I - x)`` for ``tau = -1 / log1p(-leak)``. A state is ``low + span x``, its
    box being that of x; a linear one has a wide box that it must not leave. Instantaneous
    connections, without waveform relaxation, deliver one step later.
    """

    synapse: Mapping[str, Any] = {"synapse_model": "rate_connection_instantaneous"}

    def _create(self) -> Any:
        self.nest.use_wfr = False
        taus, neurons = [], None
        for p in self.graph.neurons:
            assert isinstance(p.dynamics, Graded)
            low, high = p.box or (-REACH, REACH)
            self.low[self.part[p.name]], self.span[self.part[p.name]] = low, high - low
            leak = p.dynamics.leak
            taus += [AT_ONCE if leak == 1 else -1.0 / math.log1p(-leak)] * p.size
        self.tau = np.array(taus)
        fixed = {"sigma": 0.0, "lambda": 1.0, "g": 1.0, "theta": 0.0, "alpha": 1.0}
        neurons = self.nest.Create(
            "threshold_lin_rate_ipn", len(taus), {**fixed, "linear_summation": False}
        )
        self.meter = self._recorder("multimeter", interval=1.0, record_from=["rate"])
        self.nest.Connect(self.meter, neurons)
        lowest = {
            p.name: np.full((1, *p.shape), (p.box or (-REACH,))[0]) for p in self.graph.neurons
        }
        self.shift = -self.low
        for q in self.graph.projections:
            if q.pre in lowest and lowest[q.pre].any():
                shape, weight = self.graph.population(q.post).shape, self.graph.arrays[q.weight]
                sent = q.scale * apply(q.operator, weight, lowest[q.pre], shape)
                self.shift[self.part[q.post]] += sent.ravel()
        return neurons

    def _rest(self) -> np.ndarray:
        return -self.low / self.span

    def _begin(self, start: np.ndarray, drive: np.ndarray) -> None:
        self.neurons.set(rate=start.tolist(), tau=HELD)
        self._simulate(1)
        mu = (drive + self.shift) / self.span
        self.neurons.set(mu=mu.tolist(), tau=self.tau.tolist())
        self.meter.n_events = 0

    def _settle(self, steps: int, ends: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
        self._simulate(steps)
        # A meter hands over what it read one step later.
        end = np.array(self.neurons.get("rate"))
        table = self._table(self.meter.events, "rate", steps)
        table[-1] = end
        return {"v": self.low + self.span * table}, end


class SpikeNetwork(NestNetwork):
    """Spiking neurons: ``eprop_iaf``, which subtracts its threshold when it fires.

    Its membrane adds up what arrives, ``v += sum w s``, without a leak as its time constant is
    beyond all time. It takes no current then, so that the drive comes as one more spike a step, by
    a synapse of its own. NEST keeps room for 1,024 synapses from each neuron to a recorder, so
    these are of its smallest kind; membranes are recorded only where they are asked for, as that
    takes longer than the neurons do.
    """

    def _create(self) -> Any:
        (dynamics,) = {p.dynamics for p in self.graph.neurons}
        assert isinstance(dynamics, Spiking)
        self.synapse = {
            "synapse_model": "static_synapse_hpc" if self.light else "static_synapse",
            "delay": 1.0,
        }
        # Before the neurons, as the smallest synapses reach low numbers alone.
        self.spikes, self.meter = self._recorder("spike_recorder"), None
        fixed = {"C_m": 1.0, "tau_m": LONG, "E_L": 0.0, "V_th": 1.0, "t_ref": 0.0, "I_e": 0.0}
        size = len(self.low)
        neurons = self.nest.Create("eprop_iaf", size, {**fixed, "V_min": -dynamics.bound})
        small = {"synapse_model": "static_synapse_hom_w_hpc"}
        self.nest.Connect(neurons, self.spikes, "all_to_all", small)
        if self.states:
            self.meter = self._recorder("multimeter", interval=1.0, record_from=["V_m"])
            self.nest.Connect(self.meter, neurons)
        self.clock, self.hush = (self._recorder("spike_generator") for _ in range(2))
        each = {"synapse_model": "static_synapse", "delay": 1.0}
        self.nest.Connect(self.hush, neurons, "all_to_all", {**each, "weight": -FAR})
        self.nest.Connect(self.clock, neurons, "all_to_all", {**each, "weight": 0.0})
        self.drive = self.nest.GetConnections(self.clock)
        # Connections come by thread.
        self.driven = np.array(list(self.drive.targets())) - neurons[0].global_id
        return neurons

    def _rest(self) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(self.low), 0.5), np.zeros(len(self.low))

    def _begin(self, start: tuple[np.ndarray, np.ndarray], drive: np.ndarray) -> None:
        membrane, sent = start
        self.drive.set(weight=drive[self.driven].tolist())
        self.clock.spike_times = [self.now + 1]
        if sent.any():
            self.neurons.V_m = (FAR * (2 * sent + 0.5)).tolist()
        # What is still on its way arrives with a hush; who fired last before `start` fires anew.
        self._simulate(1)
        self.neurons.V_m = membrane.tolist()
        self.spikes.n_events = 0
        if self.meter is not None:
            self.meter.n_events = 0

    def _settle(self, steps: int, ends: bool) -> tuple[dict[str, np.ndarray], Any]:
        self.clock.spike_times = (self.now + np.arange(1, steps)).tolist()
        self.hush.spike_times = [self.now + steps]
        self._simulate(steps)
        found = {"spike": self._table(self.spikes.events, None, steps)}
        if not ends and self.meter is None:
            return found, None
        end = np.array(self.neurons.get("V_m")), found["spike"][-1]
        if self.meter is not None:
            found["v"] = self._table(self.meter.events, "V_m", steps)
            found["v"][-1] = end[0]
        return found, end
