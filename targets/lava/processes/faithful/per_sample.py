"""Models of input and neurons that settle one sample, in flat arrays, between stock synapses."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from compilers.ir.graph import Population, SigmaDelta
from compilers.learning.synapses import trace, trace_offset
from targets.lava.connections.loihi_rule import payload, seen
from targets.lava.learning.process_weights import PlasticBias
from targets.lava.processes.dynamics import (
    GradedModel,
    NeuronsModel,
    SigmaDeltaModel,
    SpikingModel,
)
from targets.lava.processes.faithful.phase_controller import ControlledModel
from targets.lava.processes.neurons import GradedNeurons, SigmaDeltaNeurons, SpikingNeurons
from targets.lava.processes.source import InputSource, PyInputSource
from targets.lava.runtime.layout import INPUT


class PerSampleModel(ControlledModel, NeuronsModel):
    """Receives the currents of the last step's messages, steps, sends.

    In a network that learns, messages carry the `lift`, by which the state at 0 differs from 0 in
    real units, and the last one of a phase that teaches is the trace.
    """

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    c_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    z_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    t_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    f_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    v: np.ndarray = LavaPyType(np.ndarray, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.lift: float = proc_params["lift"]
        self.traced: bool = proc_params["traced"]
        self.plastic: PlasticBias | None = proc_params["plastic"]
        self.adds_up = isinstance(self.population.dynamics, SigmaDelta)

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
        teaches = self.traced and self.step > 0 and self.ends_lesson
        carried, shown = self.lesson() if teaches else (self._lifted(), self.silence)
        self.s_out.send(carried)
        self.z_out.send(self.shown)
        if self.traced:
            self.t_out.send(shown)

    def lesson(self) -> tuple[np.ndarray, np.ndarray]:
        """The trace as a message, and as this side's synapses see it."""
        return self.trace, self.trace

    def _lifted(self) -> np.ndarray:
        # Changes add up, so that theirs is sent once, with the first.
        first = self.step == 0 and self.order.start < 0
        due = self.lift and (first or not self.adds_up)
        return self.message + self.lift if due else self.message


class FixedPerSampleModel(PerSampleModel):
    """The same in integers; a bias that learns does so here, and not in a process of its own."""

    integers: ClassVar[bool] = True

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    z_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    t_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    v: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=24)

    def rest(self) -> None:
        """The bias as it is by now."""
        super().rest()
        if self.plastic is not None:
            self.constant = self.silence + self.plastic.present().ravel()

    def load(self) -> None:
        """Change the bias, if the word says so."""
        super().load()
        own = None if self.plastic is None else self.plastic.own
        if own is not None and self.order.steps == 0 and self.order.commit:
            own.commit(self.order, self.order.commits)

    def lesson(self) -> tuple[np.ndarray, np.ndarray]:
        """The trace in 7 bits, with the sign of the phase at this side; the bias sees it all."""
        trace, name = self.trace, self.population.name
        own = None if self.plastic is None else self.plastic.own
        if own is not None:
            own.accumulate(self.order, {name: trace.reshape(1, *self.population.shape)}, {})
        shown = trace - trace_offset(self.population, True)
        carried = payload(self.population, shown.astype(np.int64))
        return carried, self.order.sign * seen(self.population, carried)


@implements(proc=InputSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySingleSource(ControlledModel, PyInputSource):
    """Floating-point model of `InputSource`: speaks as a sample is loaded, then sends zeros.

    In a network that learns, it shows its trace at the end of a phase that teaches.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.population: Population = proc_params["population"]
        self.lift: float = proc_params["lift"]
        self.traced: bool = proc_params["traced"]

    def load(self) -> None:
        """Send the input if a sample begins here."""
        self.message = self.numbers.message(self.board[INPUT].reshape(self.s_out.shape))
        self.silence = np.zeros_like(self.message)
        lifted = self.message + self.lift if self.lift else self.message
        self.s_out.send(lifted if self.order.start < 0 else self.silence)

    def advance(self) -> None:
        """Stay silent; the step after the load is the one that counts."""
        teaches = self.traced and self.ends_lesson
        self.s_out.send(self.lesson() if teaches else self.silence)
        self.record(self.message)

    def lesson(self) -> np.ndarray:
        """The trace as a message."""
        return trace(self.population, self.message)


@implements(proc=InputSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySingleSourceFixed(PySingleSource):
    """Fixed-point model of `InputSource`."""

    integers: ClassVar[bool] = True

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def lesson(self) -> np.ndarray:
        """The trace in 7 bits; what lies outside [0, 1) saturates."""
        return payload(self.population, self.message)


@implements(proc=GradedNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySingleGraded(PerSampleModel, GradedModel):
    """Floating-point model of `GradedNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=SigmaDeltaNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySingleSigmaDelta(PerSampleModel, SigmaDeltaModel):
    """Floating-point model of `SigmaDeltaNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.float64)
    sent: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=SpikingNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PySingleSpiking(PerSampleModel, SpikingModel):
    """Floating-point model of `SpikingNeurons`."""

    u: np.ndarray = LavaPyType(np.ndarray, np.float64)


@implements(proc=GradedNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySingleGradedFixed(FixedPerSampleModel, GradedModel):
    """Fixed-point model of `GradedNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)


@implements(proc=SigmaDeltaNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySingleSigmaDeltaFixed(FixedPerSampleModel, SigmaDeltaModel):
    """Fixed-point model of `SigmaDeltaNeurons`."""

    z: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)
    sent: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=16)


@implements(proc=SpikingNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySingleSpikingFixed(FixedPerSampleModel, SpikingModel):
    """Fixed-point model of `SpikingNeurons`."""

    u: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=24)
