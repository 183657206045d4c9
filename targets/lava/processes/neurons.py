"""Populations of neurons: one Process for each dynamics of `compilers.ir`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from compilers.ir import Graded, Population, SigmaDelta, Spiking
from targets.lava.plan import OUTPUT, TARGET
from targets.lava.processes.phased import PhasedModel
from targets.lava.recorder import Recorder


class Neurons(AbstractProcess):
    """What all populations share.

    Ports, all (batch, *shape): `a_in` sums the currents of every step, `x_in` those that the input
    sends once a sample, `s_out` carries the messages. `v` is the membrane.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        shape = params["shape"]
        self.a_in = InPort(shape=shape)
        self.x_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.v = Var(shape=shape, init=0.0)


class GradedNeurons(Neurons):
    """``v += leak (I - v)``, ``z = clip(v, box)``, ``message = z``."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.z = Var(shape=params["shape"], init=0.0)


class SigmaDeltaNeurons(Neurons):
    """Graded neurons that send the change of ``z`` once it reaches an annealed threshold."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.z = Var(shape=params["shape"], init=0.0)
        self.sent = Var(shape=params["shape"], init=0.0)


class SpikingNeurons(Neurons):
    """``u += leak (I - u)``, ``v += u``, spike and ``v -= 1`` where ``v >= 1``."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.u = Var(shape=params["shape"], init=0.0)


class NeuronsModel(PhasedModel):
    """What all populations share: message out, current in, nudge, step, record."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    v: np.ndarray = LavaPyType(np.ndarray, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.population: Population = proc_params["population"]
        self.recorder: Recorder = proc_params["recorder"]
        self.bias: np.ndarray | float = proc_params["bias"]
        self.is_output: bool = proc_params["is_output"]
        self.silence = np.zeros(proc_params["shape"])

    @property
    @abstractmethod
    def shown(self) -> np.ndarray:
        """What the readout and the nudge see of the last step."""

    def rest(self) -> None:
        """Membrane at zero, nothing sent."""
        self.v = self.message = self.constant = self.silence

    def clip(self, v: np.ndarray) -> np.ndarray:
        """`v` within the box of the population."""
        return v if self.population.box is None else np.clip(v, *self.population.box)

    def advance(self) -> None:
        """Send the message of the last step, then step."""
        self.s_out.send(self.message)
        if self.begins:
            self.constant = self.bias + self.x_in.recv()
        drive = self.constant + self.a_in.recv()
        if self.is_output and self.board.nudge:
            drive += self.board.nudge * (self.board[TARGET] - self.shown)
        self.update(drive)
        self.recorder.count(self.step, self.message)
        self.recorder.probe(self.step, self)
        if self.is_output:
            self.read_out(self.board[OUTPUT])

    @abstractmethod
    def update(self, drive: np.ndarray) -> None:
        """One step of the dynamics under `drive`."""

    def read_out(self, output: np.ndarray) -> None:
        """Write the readout; what the last step of a phase leaves there counts."""
        output[:] = self.shown


@implements(proc=GradedNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyGradedNeurons(NeuronsModel):
    """Floating-point model of `GradedNeurons`."""

    memory: ClassVar[tuple[str, ...]] = ("v", "z", "message", "constant")

    z: np.ndarray = LavaPyType(np.ndarray, np.float64)

    @property
    def shown(self) -> np.ndarray:
        """The clipped state."""
        return self.z

    def rest(self) -> None:
        """The box may exclude 0, so the state at rest is clipped, too."""
        super().rest()
        self.z = self.clip(self.v)

    def update(self, drive: np.ndarray) -> None:
        """A leaky integrator."""
        dynamics = self.population.dynamics
        assert isinstance(dynamics, Graded)
        self.v = self.v + dynamics.leak * (drive - self.v)
        self.z = self.message = self.clip(self.v)


@implements(proc=SigmaDeltaNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySigmaDeltaNeurons(NeuronsModel):
    """Floating-point model of `SigmaDeltaNeurons`."""

    memory: ClassVar[tuple[str, ...]] = ("v", "z", "sent", "message", "constant")

    z: np.ndarray = LavaPyType(np.ndarray, np.float64)
    sent: np.ndarray = LavaPyType(np.ndarray, np.float64)

    @property
    def shown(self) -> np.ndarray:
        """The clipped state, sent or not."""
        return self.z

    def rest(self) -> None:
        """The receivers know nothing yet."""
        super().rest()
        self.z, self.sent = self.clip(self.v), self.silence

    def update(self, drive: np.ndarray) -> None:
        """A leaky integrator that stays silent while its change is below the threshold."""
        dynamics = self.population.dynamics
        assert isinstance(dynamics, SigmaDelta)
        self.v = self.v + dynamics.leak * (drive - self.v)
        self.z = self.clip(self.v)
        change = self.z - self.sent
        self.message = change * (np.abs(change) >= dynamics.threshold(self.clock))
        self.sent = self.sent + self.message


@implements(proc=SpikingNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySpikingNeurons(NeuronsModel):
    """Floating-point model of `SpikingNeurons`."""

    memory: ClassVar[tuple[str, ...]] = ("u", "v", "message", "constant")

    u: np.ndarray = LavaPyType(np.ndarray, np.float64)

    @property
    def shown(self) -> np.ndarray:
        """The spikes of the last step."""
        return self.message

    def rest(self) -> None:
        """Half way to a spike, so that the mean rate carries no bias."""
        super().rest()
        self.u, self.v = self.silence, self.silence + 0.5

    def update(self, drive: np.ndarray) -> None:
        """Integrate and fire; the reset subtracts, so the overshoot stays."""
        dynamics = self.population.dynamics
        assert isinstance(dynamics, Spiking)
        self.u = self.u + dynamics.leak * (drive - self.u)
        v = np.clip(self.v + self.u, -dynamics.bound, 1.0 + dynamics.bound)
        self.message = (v >= 1.0).astype(np.float64)
        self.v = v - self.message

    def read_out(self, output: np.ndarray) -> None:
        """The mean of the messages over the last half of the phase."""
        first = self.order.steps // 2
        if self.step <= first:
            return
        if self.step == first + 1:
            self.spikes = self.silence
        self.spikes = self.spikes + self.message
        output[:] = self.spikes / (self.step - first)
