"""Around Lava's `LearningDense`: its model, the gates of its rule, a constant input."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.learning.random import ConnVarRandom
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.dense.models import (
    PyLearningDenseModelBitApproximate,
    PyLearningDenseModelFloat,
)
from lava.proc.dense.process import LearningDense

from targets.lava.connections.loihi_rule import OPEN, Rate
from targets.lava.processes.declared import DeclaredProcess
from targets.lava.processes.phase_model import PhasedModel
from targets.lava.runtime.shared_memory import SharedArrays


class LearningDenseModel(PyLoihiProcessModel):
    """What Lava's models of `LearningDense` lack: weights that the session can read and replace.

    `copy` is the matrix in shared memory. It replaces the weights as the process starts, and where
    `writes`, which counts what the session has written, has changed; a commit goes the other way.
    """

    number: ClassVar[type[Any]] = np.float64

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.copy: np.ndarray = proc_params["copy"]
        self.writes: np.ndarray = proc_params["writes"]
        self.tally: np.ndarray | None = proc_params["tally"]
        self.unit: float = proc_params["unit"]
        self.seen = -1

    def run_spk(self) -> None:
        """Compute with the session's weights, if it has written some."""
        if self.seen != self.writes[0]:
            self.seen = int(self.writes[0])
            self.weights = self.copy.astype(self.number)
            self.tag_1 = np.zeros(self.weights.shape, self.number)
        super().run_spk()
        if not self.lrn_guard():
            self._reset_dependencies_and_spike_times()

    def lrn_guard(self) -> bool:
        """Whether a gate is open: each term of the rule has one, and the phase costs time."""
        return bool(self.y2.any() or self.y3.any())

    def run_lrn(self) -> None:
        """Lava's rule; the session sees what a commit has left."""
        super().run_lrn()
        if self.y3.any():
            if self.tally is not None:
                self.tally[0] += np.abs(self.weights - self.copy).sum() * self.unit
            self.copy[...] = self.weights


@implements(proc=LearningDense, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyTaughtDense(LearningDenseModel, PyLearningDenseModelFloat):
    """Floating-point model of `LearningDense`."""


@implements(proc=LearningDense, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyTaughtDenseFixed(LearningDenseModel, PyLearningDenseModelBitApproximate):
    """Fixed-point model of `LearningDense`; a commit holds weights in range and clears the tag.

    The random number of each rounding follows from the record, the commit and the lesson since the
    last one: tied copies draw the same, and so does a session that was interrupted.
    """

    number: ClassVar[type[Any]] = np.int32

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.shared: SharedArrays = proc_params["shared"]
        self.limit: int = proc_params["limit"]
        self.seed: tuple[int, ...] = proc_params["seed"]
        self.lesson = 0
        self.weights_set = True  # They come as they are, and nothing is to be cut off.

    def run_lrn(self) -> None:
        """Lava's rule, with its random number."""
        self.lesson += 1
        drawn = [*self.seed, self.shared.plan[0].commits, self.lesson]
        self._conn_var_random = ConnVarRandom(drawn)
        super().run_lrn()
        if self.y3.any():
            self.lesson = 0
            held = np.clip(self.weights, -self.limit, self.limit)
            if self.tally is not None:
                self.tally[1] += np.count_nonzero(held != self.weights)
            self.weights, self.tag_1 = held, np.zeros_like(self.tag_1)
            self.copy[...] = held


class Gate(DeclaredProcess):
    """Opens the rule of one `LearningDense` at the end of phases that teach, and at commits.

    Parameters
    ----------
    rate : Rate or float
        Of integers; else the change of the weight by one unit of ``post pre`` at a rate scale of 1,
        one sample a commit.

    Ports, both (post neurons,): `y2` carries ``sign * rate`` and `y3` the commit; in integers, `y2`
    opens the rule and `y3` carries the level of the rate.
    """

    outputs: ClassVar = {"y2": "shape", "y3": "shape"}


class GateModel(PhasedModel):
    """The model of `Gate`; a commit comes alone, with the load of a phase of no steps."""

    loads = True

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.rate: Rate | float = proc_params["rate"]
        self.ones = np.ones(proc_params["shape"], int if self.integers else float)

    def load(self) -> None:
        """Commit, if the command says so."""
        self._open(0, self._opened()[1] if self.command.commit else 0)

    def advance(self) -> None:
        """Let the last step of a phase that teaches through."""
        self._open(self._opened()[0] if self.ends_lesson else 0, 0)

    def _opened(self) -> tuple[float, int]:
        """What the rule and what the commit opens by."""
        command, scale = self.command, self.command.rate_scale
        if isinstance(self.rate, Rate):
            return 1, OPEN * self.rate.level(scale / max(1, command.samples))
        return command.sign * self.rate * scale / command.samples, 1

    def _open(self, y2: float, y3: int) -> None:
        self.y2.send(y2 * self.ones)
        self.y3.send(y3 * self.ones)


class ConstantInput(DeclaredProcess):
    """A neuron that always sends 1: the other end of a bias that learns. Port: `s_out` (1,)."""

    outputs: ClassVar = {"s_out": "shape"}


class ConstantModel(PyLoihiProcessModel):
    """The model of `ConstantInput`."""

    def run_spk(self) -> None:
        """One time step; Lava calls this."""
        self.s_out.send(np.ones(1))
