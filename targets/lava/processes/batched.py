"""Models of the neurons that step many samples at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from compilers.learning.traces import Traces
from targets.lava.processes.neurons import NeuronsModel
from targets.lava.processes.phase_model import LearningModel
from targets.lava.runtime.layout import TARGET
from targets.lava.runtime.shared_memory import PhaseCommand


class BatchedModel(LearningModel, NeuronsModel):
    """Sends the message of the last step, then steps; currents of the input come once a sample.

    Where something learns, it shows its trace at the end of a phase that teaches, and changes its
    own bias; plastic synapses add to that if `folded`.
    """

    real = ("t_out", "f_in")

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.folded: bool = proc_params["folded"]
        self.shape: tuple[int, ...] = proc_params["sample_shape"]

    def begin(self, command: PhaseCommand) -> None:
        """Take as many samples as the command says, and see the target.

        Where the phase sends differences, the target is one, too.
        """
        self.silence = np.zeros((command.rows, *self.shape), self.numbers.dtype)
        super().begin(command)
        nudges = [phase.nudge for phase in self.abreast]
        self.nudged = self.is_output and any(nudges)
        if self.nudged:
            rows = np.repeat(nudges, [phase.rows for phase in self.abreast])
            self.nudge = rows.reshape(-1, *(1 for _ in self.shape))
            targets = [self.shared[TARGET][phase.at] for phase in self.abreast]
            target = self.numbers.target(np.concatenate(targets))
            if command.difference:
                target = self.numbers.distance(target, self.rested) * (1 << self.population.louder)
            self.aim(target)

    def advance(self) -> None:
        """Send, receive, step, learn; what was sent is recorded while synapses weigh it."""
        self.s_out.send(self.message)
        if self.noted < self.step - 1:
            self.note(self.step - 1)
        if self.renews():
            bias = self.present_bias()
            if self.folded:
                bias = bias + self.f_in.recv().astype(self.numbers.dtype, copy=False)
            self.constant = self.silence + bias + self.x_in.recv()
        self.compare()
        constant = self.silence if self.command.difference else self.constant
        drive = constant + self.a_in.recv()
        if self.nudged:
            drive += self.pull()
        self.step_under(drive)
        if self.step == self.command.steps or self.each_step:
            self.note(self.step)
        self.learn()

    def traces(self, free: bool = False) -> Traces:
        """The own one, which the synapses at both sides get, too."""
        trace = self.rested_trace if free else self.trace
        self.t_out.send(trace)
        return {self.population.name: trace}
