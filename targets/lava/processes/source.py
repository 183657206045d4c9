"""The clamped input."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from targets.lava.plan import INPUT
from targets.lava.processes.phased import PhasedModel
from targets.lava.recorder import Recorder


class InputSource(AbstractProcess):
    """Sends the input once, as a sample begins: ``s(1) = x``; receivers hold it.

    Ports: `s_out` (batch, *shape).
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_out = OutPort(shape=params["shape"])


@implements(proc=InputSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyInputSource(PhasedModel):
    """Floating-point model of `InputSource`."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.recorder: Recorder = proc_params["recorder"]

    def advance(self) -> None:
        """Send the input at the first step of a sample."""
        x = self.board[INPUT]
        if self.begins:
            self.s_out.send(x)
        first = self.begins and self.order.phase == 0
        self.recorder.count(self.step, x if first else None)
