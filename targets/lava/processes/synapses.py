"""Synapses: messages in, currents out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from compilers.ir.graph import Population
from compilers.learning.synapses import Traces, trace
from targets.lava.connections.connection import Connection
from targets.lava.learning.process_weights import ProcessWeights, SourceOffset
from targets.lava.processes.learning_model import LearningModel


class Coupling(AbstractProcess):
    """A symmetric coupling: one weight that is used in both directions.

    Ports, all (batch, *shape): `s_pre` and `s_post` take the messages of the two populations,
    `a_post` carries ``gain(op(W, s_pre))`` and `a_pre` the adjoint of `s_post`. Where it learns,
    `t_pre` and `t_post` take the traces of both sides, and `f_post` and `f_pre` (*shape) carry the
    currents of the constant part of the messages.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_pre = InPort(shape=params["pre_shape"])
        self.s_post = InPort(shape=params["post_shape"])
        self.a_pre = OutPort(shape=params["pre_shape"])
        self.a_post = OutPort(shape=params["post_shape"])
        self.t_pre = InPort(shape=params["pre_shape"])
        self.t_post = InPort(shape=params["post_shape"])
        self.f_pre = OutPort(shape=params["pre_shape"][1:])
        self.f_post = OutPort(shape=params["post_shape"][1:])


class OneWay(AbstractProcess):
    """A projection without a partner; ports as in `Coupling`, in one direction."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_pre = InPort(shape=params["pre_shape"])
        self.a_post = OutPort(shape=params["post_shape"])
        self.t_pre = InPort(shape=params["pre_shape"])
        self.t_post = InPort(shape=params["post_shape"])
        self.f_post = OutPort(shape=params["post_shape"][1:])


class FromInput(AbstractProcess):
    """A projection of the clamped input: one current a sample, which the receiver holds.

    Ports `s_pre`, `a_post`, `t_post` and `f_post` as in `Coupling`; it holds the input itself.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_pre = InPort(shape=params["pre_shape"])
        self.a_post = OutPort(shape=params["post_shape"])
        self.t_post = InPort(shape=params["post_shape"])
        self.f_post = OutPort(shape=params["post_shape"][1:])


class SynapsesModel(LearningModel):
    """What all synapses share: a weight that changes where it is plastic."""

    t_post: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    f_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.plastic: ProcessWeights | None = proc_params["plastic"]
        self.folds: Mapping[str, SourceOffset] = proc_params["folds"]
        self.before: Traces = {}

    @property
    @abstractmethod
    def paths(self) -> tuple[Connection, ...]:
        """The directions in which the weight is used, the one that ends at post first."""

    @abstractmethod
    def receive_traces(self) -> Traces:
        """The traces of both ends, by population."""

    def renew(self) -> None:
        """Compute with the present weight, and send the currents of constant messages."""
        if self.plastic is None:
            return
        operand = self.plastic.operand()
        for path in self.paths:
            path.weight = operand
        for port, fold in self.folds.items():
            getattr(self, port).send(fold.drive(operand))

    def compare(self) -> None:
        """Take the traces from which a stepwise rule starts."""
        if self.plastic is not None and self.compares:
            self.before = self.receive_traces()

    def learn(self) -> None:
        """Evaluate the tag and change the weight, where they are due."""
        if self.plastic is not None and self.teaches:
            now = self.receive_traces()
            self.plastic.accumulate(self.order, now, self.before)
            self.before = now if self.stepwise else {}
        if self.commits:
            if self.plastic is not None:
                self.plastic.commit(self.order, self.number)
            self.note_commit()


@implements(proc=Coupling, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyCoupling(SynapsesModel):
    """Floating-point model of `Coupling`."""

    memory: ClassVar[tuple[str, ...]] = ("forward", "backward")

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    s_post: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    a_pre: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    t_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    f_pre: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.forward: Connection = proc_params["forward"]
        self.backward: Connection = proc_params["backward"]

    @property
    def paths(self) -> tuple[Connection, ...]:
        """Both directions."""
        return self.forward, self.backward

    def receive_traces(self) -> Traces:
        """The traces of both ends."""
        p = self.forward.projection
        return {p.pre: self.t_pre.recv(), p.post: self.t_post.recv()}

    def rest(self) -> None:
        """No message is in flight in either direction."""
        self.forward.rest()
        self.backward.rest()

    def advance(self) -> None:
        """Weigh the messages of both sides; learn."""
        pre, post = self.s_pre.recv(), self.s_post.recv()
        if self.renews():
            self.renew()
        self.compare()
        self.a_post.send(self.forward.current(pre))
        self.a_pre.send(self.backward.current(post))
        self.learn()


@implements(proc=OneWay, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyOneWay(SynapsesModel):
    """Floating-point model of `OneWay`."""

    memory: ClassVar[tuple[str, ...]] = ("path",)

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    t_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.path: Connection = proc_params["path"]

    @property
    def paths(self) -> tuple[Connection, ...]:
        """The one direction."""
        return (self.path,)

    def receive_traces(self) -> Traces:
        """The traces of both ends."""
        p = self.path.projection
        return {p.pre: self.t_pre.recv(), p.post: self.t_post.recv()}

    def rest(self) -> None:
        """No message is in flight."""
        self.path.rest()

    def advance(self) -> None:
        """Weigh the message; learn."""
        message = self.s_pre.recv()
        if self.renews():
            self.renew()
        self.compare()
        self.a_post.send(self.path.current(message))
        self.learn()


@implements(proc=FromInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyFromInput(SynapsesModel):
    """Floating-point model of `FromInput`."""

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.path: Connection = proc_params["path"]
        self.source: Population = proc_params["source"]

    @property
    def paths(self) -> tuple[Connection, ...]:
        """The one direction."""
        return (self.path,)

    def receive_traces(self) -> Traces:
        """The trace of the input, which it holds, and that of the other end."""
        p = self.path.projection
        return {p.pre: trace(self.source, self.input), p.post: self.t_post.recv()}

    def advance(self) -> None:
        """Weigh the input as a sample begins, and again as the weight has changed; learn."""
        if self.begins:
            self.input = self.s_pre.recv()
        if self.renews():
            self.renew()
            self.a_post.send(self.path.weigh(self.input))
        self.compare()
        self.learn()


@implements(proc=Coupling, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyCouplingFixed(PyCoupling):
    """Fixed-point model of `Coupling`: integers in and out; `Connection` adds them exactly."""

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_post: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_pre: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)


@implements(proc=OneWay, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyOneWayFixed(PyOneWay):
    """Fixed-point model of `OneWay`: integers in and out; `Connection` adds them exactly."""

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)


@implements(proc=FromInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyFromInputFixed(PyFromInput):
    """Fixed-point model of `FromInput`: integers in and out; `Connection` adds them exactly."""

    s_pre: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_post: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
