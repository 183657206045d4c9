"""Populations of neurons: one Process for each dynamics of `compilers.ir.graph`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from targets.lava.runtime.shared_memory import PhaseCommand


class Neurons(AbstractProcess):
    """What all populations share.

    Ports, all (batch, *shape), or (neurons,) where one sample settles at a time: `a_in` sums the
    currents of a step, `x_in` changes of a current that are held, `s_out` carries the messages and
    `z_out` what the readout sees. `c_in` takes the phase controller's word. `v` is the membrane.
    Where something learns, `t_out` carries the trace, and `f_in` (*shape) sums the constant
    currents of plastic synapses.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        shape = params["shape"]
        self.a_in = InPort(shape=shape)
        self.x_in = InPort(shape=shape)
        self.c_in = InPort(shape=(CONTROL_WORDS,))
        self.s_out = OutPort(shape=shape)
        self.z_out = OutPort(shape=shape)
        self.t_out = OutPort(shape=shape)
        self.f_in = InPort(shape=shape[1:] or shape)
        self.v = Var(shape=shape, init=0)


class GradedNeurons(Neurons):
    """``v += leak (I - v)``, ``z = clip(v, box)``, ``message = z``."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.z = Var(shape=params["shape"], init=0)


class SigmaDeltaNeurons(Neurons):
    """Graded neurons that send the change of ``z`` once it reaches an annealed threshold."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.z = Var(shape=params["shape"], init=0)
        self.sent = Var(shape=params["shape"], init=0)


class SpikingNeurons(Neurons):
    """``u += leak (I - u)``, ``v += u``, spike and ``v -= 1`` where ``v >= 1``."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.u = Var(shape=params["shape"], init=0)


CONTROL_WORDS = len(fields(PhaseCommand))
"""Numbers in the word of a phase controller."""
