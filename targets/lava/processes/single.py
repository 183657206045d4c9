"""Models of input and neurons that settle one sample, in flat arrays, between stock synapses."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from targets.lava.plan import INPUT
from targets.lava.processes.controlled import ControlledModel
from targets.lava.processes.dynamics import (
    GradedModel,
    NeuronsModel,
    SigmaDeltaModel,
    SpikingModel,
)
from targets.lava.processes.neurons import GradedNeurons, SigmaDeltaNeurons, SpikingNeurons
from targets.lava.processes.source import InputSource, PyInputSource


class SingleModel(ControlledModel, NeuronsModel):
    """Receives the currents of the last step's messages, steps, sends."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    c_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    z_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    v: np.ndarray = LavaPyType(np.ndarray, np.float64)

    def load(self) -> None:
        """Drop the currents in flight, and put the kept message in flight again."""
        self.a_in.recv()
        self.x_in.recv()
        self._send()

    def advance(self) -> None:
        """Receive, step, send."""
        self.constant = self.constant + self.x_in.recv()
        self.step_under(self.constant + self.a_in.recv())
        self._send()

    def _send(self) -> None:
        self.s_out.send(self.message)
        self.z_out.send(self.shown)


class FixedSingleModel(SingleModel):
    """The same in integers."""

    integers: ClassVar[bool] = True

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    z_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    v: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=24)


@implements(proc=InputSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySingleSource(ControlledModel, PyInputSource):
    """Floating-point model of `InputSource`: speaks as a sample is loaded, then sends zeros."""

    def load(self) -> None:
        """Send the input if a sample begins here."""
        self.message = self.numbers.message(self.board[INPUT].reshape(self.s_out.shape))
        self.silence = np.zeros_like(self.message)
        self.s_out.send(self.message if self.order.start < 0 else self.silence)

    def advance(self) -> None:
        """Stay silent; the step after the load is the one that counts."""
        self.s_out.send(self.silence)
        self.record(self.message)


@implements(proc=InputSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySingleSourceFixed(PySingleSource):
    """Fixed-point model of `InputSource`."""

    integers: ClassVar[bool] = True

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)


@implements(proc=GradedNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySingleGraded(SingleModel, GradedModel):
    """Floating-point model of `GradedNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=SigmaDeltaNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySingleSigmaDelta(SingleModel, SigmaDeltaModel):
    """Floating-point model of `SigmaDeltaNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.float64)
    sent: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=SpikingNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySingleSpiking(SingleModel, SpikingModel):
    """Floating-point model of `SpikingNeurons`."""

    u: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=GradedNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySingleGradedFixed(FixedSingleModel, GradedModel):
    """Fixed-point model of `GradedNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)


@implements(proc=SigmaDeltaNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySingleSigmaDeltaFixed(FixedSingleModel, SigmaDeltaModel):
    """Fixed-point model of `SigmaDeltaNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)
    sent: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)


@implements(proc=SpikingNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySingleSpikingFixed(FixedSingleModel, SpikingModel):
    """Fixed-point model of `SpikingNeurons`."""

    u: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=24)
