"""Processes that declare their ports by a table, and the models that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.model.py.ports import PyInPortVectorDense, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

Models = Mapping[type[AbstractProcess], type[AbstractProcessModel]]
"""The model of each Process."""


class RowsInPort(PyInPortVectorDense):
    """An input port that sums the samples of the present phase, not all that it has room for."""

    def recv(self) -> np.ndarray:
        """The sum of one message of each sender; 0 where there is none."""
        if not self.csp_ports:
            return np.zeros((), self._d_type)
        first, *others = [self._transformer.transform(end.recv(), end) for end in self.csp_ports]
        return sum(others, first)


class DeclaredProcess(AbstractProcess):
    """A Process whose ports and variables are tables."""

    inputs: ClassVar[Mapping[str, str]] = {}
    """Of each port, the parameter that is its shape."""
    outputs: ClassVar[Mapping[str, str]] = {}
    """The same of outputs."""
    variables: ClassVar[Mapping[str, int]] = {}
    """Of each variable, its bits in fixed point; the parameter ``shape`` is its shape."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        for name, shape in self.inputs.items():
            setattr(self, name, InPort(shape=params[shape]))
        for name, shape in self.outputs.items():
            setattr(self, name, OutPort(shape=params[shape]))
        for name in self.variables:
            setattr(self, name, Var(shape=params["shape"], init=0))


Bases = Mapping[type[DeclaredProcess], tuple[type[Any], ...]]
"""What the model of each Process is made of."""


def models(
    bases: Bases,
    *,
    integers: bool,
    messages: type[Any] | None = None,
    currents: type[Any] | None = None,
) -> Models:
    """The floating-point or the fixed-point model of each Process, made of its `bases`.

    Ports and variables are those that the Process declares, of float64 or int64; ports that a base
    lists as `real` are of float64 in any case. Ports whose name begins with ``s`` may hold
    `messages` of a shorter type, unless a base lists them as `wide`, and those with ``a`` or ``x``
    `currents`.
    """
    number: type[Any] = np.int64 if integers else np.float64
    types = {"s": messages or number, "a": currents or number, "x": currents or number}
    return {process: _model(process, base, number, types) for process, base in bases.items()}


def _model(
    process: type[DeclaredProcess],
    bases: tuple[type[Any], ...],
    number: type[Any],
    types: Mapping[str, type[Any]],
) -> type[AbstractProcessModel]:
    integers = number is np.int64
    members: dict[str, Any] = {"integers": integers}
    wide = dict.fromkeys(getattr(bases[0], "wide", ()), number)
    real = dict.fromkeys(getattr(bases[0], "real", ()), np.float64)
    for names, kind in ((process.inputs, RowsInPort), (process.outputs, PyOutPort.VEC_DENSE)):
        for name in names:
            own = {name[0]: number, **types, **wide, **real}
            members[name] = LavaPyType(kind, own.get(name, own[name[0]]))
    for name, bits in process.variables.items():
        members[name] = LavaPyType(np.ndarray, number, precision=bits if integers else None)
    made = type(f"Py{process.__name__}{'Fixed' if integers else ''}", bases, members)
    made = tag("fixed_pt" if integers else "floating_pt")(made)
    return implements(proc=process, protocol=LoihiProtocol)(requires(CPU)(made))
