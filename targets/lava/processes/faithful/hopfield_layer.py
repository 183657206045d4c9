"""A layer of a Hopfield network: a population with all the projections that end at it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, tag
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from targets.lava.connections.connection import Connection
from targets.lava.processes.declared import DeclaredProcess
from targets.lava.processes.faithful.learning_dense import Gate
from targets.lava.processes.phase_model import PhasedModel


@dataclass(frozen=True)
class Afferent:
    """A projection that ends at a layer."""

    process: type[AbstractProcess]
    """Dense, Sparse, `Synapses`, or LearningDense."""
    params: Mapping[str, Any]
    """What the Process is made with."""
    inputs: int
    """Number of sending neurons."""
    adds_up: bool
    """Whether messages are changes, whose currents the neurons hold."""
    gate: Mapping[str, Any] | None = None
    """What the `Gate` of a projection that learns is made with; None of one that does not."""


class HopfieldLayer(AbstractProcess):
    """Neurons and their synapses, forward and feedback, as one Process.

    Parameters
    ----------
    neurons : tuple
        Process class of the population and its parameters.
    afferents : sequence of Afferent
        The projections that end here.
    nudged : bool
        Whether a nudge acts here; then there are `a_in` for its current and `z_out` for it to see.

    Ports: `s_in_K` takes the messages of projection number K, `s_out` carries those of the
    population.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        shape = params["neurons"][1]["shape"]
        for k, afferent in enumerate(params["afferents"]):
            setattr(self, f"s_in_{k}", InPort(shape=(afferent.inputs,)))
        self.s_out = OutPort(shape=shape)
        if params["nudged"]:
            self.a_in = InPort(shape=shape)
            self.z_out = OutPort(shape=shape)


@implements(proc=HopfieldLayer, protocol=LoihiProtocol)
@tag("floating_pt", "fixed_pt")
class PyHopfieldLayer(AbstractSubProcessModel):
    """Model of `HopfieldLayer`: one Process for the population, one for each projection."""

    def __init__(self, proc: AbstractProcess) -> None:
        kind, params = proc.proc_params["neurons"]
        self.neurons = kind(**params)
        self.neurons.s_out.connect(proc.s_out)
        if proc.proc_params["nudged"]:
            proc.a_in.connect(self.neurons.a_in)
            self.neurons.z_out.connect(proc.z_out)
        for k, afferent in enumerate(proc.proc_params["afferents"]):
            synapses = afferent.process(**afferent.params)
            setattr(self, f"synapses_{k}", synapses)  # Lava looks for attributes that are Processes
            getattr(proc, f"s_in_{k}").connect(synapses.s_in)
            synapses.a_out.connect(self.neurons.x_in if afferent.adds_up else self.neurons.a_in)
            if afferent.gate is not None:
                gate = Gate(**afferent.gate)
                setattr(self, f"gate_{k}", gate)
                self.neurons.t_out.connect(synapses.s_in_y1)
                gate.y2.connect(synapses.s_in_y2)
                gate.y3.connect(synapses.s_in_y3)


class Synapses(DeclaredProcess):
    """A projection whose integers do not fit the stock processes; holds one step back like those.

    Ports: `s_in` (pre neurons,), `a_out` (post neurons,). Of changes, `a_out` carries the change of
    the current.
    """

    inputs: ClassVar = {"s_in": "pre_shape"}
    outputs: ClassVar = {"a_out": "post_shape"}


class DirectedModel(PhasedModel):
    """The model of `Synapses`.

    `settled` is the connection before the message in flight, which comes again as a phase is
    loaded.
    """

    loads = True
    memory = ("settled",)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.connection: Connection = proc_params["connection"]
        self.sample_shape: tuple[int, ...] = proc_params["sample_shape"]
        self.current = np.zeros(proc_params["post_shape"], np.int64)

    def rest(self) -> None:
        """Nothing has added up."""
        self.connection.rest(1)
        self.settled = self.connection

    def load(self) -> None:
        """Take the message in flight again."""
        self.connection = self.settled
        self.advance()

    def advance(self) -> None:
        """Send the current of the last message, weigh the next."""
        self.a_out.send(self.current)
        message = self.s_in.recv().reshape(self.sample_shape)
        self.settled = copy.copy(self.connection)
        current = self.connection.current(message)
        held = self.settled.held if self.connection.adds_up else 0
        self.current = (current - held).ravel()
