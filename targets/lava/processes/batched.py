"""Models of the neurons that step many samples at once; they take orders from the board."""

from __future__ import annotations

from typing import Any

import numpy as np

from targets.lava.learning.process_weights import PlasticBias
from targets.lava.processes.dynamics import NeuronsModel
from targets.lava.processes.learning_model import LearningModel
from targets.lava.runtime.layout import TARGET


class BatchedModel(LearningModel, NeuronsModel):
    """Sends the message of the last step, then steps; currents of the input come once a sample.

    Where something learns, it shows its trace at the end of a phase that teaches, and changes its
    own bias.
    """

    real = ("t_out", "f_in")

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.plastic: PlasticBias | None = proc_params["plastic"]
        self.last_trace = self.silence

    def advance(self) -> None:
        """Send, receive, step, learn."""
        self.s_out.send(self.message)
        if self.renews():
            self.constant = self.silence + self.present_bias() + self.x_in.recv()
        if self.compares:
            self.last_trace = self.show_trace()
        drive = self.constant + self.a_in.recv()
        if self.is_output and self.board.nudge:
            drive += self.numbers.pull(self.board.nudge, self.board[TARGET], self.shown)
        self.step_under(drive)
        if self.teaches:
            self.learn()
        if self.commits:
            self.commit()

    def present_bias(self) -> np.ndarray:
        """The bias of this step, with what plastic synapses add to it."""
        if self.plastic is None:
            return self.bias
        bias = self.plastic.present()
        if self.plastic.folded:
            bias = bias + self.f_in.recv().astype(self.numbers.dtype)
        return bias

    def show_trace(self) -> np.ndarray:
        """Send the trace to the synapses at both sides."""
        trace = self.trace
        self.t_out.send(trace)
        return trace

    def learn(self) -> None:
        """Show the trace, and let the bias see it."""
        before, now = self.last_trace, self.show_trace()
        self.last_trace = now
        if self.plastic is not None and self.plastic.own is not None:
            name = self.population.name
            self.plastic.own.accumulate(self.order, {name: now}, {name: before})

    def commit(self) -> None:
        """Change the bias."""
        if self.plastic is not None and self.plastic.own is not None:
            self.plastic.own.commit(self.order, self.number)
        self.note_commit()
