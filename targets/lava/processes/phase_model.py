"""What all models share: following commands, starting at rest, continuing a phase, learning."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel

from compilers.learning.traces import Traces
from targets.lava.connections.arithmetic import Floating, Integer
from targets.lava.connections.connection import repeated
from targets.lava.processes.process_weights import ProcessWeights
from targets.lava.runtime.shared_memory import PhaseCommand, SharedArrays, shares

STATES = frozenset((np.ndarray, int, bool))
"""Types of what a step changes."""


class PhasedModel(PyLoihiProcessModel):
    """A model whose state is set to rest, or to the end of an earlier phase, as a phase begins.

    A phase begins with a new command in shared memory. Batched, all phases of a plan are one time
    step of Lava: the messages order their steps, which Lava's runtime would spend more time on than
    our models do. Phases that start from one state and change nothing that the others see run side
    by side (`abreast`), each in rows of its own; `command` is the last one with the rows of all.
    """

    integers: ClassVar[bool] = False
    """Whether it computes in integers."""
    real: ClassVar[tuple[str, ...]] = ()
    """Ports that are float64 even so."""
    wide: ClassVar[tuple[str, ...]] = ()
    """Ports that hold any integer."""
    memory: ClassVar[tuple[str, ...]] = ()
    """Attributes that are its state. They hold everything that the next step depends on, messages
    in flight included, so a nudged phase continues the free phase exactly."""
    loads: ClassVar[bool] = False
    """Whether a step is one time step of Lava, as stock synapses have it. Then the first time step
    of a phase, before its step 1, loads the state: every population sends its last message again,
    so that the synapses, which hold one message each, hold the right one at step 1; what they held
    before is received and dropped."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.shared: SharedArrays = proc_params["shared"]
        self.command = PhaseCommand()
        self.abreast = [self.command]
        self.step = 0
        self.clock = 0
        self._kept: dict[int, dict[str, Any]] = {}

    def __setattr__(self, key: str, value: Any) -> None:
        """Set an attribute; Lava asks of each whether it is a port, which no state is."""
        if type(value) in STATES:
            self.__dict__[key] = value
        else:
            super().__setattr__(key, value)

    def arithmetic(self, proc_params: Any) -> Floating:
        """The numbers of the population that `proc_params` name."""
        return (Integer if self.integers else Floating)(proc_params["population"])

    @property
    def begins(self) -> bool:
        """Whether this is the first step of a sample."""
        return self.step == 1 and self.command.start < 0

    @property
    def ends_lesson(self) -> bool:
        """Whether this is the last step of a phase that teaches."""
        return bool(self.command.sign) and self.step == self.command.steps

    @property
    def each_step(self) -> bool:
        """Whether the rules run at every step of this phase."""
        return False

    def run_spk(self) -> None:
        """One time step of Lava, which calls this."""
        if self.loads:
            if self.shared.number == self.command.number:
                return self.make_step()
            self.abreast = self.shared.plan[:1]
            self.begin(self.abreast[0])
            return self.load()
        for phases in self.shared.abreast:
            rows = sum(phase.rows for phase in phases)
            self.abreast, command = phases, replace(phases[-1], rows=rows)
            for port in self.py_ports:
                for end in port.csp_ports:
                    end.rows = rows
            self.begin(command)
            for _ in range(command.steps):
                self.make_step()

    def begin(self, command: PhaseCommand) -> None:
        """Begin the phase that `command` describes: at rest, or where an earlier phase ended."""
        self.command, self.step = command, 0
        if command.start < 0:
            self.clock = 0
            self.rest()
            return
        for name, value in self._kept[command.start].items():
            setattr(self, name, repeated(value, len(self.abreast)))
        if command.difference:
            self.differ()

    def make_step(self) -> None:
        """Advance, and keep the last state of a phase that another one continues."""
        self.step += 1
        self.clock += 1
        self.advance()
        if self.command.keep and self.step == self.command.steps:
            state = {name: copy.copy(getattr(self, name)) for name in (*self.memory, "clock")}
            self._kept[self.command.phase] = state

    def rest(self) -> None:
        """Put the state to rest."""

    def differ(self) -> None:
        """Begin a phase that sends differences to the state that was just set."""

    def load(self) -> None:
        """Drop what arrives, send the last message of the state that the phase starts from."""

    @abstractmethod
    def advance(self) -> None:
        """Receive, step, send; `step` counts from 1 in the phase, `clock` in the sample."""


class LearningModel(PhasedModel):
    """A model some of whose constants may change; all of a network change in the same step.

    Parameters
    ----------
    plastic : ProcessWeights or None
        What changes here.
    stepwise : bool
        Whether the rules run at every step, and not once a phase.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.plastic: ProcessWeights | None = proc_params["plastic"]
        self.stepwise: bool = proc_params["stepwise"]
        self.before: Traces = {}
        self._changed = self._stale = False

    @abstractmethod
    def traces(self, free: bool = False) -> Traces:
        """Traces by population, exchanged with other processes in the steps in which they count.

        If `free`, those of the state from which the phase sends differences.
        """

    def renews(self) -> bool:
        """Whether constants are due anew in this step; ask once a step.

        They are for a new sample, after a commit, and where a phase starts from a state that is
        older than the last commit.
        """
        due = self.begins or self._changed or (self._stale and self.step == 1)
        self._stale = (self._stale or self._changed) and not self.begins
        self._changed = False
        return due

    @property
    def each_step(self) -> bool:
        return self.stepwise and bool(self.command.sign)

    def compare(self) -> None:
        """Take the traces from which a stepwise rule starts, or a phase of differences."""
        differs = self.command.difference and self.command.sign
        if (self.each_step or differs) and self.step == 1:
            self.before = self.traces(free=bool(differs))

    def learn(self) -> None:
        """Evaluate the tag and change the weight, where they are due at the end of this step."""
        if self.each_step or self.ends_lesson:
            now = self.traces()
            if self.plastic is not None:
                for command, rows in shares(self.abreast):
                    own = ({n: t[rows] for n, t in ts.items()} for ts in (now, self.before))
                    self.plastic.accumulate(command, *own)
            self.before = now
        if self.command.commit and (self.each_step or self.step == self.command.steps):
            if self.plastic is not None:
                self.plastic.commit(self.command, self.step - 1 if self.each_step else 0)
            self._changed = True
