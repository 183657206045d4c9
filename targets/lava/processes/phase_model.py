"""The common part of all models: following orders, starting at rest, continuing a phase."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar

from lava.magma.core.model.py.model import PyLoihiProcessModel

from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays


class PhasedModel(PyLoihiProcessModel):
    """A model whose state is set to rest, or to the end of an earlier phase, as a phase begins.

    `memory` names the attributes that are its state. They hold everything that the next step
    depends on, messages in flight included, so a nudged phase continues the free phase exactly.
    """

    memory: ClassVar[tuple[str, ...]] = ()

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.board: SharedArrays = proc_params["board"]
        self.order = PhaseCommand()
        self.step = 0
        self.clock = 0
        self._kept: dict[int, dict[str, Any]] = {}

    @property
    def begins(self) -> bool:
        """Whether this is the first step of a sample."""
        return self.step == 1 and self.order.start < 0

    def run_spk(self) -> None:
        """One time step; Lava calls this."""
        order = self.board.order
        if order.number != self.order.number:
            self.begin(order)
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

    @abstractmethod
    def advance(self) -> None:
        """Receive, step, send; `step` counts from 1 in the phase, `clock` in the sample."""
