"""Models that learn: when traces are due, when weights change, when new ones are in force."""

from __future__ import annotations

from typing import Any

from targets.lava.processes.phase_model import PhasedModel


class LearningModel(PhasedModel):
    """A model some of whose constants may change; all of a network change in the same step.

    Parameters
    ----------
    stepwise : bool
        Whether the rules run at every step, and not once a phase.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.stepwise: bool = proc_params["stepwise"]
        self._changed = self._stale = False

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
    def teaches(self) -> bool:
        """Whether traces are due at the end of this step."""
        return self.ends_lesson or (self.stepwise and bool(self.order.sign))

    @property
    def compares(self) -> bool:
        """Whether traces are due before this step, too: the first ones of a stepwise rule."""
        return bool(self.order.sign) and self.stepwise and self.step == 1

    @property
    def commits(self) -> bool:
        """Whether weights change at the end of this step."""
        due = (self.stepwise and self.order.sign) or self.step == self.order.steps
        return bool(self.order.commit and due)

    @property
    def number(self) -> int:
        """Number of the commit of this step, from 0 in the session's memory."""
        stepwise = self.stepwise and self.order.sign
        return self.order.commits + (self.step - 1 if stepwise else 0)

    def note_commit(self) -> None:
        """Constants are due anew in the next step."""
        self._changed = True
