"""Synapses: messages in, currents out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from compilers.ir.graph import Population
from compilers.learning.traces import Traces, trace
from targets.lava.connections.connection import Connection, repeated
from targets.lava.processes.declared import DeclaredProcess
from targets.lava.processes.phase_model import LearningModel


class FromInput(DeclaredProcess):
    """A projection of the clamped input: one current a sample, which the receiver holds.

    Ports, all (batch, *shape): `s_pre` takes the messages of the sender, `a_post` carries
    ``gain(op(W, s_pre))``. Where it learns, `t_post` takes the trace of the receiver; of the input
    it holds one itself. `f_post` (1, *shape) carries the current of the constant part of the
    messages.
    """

    inputs: ClassVar = {"s_pre": "pre_shape", "t_post": "post_shape"}
    outputs: ClassVar = {"a_post": "post_shape", "f_post": "post_once"}


class OneWay(DeclaredProcess):
    """A projection without a partner; ports as `FromInput`, with `t_pre` for the other trace."""

    inputs: ClassVar = {**FromInput.inputs, "t_pre": "pre_shape"}
    outputs: ClassVar = FromInput.outputs


class Coupling(DeclaredProcess):
    """A symmetric coupling: one weight that is used in both directions.

    Ports as `OneWay`, in both directions: `a_pre` carries the adjoint of `s_post`, `f_pre` that of
    the constant part of the messages.
    """

    inputs: ClassVar = {**OneWay.inputs, "s_post": "post_shape"}
    outputs: ClassVar = {**OneWay.outputs, "a_pre": "pre_shape", "f_pre": "pre_once"}


class SynapsesModel(LearningModel):
    """What all synapses share: a weight that changes where it is plastic."""

    real = ("t_pre", "t_post", "f_pre", "f_post")
    memory: ClassVar[tuple[str, ...]] = ("forward", "backward")

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.forward: Connection = proc_params["forward"]
        self.backward: Connection | None = proc_params["backward"]
        self.folds: Mapping[str, Callable[[Any], Any]] = proc_params["folds"]

    @property
    def paths(self) -> tuple[Connection, ...]:
        """The directions in which the weight is used, the one that ends at post first."""
        return (self.forward,) if self.backward is None else (self.forward, self.backward)

    @abstractmethod
    def trace_of_sender(self, free: bool) -> Any:
        """The trace of the end `pre`."""

    def rest(self) -> None:
        """No message is in flight."""
        for path in self.paths:
            path.rest(self.command.rows)

    def renew(self) -> None:
        """Compute with the present weight, and send the currents of constant messages."""
        if self.plastic is None:
            return
        operand = self.plastic.operand()
        for path in self.paths:
            path.load(operand)
        for end, fold in self.folds.items():
            getattr(self, f"f_{end}").send(fold(operand)[np.newaxis])

    def differ(self) -> None:
        """Differences begin at 0."""
        for path in self.paths:
            path.rest(self.command.rows, difference=True)

    def traces(self, free: bool = False) -> Traces:
        """The traces of both ends; none where nothing learns."""
        if self.plastic is None:
            return {}
        p = self.forward.projection
        return {p.pre: self.trace_of_sender(free), p.post: self.t_post.recv()}


class RecurrentModel(SynapsesModel):
    """The model of `Coupling` and of `OneWay`; `Connection` adds integers exactly."""

    def trace_of_sender(self, free: bool) -> Any:
        """What comes from there."""
        return self.t_pre.recv()

    def advance(self) -> None:
        """Weigh the messages, of both sides if there are two directions; learn."""
        pre = self.s_pre.recv()
        post: Any = None if self.backward is None else self.s_post.recv()
        if self.renews():
            self.renew()
        self.compare()
        if self.backward is not None:  # First: most often more neurons are before than behind.
            self.a_pre.send(self.backward.current(post))
        self.a_post.send(self.forward.current(pre))
        self.learn()


class FromInputModel(SynapsesModel):
    """The model of `FromInput`."""

    memory, wide = (), ("s_pre",)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.source: Population = proc_params["source"]

    def trace_of_sender(self, free: bool) -> Any:
        """That of the input, which it holds, and which differs in no phase."""
        held = repeated(trace(self.source, self.input), len(self.abreast))
        return np.zeros_like(held) if self.command.difference and not free else held

    def differ(self) -> None:
        """The input is the same."""

    def advance(self) -> None:
        """Weigh the input as a sample begins, and again as the weight has changed; learn."""
        if self.begins:
            self.input = self.s_pre.recv()
        if self.renews():
            self.renew()
            self.a_post.send(self.forward.weigh(self.input))
        self.compare()
        self.learn()
