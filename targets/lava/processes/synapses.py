"""Synapses: messages in, currents out."""

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

from targets.lava.path import Path
from targets.lava.processes.phased import PhasedModel


class Coupling(AbstractProcess):
    """A symmetric coupling: one weight that is used in both directions.

    Ports, all (batch, *shape): `s_pre` and `s_post` take the messages of the two populations,
    `a_post` carries ``gain(op(W, s_pre))`` and `a_pre` the adjoint of `s_post`.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_pre = InPort(shape=params["pre_shape"])
        self.s_post = InPort(shape=params["post_shape"])
        self.a_pre = OutPort(shape=params["pre_shape"])
        self.a_post = OutPort(shape=params["post_shape"])


class OneWay(AbstractProcess):
    """A projection without a partner; ports `s_pre` and `a_post` as in `Coupling`."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_pre = InPort(shape=params["pre_shape"])
        self.a_post = OutPort(shape=params["post_shape"])


class FromInput(AbstractProcess):
    """A projection of the clamped input: one current a sample, which the receiver holds.

    Ports `s_pre` and `a_post` as in `Coupling`.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_pre = InPort(shape=params["pre_shape"])
        self.a_post = OutPort(shape=params["post_shape"])


@implements(proc=Coupling, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyCoupling(PhasedModel):
    """Floating-point model of `Coupling`."""

    memory: ClassVar[tuple[str, ...]] = ("forward", "backward")

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    s_post: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    a_pre: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.forward: Path = proc_params["forward"]
        self.backward: Path = proc_params["backward"]

    def rest(self) -> None:
        """No message is in flight in either direction."""
        self.forward.rest()
        self.backward.rest()

    def advance(self) -> None:
        """Weigh the messages of both sides."""
        pre, post = self.s_pre.recv(), self.s_post.recv()
        self.a_post.send(self.forward.current(pre))
        self.a_pre.send(self.backward.current(post))


@implements(proc=OneWay, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyOneWay(PhasedModel):
    """Floating-point model of `OneWay`."""

    memory: ClassVar[tuple[str, ...]] = ("path",)

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.path: Path = proc_params["path"]

    def rest(self) -> None:
        """No message is in flight."""
        self.path.rest()

    def advance(self) -> None:
        """Weigh the message."""
        self.a_post.send(self.path.current(self.s_pre.recv()))


@implements(proc=FromInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyFromInput(PhasedModel):
    """Floating-point model of `FromInput`."""

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.path: Path = proc_params["path"]

    def advance(self) -> None:
        """Weigh the input as a sample begins."""
        if self.begins:
            self.a_post.send(self.path.weigh(self.s_pre.recv()))


@implements(proc=Coupling, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyCouplingFixed(PyCoupling):
    """Fixed-point model of `Coupling`: integers in, integers out; `Path` adds them exactly."""

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_post: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_pre: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)


@implements(proc=OneWay, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyOneWayFixed(PyOneWay):
    """Fixed-point model of `OneWay`: integers in, integers out; `Path` adds them exactly."""

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)


@implements(proc=FromInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyFromInputFixed(PyFromInput):
    """Fixed-point model of `FromInput`: integers in, integers out; `Path` adds them exactly."""

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
