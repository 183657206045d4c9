"""Input, neurons and nudge of one sample, in flat arrays, between stock synapses."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from compilers.ir.graph import SigmaDelta
from compilers.learning.traces import trace, trace_offset
from targets.lava.connections.loihi_rule import payload, seen
from targets.lava.processes.declared import DeclaredProcess
from targets.lava.processes.neurons import NeuronsModel, SourceModel
from targets.lava.processes.phase_model import PhasedModel
from targets.lava.runtime.layout import INPUT, TARGET


class PerSampleModel(NeuronsModel):
    """Receives the currents of the last step's messages, steps, sends.

    In a network that learns (`traced`), messages carry the offset of the readout, and the last one
    of a phase that teaches is the trace. In integers a plastic bias learns here and not in a
    process of its own.
    """

    loads = True

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.traced: bool = proc_params["traced"]
        self.lift = trace_offset(self.population, self.integers) if self.traced else 0
        self.adds_up = isinstance(self.population.dynamics, SigmaDelta)

    def load(self) -> None:
        """Drop the currents in flight, put the kept message in flight again; commit."""
        self.a_in.recv()
        self.x_in.recv()
        self._send()
        if self.command.commit and self.plastic is not None:
            self.plastic.commit(self.command)

    def advance(self) -> None:
        """Receive, step, send."""
        self.constant = self.constant + self.x_in.recv()
        self.step_under(self.constant + self.a_in.recv())
        self.note(self.step)
        self._send()

    def _send(self) -> None:
        teaches = self.traced and self.step > 0 and self.ends_lesson
        carried, shown = self.lesson() if teaches else (self._lifted(), self.silence)
        self.s_out.send(carried)
        self.z_out.send(self.shown)
        if self.traced:
            self.t_out.send(shown)

    def lesson(self) -> tuple[np.ndarray, np.ndarray]:
        """The trace as a message, and as this side's synapses see it.

        In integers it has 7 bits, and at this side the sign of the phase; the bias sees it all.
        """
        trace, name = self.trace, self.population.name
        if not self.integers:
            return trace, trace
        if self.plastic is not None:
            whole = {name: trace.reshape(1, *self.population.shape)}
            self.plastic.accumulate(self.command, whole, {})
        shown = trace - trace_offset(self.population, True)
        carried = payload(self.population, shown.astype(np.int64))
        return carried, self.command.sign * seen(self.population, carried)

    def _lifted(self) -> np.ndarray:
        # Changes add up, so that theirs is sent once, with the first.
        first = self.step == 0 and self.command.start < 0
        due = self.lift and (first or not self.adds_up)
        return self.message + self.lift if due else self.message


class PerSampleSource(SourceModel):
    """The model of `InputSource`: speaks as a sample is loaded, then sends zeros.

    In a network that learns, it shows its trace at the end of a phase that teaches.
    """

    loads = True

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.traced: bool = proc_params["traced"]
        self.lift = trace_offset(self.population, self.integers) if self.traced else 0

    def load(self) -> None:
        """Send the input if a sample begins here."""
        self.message = self.numbers.message(self.shared[INPUT].reshape(self.s_out.shape))
        self.silence = np.zeros_like(self.message)
        lifted = self.message + self.lift if self.lift else self.message
        self.s_out.send(lifted if self.command.start < 0 else self.silence)

    def advance(self) -> None:
        """Stay silent; the step after the load is the one that counts."""
        teaches = self.traced and self.ends_lesson
        self.s_out.send(self.lesson() if teaches else self.silence)
        self.record(self.message)

    def lesson(self) -> np.ndarray:
        """The trace as a message; in integers of 7 bits, what lies outside [0, 1) saturates."""
        shows = payload if self.integers else trace
        return shows(self.population, self.message)


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
        shown, beta = self.z_in.recv(), self.command.nudge
        y = self.numbers.target(self.shared[TARGET].reshape(shown.shape))
        self.pull = self.numbers.pull(beta, y, shown) if beta else self.silence
