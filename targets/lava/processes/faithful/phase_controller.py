"""The phase controller, and what its word does to the models that follow it.

A word begins a phase, and its first time step loads it: every population takes the state that the
phase starts from and sends its last message again, so that stock synapses, which hold one message
each, hold the right one at step 1; what they held before is received and dropped. The word tells
how many steps follow, and the next word is due after them: words cost nothing in between.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import astuple
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from targets.lava.processes.neurons import CONTROL_WORDS
from targets.lava.processes.phase_model import PhasedModel
from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays


class PhaseController(AbstractProcess):
    """Tells all others which phase begins, where from, and how long it is.

    Ports: `c_out` (CONTROL_WORDS,), the numbers of a `PhaseCommand`.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.c_out = OutPort(shape=(CONTROL_WORDS,))


@implements(proc=PhaseController, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt", "fixed_pt")
class PyPhaseController(PyLoihiProcessModel):
    """Model of `PhaseController`: takes an order from the board, then counts its steps down."""

    c_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.board: SharedArrays = proc_params["board"]
        self.left = 0

    def run_spk(self) -> None:
        """One time step; Lava calls this."""
        if self.left:
            self.left -= 1
            return
        order = self.board.order
        self.left = order.steps
        self.c_out.send(np.array(astuple(order), np.int64))


class ControlledModel(PhasedModel):
    """A model that begins a phase at the word of a phase controller."""

    c_in: PyInPort

    @property
    def ends_lesson(self) -> bool:
        """Whether this is the last step of a phase that teaches."""
        return bool(self.order.sign) and self.step == self.order.steps

    def run_spk(self) -> None:
        """One time step; Lava calls this."""
        if self.step < self.order.steps:
            self.make_step()
        else:
            self.begin(PhaseCommand(*self.c_in.recv().tolist()))
            self.load()

    @abstractmethod
    def load(self) -> None:
        """Drop what arrives, send the last message of the state that the phase starts from."""
