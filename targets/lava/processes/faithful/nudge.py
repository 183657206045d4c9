"""The nudge: a current that pulls the output towards its target."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from targets.lava.processes.declared import DeclaredProcess
from targets.lava.processes.phase_model import PhasedModel
from targets.lava.runtime.layout import TARGET


class Nudge(DeclaredProcess):
    """``beta (y - z(t - 1))``; nothing in a free phase. Ports: `z_in` and `a_out` (neurons,)."""

    inputs: ClassVar = {"z_in": "shape"}
    outputs: ClassVar = {"a_out": "shape"}


class NudgeModel(PhasedModel):
    """The model of `Nudge`; it holds one step back, like Lava's synapses."""

    loads = True

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.numbers = self.arithmetic(proc_params)
        self.silence = np.zeros(proc_params["shape"], self.numbers.dtype)
        self.pull = self.silence

    def load(self) -> None:
        """See the state that the phase starts from."""
        self.advance()

    def advance(self) -> None:
        """Send the pull of the last step, see the state of this one."""
        self.a_out.send(self.pull)
        shown, beta = self.z_in.recv(), self.board.nudge
        y = self.board[TARGET].reshape(shown.shape)
        self.pull = self.numbers.pull(beta, y, shown) if beta else self.silence
