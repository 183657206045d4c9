"""Models of input and neurons that settle one sample, in flat arrays, between stock synapses."""

from __future__ import annotations

from typing import Any

import numpy as np

from compilers.ir.graph import Population, SigmaDelta
from compilers.learning.synapses import trace, trace_offset
from targets.lava.connections.loihi_rule import payload, seen
from targets.lava.learning.process_weights import PlasticBias
from targets.lava.processes.dynamics import NeuronsModel
from targets.lava.processes.source import SourceModel
from targets.lava.runtime.layout import INPUT


class PerSampleModel(NeuronsModel):
    """Receives the currents of the last step's messages, steps, sends.

    In a network that learns, `lift` is the offset of the readout, and messages carry it. The last
    message of a phase that teaches is the trace. In integers a plastic bias learns here and not
    in a process of its own.
    """

    loads = True

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.lift: float = proc_params["lift"]
        self.traced: bool = proc_params["traced"]
        self.plastic: PlasticBias | None = proc_params["plastic"]
        self.adds_up = isinstance(self.population.dynamics, SigmaDelta)

    def rest(self) -> None:
        """The bias as it is by now."""
        super().rest()
        if self.plastic is not None:
            self.constant = self.silence + self.plastic.present().ravel()

    def load(self) -> None:
        """Drop the currents in flight, put the kept message in flight again; commit."""
        self.a_in.recv()
        self.x_in.recv()
        self._send()
        if self.order.commit and self.plastic is not None and self.plastic.own is not None:
            self.plastic.own.commit(self.order, self.order.commits)

    def advance(self) -> None:
        """Receive, step, send."""
        self.constant = self.constant + self.x_in.recv()
        self.step_under(self.constant + self.a_in.recv())
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
        if self.plastic is not None and self.plastic.own is not None:
            whole = {name: trace.reshape(1, *self.population.shape)}
            self.plastic.own.accumulate(self.order, whole, {})
        shown = trace - trace_offset(self.population, True)
        carried = payload(self.population, shown.astype(np.int64))
        return carried, self.order.sign * seen(self.population, carried)

    def _lifted(self) -> np.ndarray:
        # Changes add up, so that theirs is sent once, with the first.
        first = self.step == 0 and self.order.start < 0
        due = self.lift and (first or not self.adds_up)
        return self.message + self.lift if due else self.message


class PerSampleSource(SourceModel):
    """The model of `InputSource`: speaks as a sample is loaded, then sends zeros.

    In a network that learns, it shows its trace at the end of a phase that teaches.
    """

    loads = True

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.population: Population = proc_params["population"]
        self.lift: float = proc_params["lift"]
        self.traced: bool = proc_params["traced"]

    def load(self) -> None:
        """Send the input if a sample begins here."""
        self.message = self.numbers.message(self.board[INPUT].reshape(self.s_out.shape))
        self.silence = np.zeros_like(self.message)
        lifted = self.message + self.lift if self.lift else self.message
        self.s_out.send(lifted if self.order.start < 0 else self.silence)

    def advance(self) -> None:
        """Stay silent; the step after the load is the one that counts."""
        teaches = self.traced and self.ends_lesson
        self.s_out.send(self.lesson() if teaches else self.silence)
        self.record(self.message)

    def lesson(self) -> np.ndarray:
        """The trace as a message; in integers of 7 bits, what lies outside [0, 1) saturates."""
        shows = payload if self.integers else trace
        return shows(self.population, self.message)
