"""Two connected Lava Processes that fail the way they are told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


def floating_point(process: type[AbstractProcess]) -> Callable[[type[Any]], Any]:
    """A class as the model of `process` in floating point, on the processor."""
    joined = implements(proc=process, protocol=LoihiProtocol)
    return lambda model: joined(requires(CPU)(tag("floating_pt")(model)))


class TwoPartError(Exception):
    """Cannot be unpickled: its constructor takes two arguments, its `args` hold one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Steady(AbstractProcess):
    """Sends ones."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_out = OutPort(shape=(2,))


class Faulty(AbstractProcess):
    """Receives, and fails at step ``at`` the way ``how`` says."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_in = InPort(shape=(2,))


@floating_point(Steady)
class PySteady(PyLoihiProcessModel):
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def run_spk(self) -> None:
        self.s_out.send(np.ones(2))


@floating_point(Faulty)
class PyFaulty(PyLoihiProcessModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.how, self.at = proc_params["how"], proc_params["at"]
        if self.how == "raise at start":
            raise RuntimeError("no start today")
        if self.how == "die at start":
            os.kill(os.getpid(), signal.SIGKILL)

    def run_spk(self) -> None:
        if self.time_step == self.at:
            self.fail()
        self.s_in.recv()

    def fail(self) -> None:
        if self.how == "raise":
            raise ValueError(f"a fault at step {self.time_step}")
        if self.how == "raise oddly":
            raise TwoPartError("one", "two")
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "leave":
            os._exit(3)
        if self.how == "kill supervisor":
            os.kill(os.getppid(), signal.SIGKILL)
        if self.how in ("sleep", "kill supervisor"):
            time.sleep(3600)


class Echo(AbstractProcess):
    """Sends what it receives in the same step: in a loop, each of two waits for the other."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_in = InPort(shape=(2,))
        self.s_out = OutPort(shape=(2,))


@floating_point(Echo)
class PyEcho(PyLoihiProcessModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def run_spk(self) -> None:
        self.s_out.send(self.s_in.recv())


def build(arguments: tuple[str, int]) -> dict[AbstractProcess, type[PyLoihiProcessModel]]:
    """A steady and a faulty process; or a failure before there is any."""
    how, at = arguments
    if how == "raise while building":
        raise LookupError("nothing to build")
    if how == "loop without a buffer":
        one, other = Echo(name="one"), Echo(name="other")
        one.s_out.connect(other.s_in)
        other.s_out.connect(one.s_in)
        return {one: PyEcho, other: PyEcho}
    steady, faulty = Steady(name="steady"), Faulty(name="faulty", how=how, at=at)
    steady.s_out.connect(faulty.s_in)
    return {steady: PySteady, faulty: PyFaulty}
