"""The clamped input."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from compilers.ir.graph import Population
from targets.lava.processes.declared import DeclaredProcess
from targets.lava.processes.phase_model import PhasedModel
from targets.lava.runtime.layout import INPUT
from targets.lava.runtime.monitor import PopulationMonitor


class InputSource(DeclaredProcess):
    """Sends the input once, as a sample begins: ``s(1) = x``; receivers hold it.

    Port: `s_out` (batch, *shape), or (neurons,) where one sample settles at a time.
    """

    outputs: ClassVar = {"s_out": "shape"}


class SourceModel(PhasedModel):
    """The model of `InputSource`."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.monitor: PopulationMonitor = proc_params["monitor"]
        self.population: Population = proc_params["population"]
        self.numbers = self.arithmetic(proc_params)

    def advance(self) -> None:
        """Send the input at the first step of a sample."""
        message = self.numbers.message(self.shared[INPUT]) if self.begins else None
        if message is not None:
            self.s_out.send(message)
        self.record(message)

    def record(self, message: np.ndarray | None) -> None:
        """Count the events of the input, which speaks once, in the first phase."""
        first = self.begins and self.command.phase == 0
        self.monitor.count(self.step, message if first else None)
        if self.step == 1:
            self.monitor.saturate(self.numbers.saturated * first)
            self.numbers.saturated[:] = 0
