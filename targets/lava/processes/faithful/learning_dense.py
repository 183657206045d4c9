"""Around Lava's `LearningDense`: its model on a board, the gates of its rule, a constant input."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.learning.random import ConnVarRandom
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.dense.models import (
    PyLearningDenseModelBitApproximate,
    PyLearningDenseModelFloat,
)
from lava.proc.dense.process import LearningDense

from targets.lava.connections.loihi_rule import OPEN, Rate
from targets.lava.processes.faithful.phase_controller import ControlledModel
from targets.lava.processes.neurons import CONTROL_WORDS
from targets.lava.runtime.shared_memory import SharedArrays


class LearningDenseModel(PyLoihiProcessModel):
    """What Lava's models of `LearningDense` lack: weights that the session can read and replace.

    `copy` is the matrix on the board. It replaces the weights as the process starts and wherever
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
        self.board: SharedArrays = proc_params["board"]
        self.limit: int = proc_params["limit"]
        self.seed: tuple[int, ...] = proc_params["seed"]
        self.lesson = 0
        self.weights_set = True  # They come as they are, and nothing is to be cut off.

    def run_lrn(self) -> None:
        """Lava's rule, with its random number."""
        self.lesson += 1
        drawn = [*self.seed, self.board.order.commits, self.lesson]
        self._conn_var_random = ConnVarRandom(drawn)
        super().run_lrn()
        if self.y3.any():
            self.lesson = 0
            held = np.clip(self.weights, -self.limit, self.limit)
            if self.tally is not None:
                self.tally[1] += np.count_nonzero(held != self.weights)
            self.weights, self.tag_1 = held, np.zeros_like(self.tag_1)
            self.copy[...] = held


class Gate(AbstractProcess):
    """Opens the rule of one `LearningDense` at the end of phases that teach, and at commits.

    Parameters
    ----------
    factor : float
        Change of the weight by one unit of ``post pre`` at a rate scale of 1, one sample a commit.
    rate : Rate
        The same in integers, in place of `factor`.

    Ports: `y2` carries ``sign * rate`` and `y3` the commit, both (post neurons,); in integers, `y2`
    opens the rule and `y3` carries the level of the rate. `c_in` takes the phase controller's word.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.c_in = InPort(shape=(CONTROL_WORDS,))
        self.y2 = OutPort(shape=(params["outputs"],))
        self.y3 = OutPort(shape=(params["outputs"],))


@implements(proc=Gate, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyGate(ControlledModel):
    """Model of `Gate`; a commit is a phase of no steps, after the one that ends with it."""

    c_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y2: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    y3: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.factor: float = proc_params["factor"]
        self.ones = np.ones(proc_params["outputs"])

    def load(self) -> None:
        """Commit, if the word says so."""
        self._open(0.0, float(self.order.steps == 0 and self.order.commit))

    def advance(self) -> None:
        """Let the last step of a phase that teaches through."""
        if not self.ends_lesson:
            return self._open(0.0, 0.0)
        rate = self.factor * self.board.rate_scale
        self._open(self.order.sign * rate / self.order.samples, 0.0)

    def _open(self, y2: float, y3: float) -> None:
        self.y2.send(y2 * self.ones)
        self.y3.send(y3 * self.ones)


@implements(proc=Gate, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyGateFixed(ControlledModel):
    """Fixed-point model of `Gate`."""

    c_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y2: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    y3: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.rate: Rate = proc_params["rate"]
        self.ones = np.ones(proc_params["outputs"], np.int64)

    def load(self) -> None:
        """Commit, if the word says so."""
        commits = self.order.steps == 0 and self.order.commit
        scale = self.board.rate_scale / max(1, self.order.samples)
        self._open(0, OPEN * self.rate.level(scale) if commits else 0)

    def advance(self) -> None:
        """Let the last step of a phase that teaches through."""
        self._open(int(self.ends_lesson), 0)

    def _open(self, y2: int, y3: int) -> None:
        self.y2.send(y2 * self.ones)
        self.y3.send(y3 * self.ones)


class ConstantInput(AbstractProcess):
    """A neuron that always sends 1: the other end of a bias that learns.

    Ports: `s_out` (1,).
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.s_out = OutPort(shape=(1,))


@implements(proc=ConstantInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyConstantInput(PyLoihiProcessModel):
    """Model of `ConstantInput`."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)

    def run_spk(self) -> None:
        """One time step; Lava calls this."""
        self.s_out.send(np.ones(1))
