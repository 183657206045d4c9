"""Models of the neurons that step many samples at once; they take orders from the board."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from targets.lava.plan import TARGET
from targets.lava.processes.dynamics import (
    GradedModel,
    NeuronsModel,
    SigmaDeltaModel,
    SpikingModel,
)
from targets.lava.processes.neurons import GradedNeurons, SigmaDeltaNeurons, SpikingNeurons


class BatchedModel(NeuronsModel):
    """Sends the message of the last step, then steps; currents of the input come once a sample."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    c_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    z_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    v: np.ndarray = LavaPyType(np.ndarray, np.float64)

    def advance(self) -> None:
        """Send, receive, step."""
        self.s_out.send(self.message)
        if self.begins:
            self.constant = self.constant + self.x_in.recv()
        drive = self.constant + self.a_in.recv()
        if self.is_output and self.board.nudge:
            drive += self.numbers.pull(self.board.nudge, self.board[TARGET], self.shown)
        self.step_under(drive)


class FixedBatchedModel(BatchedModel):
    """The same in integers."""

    integers: ClassVar[bool] = True

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    z_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    v: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=24)


@implements(proc=GradedNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyGradedNeurons(BatchedModel, GradedModel):
    """Floating-point model of `GradedNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=SigmaDeltaNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySigmaDeltaNeurons(BatchedModel, SigmaDeltaModel):
    """Floating-point model of `SigmaDeltaNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.float64)
    sent: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=SpikingNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySpikingNeurons(BatchedModel, SpikingModel):
    """Floating-point model of `SpikingNeurons`."""

    u: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=GradedNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyGradedNeuronsFixed(FixedBatchedModel, GradedModel):
    """Fixed-point model of `GradedNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)


@implements(proc=SigmaDeltaNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySigmaDeltaNeuronsFixed(FixedBatchedModel, SigmaDeltaModel):
    """Fixed-point model of `SigmaDeltaNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)
    sent: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)


@implements(proc=SpikingNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySpikingNeuronsFixed(FixedBatchedModel, SpikingModel):
    """Fixed-point model of `SpikingNeurons`."""

    u: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=24)
