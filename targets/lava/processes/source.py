"""The clamped input."""

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
from targets.lava.processes.neurons import CONTROL_WORDS
from targets.lava.processes.phase_model import PhasedModel
from targets.lava.runtime.layout import INPUT
from targets.lava.runtime.monitor import PopulationMonitor


class InputSource(AbstractProcess):
    """Sends the input once, as a sample begins: ``s(1) = x``; receivers hold it.

    Ports: `s_out` (batch, *shape), or (neurons,) where one sample settles at a time, and `c_in` for
    the phase controller's word.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_out = OutPort(shape=params["shape"])
        self.c_in = InPort(shape=(CONTROL_WORDS,))


@implements(proc=InputSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyInputSource(PhasedModel):
    """Floating-point model of `InputSource`."""

    integers: ClassVar[bool] = False

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    c_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.recorder: PopulationMonitor = proc_params["recorder"]
        kind = Integer if self.integers else Floating
        self.numbers: Numbers = kind(proc_params["population"], proc_params["rows"])

    def advance(self) -> None:
        """Send the input at the first step of a sample."""
        message = self.numbers.message(self.board[INPUT]) if self.begins else None
        if message is not None:
            self.s_out.send(message)
        self.record(message)

    def record(self, message: np.ndarray | None) -> None:
        """Count the events of the input, which speaks once, in the first phase."""
        first = self.begins and self.order.phase == 0
        self.recorder.count(self.step, message if first else None)
        if self.step == 1:
            self.recorder.saturate(self.numbers.saturated * first)
            self.numbers.saturated[:] = 0


@implements(proc=InputSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyInputSourceFixed(PyInputSource):
    """Fixed-point model of `InputSource`."""

    integers: ClassVar[bool] = True

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
