"""The common part of all models: following commands, starting at rest, continuing a phase."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar

from lava.magma.core.model.py.model import PyLoihiProcessModel

from targets.lava.connections.arithmetic import Floating, Integer
from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays


class PhasedModel(PyLoihiProcessModel):
    """A model whose state is set to rest, or to the end of an earlier phase, as a phase begins.

    A phase begins with a new command on the board.

    Attributes
    ----------
    integers : bool
        Whether it computes in integers.
    real : tuple of str
        Ports that are float64 even so.
    memory : tuple of str
        Attributes that are its state. They hold everything that the next step depends on, messages
        in flight included, so a nudged phase continues the free phase exactly.
    loads : bool
        Whether the first time step of a phase, before its step 1, loads the state: every population
        sends its last message again, so that stock synapses, which hold one message each, hold the
        right one at step 1; what they held before is received and dropped.
    """

    integers: ClassVar[bool] = False
    real: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]] = ()
    loads: ClassVar[bool] = False

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.board: SharedArrays = proc_params["board"]
        self.order = PhaseCommand()
        self.step = 0
        self.clock = 0
        self._kept: dict[int, dict[str, Any]] = {}

    def arithmetic(self, proc_params: Any) -> Floating:
        """The numbers of the population that `proc_params` name."""
        kind = Integer if self.integers else Floating
        return kind(proc_params["population"], proc_params["rows"])

    @property
    def begins(self) -> bool:
        """Whether this is the first step of a sample."""
        return self.step == 1 and self.order.start < 0

    @property
    def ends_lesson(self) -> bool:
        """Whether this is the last step of a phase that teaches."""
        return bool(self.order.sign) and self.step == self.order.steps

    def run_spk(self) -> None:
        """One time step; Lava calls this."""
        if self.board.number != self.order.number:
            self.begin(self.board.order)
            if self.loads:
                return self.load()
        self.make_step()

    def begin(self, order: PhaseCommand) -> None:
        """Begin the phase that `order` describes: at rest, or where an earlier phase ended."""
        self.order, self.step = order, 0
        if order.start < 0:
            self.clock = 0
            self.rest()
            return
        for name, value in self._kept[order.start].items():
            setattr(self, name, copy.copy(value))

    def make_step(self) -> None:
        """Advance, and keep the last state of a phase that another one continues."""
        self.step += 1
        self.clock += 1
        self.advance()
        if self.order.keep and self.step == self.order.steps:
            state = {name: copy.copy(getattr(self, name)) for name in (*self.memory, "clock")}
            self._kept[self.order.phase] = state

    def rest(self) -> None:
        """Put the state to rest."""

    def load(self) -> None:
        """Drop what arrives, send the last message of the state that the phase starts from."""

    @abstractmethod
    def advance(self) -> None:
        """Receive, step, send; `step` counts from 1 in the phase, `clock` in the sample."""
