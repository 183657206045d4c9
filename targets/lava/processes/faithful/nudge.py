"""The nudge: a current that pulls the output towards its target."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from targets.lava.connections.arithmetic import Floating, Integer, Numbers
from targets.lava.processes.faithful.phase_controller import ControlledModel
from targets.lava.processes.neurons import CONTROL_WORDS
from targets.lava.runtime.layout import TARGET


class Nudge(AbstractProcess):
    """``beta (y - z(t - 1))``; nothing in a free phase.

    Ports: `z_in` and `a_out` (neurons,), `c_in` for the phase controller's word.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.z_in = InPort(shape=params["shape"])
        self.c_in = InPort(shape=(CONTROL_WORDS,))
        self.a_out = OutPort(shape=params["shape"])


@implements(proc=Nudge, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyNudge(ControlledModel):
    """Floating-point model of `Nudge`; it holds one step back, like Lava's synapses."""

    integers: ClassVar[bool] = False

    z_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    c_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        kind = Integer if self.integers else Floating
        self.numbers: Numbers = kind(proc_params["population"], 1)
        self.silence = np.zeros(proc_params["shape"], self.numbers.dtype)
        self.pull = self.silence

    def load(self) -> None:
        """See the state that the phase starts from."""
        self.advance()

    def advance(self) -> None:
        """Send the pull of the last step, see the state of this one."""
        self.a_out.send(self.pull)
        shown, beta = self.z_in.recv(), self.board.nudge
        y = self.board[TARGET].reshape(shown.shape)
        self.pull = self.numbers.pull(beta, y, shown) if beta else self.silence


@implements(proc=Nudge, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyNudgeFixed(PyNudge):
    """Fixed-point model of `Nudge`."""

    integers: ClassVar[bool] = True

    z_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
