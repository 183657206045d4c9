"""Populations: for each dynamics of `compilers.ir.graph` a Process and its equations; the input.

The equations are in either kind of numbers, whatever the ports deliver.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from compilers.ir.graph import Graded, Population, SigmaDelta, Spiking
from compilers.learning.plastic_weights import spread
from compilers.learning.traces import spike_weights, trace
from targets.lava.processes.declared import DeclaredProcess
from targets.lava.processes.phase_model import PhasedModel
from targets.lava.processes.process_weights import ProcessWeights
from targets.lava.runtime.layout import INPUT, OUTPUT
from targets.lava.runtime.monitor import PopulationMonitor, is_due
from targets.lava.runtime.shared_memory import PhaseCommand, shares


class InputSource(DeclaredProcess):
    """Sends the input once, as a sample begins: ``s(1) = x``; receivers hold it.

    Port: `s_out` (batch, *shape), or (neurons,) where one sample settles at a time.
    """

    outputs: ClassVar = {"s_out": "shape"}


class Neurons(DeclaredProcess):
    """What all populations share.

    Ports, all (batch, *shape), or (neurons,) where one sample settles at a time: `a_in` sums the
    currents of a step, `x_in` changes of a current that are held, `s_out` carries the messages and
    `z_out` what the readout sees. `v` is the membrane. Where something learns, `t_out` carries the
    trace, and `f_in` (1, *shape) sums the constant currents of plastic synapses.
    """

    inputs: ClassVar = {"a_in": "shape", "x_in": "shape", "f_in": "once"}
    outputs: ClassVar = dict.fromkeys(("s_out", "z_out", "t_out"), "shape")


class GradedNeurons(Neurons):
    """``v += leak (I - v)``, ``z = clip(v, box)``, ``message = z``."""

    variables: ClassVar = {"v": 24, "z": 16}


class SigmaDeltaNeurons(Neurons):
    """Graded neurons that send the change of ``z`` once it reaches an annealed threshold."""

    variables: ClassVar = {"v": 24, "z": 16, "sent": 16}


class SpikingNeurons(Neurons):
    """``u += leak (I - u)``, ``v += u``, spike and ``v -= 1`` where ``v >= 1``."""

    variables: ClassVar = {"v": 24, "u": 24}


NEURONS = {Graded: GradedNeurons, SigmaDelta: SigmaDeltaNeurons, Spiking: SpikingNeurons}
"""The Process of each dynamics."""


# --- models ------------------------------------------------------------------------------------

REMEMBERED = ("v", "message", "constant", "remainder")
"""State that all neurons have: membrane, last message, held current, remainder of the leak."""


class RecordedModel(PhasedModel):
    """A population, or the input: what it does is recorded."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.population: Population = proc_params["population"]
        self.monitor: PopulationMonitor = proc_params["monitor"]
        self.numbers = self.arithmetic(proc_params)

    def begin(self, command: PhaseCommand) -> None:
        """Make room for the records of the phase, too."""
        self.monitor.begin(*self.abreast)
        if command.start < 0:
            self.numbers.forget(command.rows)
        super().begin(command)


class NeuronsModel(RecordedModel):
    """What all populations share: the state at rest, the record of a step, the readout."""

    v: Any  # a LavaPyType until Lava builds the model
    nudge: np.ndarray
    """Nudging factor of each sample, (rows, 1, ...), in a phase that is nudged."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.is_output: bool = proc_params["is_output"]
        self.bias = np.asarray(proc_params["bias"], self.numbers.dtype)
        self.plastic: ProcessWeights | None = proc_params["plastic"]
        self.silence = np.zeros(proc_params["shape"], self.numbers.dtype)

    def begin(self, command: PhaseCommand) -> None:
        """No step is recorded yet."""
        self.noted = 0
        super().begin(command)

    @property
    @abstractmethod
    def shown(self) -> np.ndarray:
        """What the readout and the nudge see of the last step, in units of messages."""

    @property
    def trace(self) -> np.ndarray:
        """What a rule sees at the end of a phase, float64: `compilers.learning.synapses`."""
        return trace(self.population, self.shown)

    def aim(self, target: np.ndarray) -> None:
        """Be nudged to `target` in this phase, which is in units of the membrane."""
        self.target = target

    def pull(self) -> np.ndarray:
        """The nudge of this step."""
        return self.numbers.pull(self.nudge, self.target, self.shown)

    def rest(self) -> None:
        """Membrane at zero, nothing sent."""
        self.v = self.message = self.remainder = self.silence
        self.constant = self.silence + self.present_bias()

    def present_bias(self) -> np.ndarray:
        """The bias, with the part that learns as it is by now."""
        if self.plastic is None:
            return self.bias
        return self.bias + spread(self.plastic.values, self.population).reshape(self.bias.shape)

    def step_under(self, drive: np.ndarray) -> None:
        """One step under `drive`; `note` it."""
        if self.step == 1 and self.command.phase:
            self.numbers.forget(self.command.rows)
        self._before = self.v
        self.update(drive)

    def note(self, step: int) -> None:
        """Record `step`, which was the last; at the end of a phase, what it comes to."""
        self.noted = step
        self.monitor.count(step, self.message)
        self.monitor.compare(step, self._before, self.v)
        self.monitor.probe(step, self)
        if step == self.command.steps:
            self.monitor.saturate(self.numbers.saturated)
            if self.is_output:
                shown = self.read_out().reshape(self.command.rows, *self.population.shape)
                for command, rows in shares(self.abreast):
                    self.shared[OUTPUT][command.slot, : command.rows] = shown[rows]

    @abstractmethod
    def update(self, drive: np.ndarray) -> None:
        """One step of the dynamics under `drive`."""

    def read_out(self) -> np.ndarray:
        """What is read at the end of a phase, in real units."""
        return self.numbers.real(self.shown)


class GradedModel(NeuronsModel):
    """A leaky integrator that shows its clipped membrane."""

    memory: ClassVar[tuple[str, ...]] = (*REMEMBERED, "z")

    z: Any

    @property
    def shown(self) -> np.ndarray:
        """The clipped state."""
        return self.z

    def rest(self) -> None:
        """The box may exclude 0, so the state at rest is clipped, too."""
        super().rest()
        self.z = self.numbers.clip(self.v)

    @property
    def trace(self) -> np.ndarray:
        """The state, or what it differs by."""
        return self.z.astype(np.float64) if self.command.difference else super().trace

    def differ(self) -> None:
        """No difference yet, and in the box what the free membrane leaves."""
        self.rested, self.rested_trace = self.z, trace(self.population, self.z)
        self.rooms = self.numbers.rooms(self.v)
        self.v = self.z = self.message = self.remainder = self.silence

    def update(self, drive: np.ndarray) -> None:
        """Integrate and clip."""
        if self.command.difference:
            self.v, self.remainder = self.numbers.integrate(self.v, drive, self.remainder)
            shown = self.numbers.differ(self.v, self.rooms)
        else:
            self.v, self.remainder, shown = self.numbers.relax(self.v, drive, self.remainder)
        self.z = self.message = shown

    def read_out(self) -> np.ndarray:
        """Of a difference what it comes to."""
        shown = super().read_out()
        if self.command.difference:
            shown = shown * 2.0**-self.population.louder + self.numbers.real(self.rested)
        return shown


class SigmaDeltaModel(GradedModel):
    """A leaky integrator that stays silent while its change is below the threshold."""

    memory: ClassVar[tuple[str, ...]] = (*REMEMBERED, "z", "sent")

    sent: Any

    @property
    def trace(self) -> np.ndarray:
        """What the receivers know."""
        return trace(self.population, self.sent)

    def rest(self) -> None:
        """The receivers know nothing yet."""
        super().rest()
        self.sent = self.silence

    def update(self, drive: np.ndarray) -> None:
        """Integrate, clip, and send what has changed enough."""
        super().update(drive)
        change = self.z - self.sent
        large = np.abs(change) >= self.numbers.threshold(self.clock)
        self.message = self.numbers.send(change * large)
        self.sent = self.sent + self.message


class SpikingModel(NeuronsModel):
    """Integrate and fire on a filtered current; a soft reset subtracts, so the overshoot stays."""

    memory: ClassVar[tuple[str, ...]] = (*REMEMBERED, "u")

    u: Any

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.weighted = self._weights = self.silence
        self._unweighed: list[np.ndarray] = []

    @property
    def shown(self) -> np.ndarray:
        """The spikes of the last step."""
        return self.message.astype(self.numbers.dtype)

    @property
    def trace(self) -> np.ndarray:
        """The weighted mean of the messages over the phase."""
        return trace(self.population, self.weighted, int(self._weights.sum()))

    def rest(self) -> None:
        """Half way to a spike, so that the mean rate carries no bias."""
        super().rest()
        self.u, self.v = self.silence, self.silence + self.numbers.own.half

    def aim(self, target: np.ndarray) -> None:
        """Only two pulls are possible: without a spike in the last step, and with one."""
        ends = (np.full_like(target, spike) for spike in (0, 1))
        self._pulls = [self.numbers.pull(self.nudge, target, end) for end in ends]

    def pull(self) -> np.ndarray:
        """One of them for each neuron."""
        without, after = self._pulls
        return np.where(self.message, after, without)

    def update(self, drive: np.ndarray) -> None:
        """Filter, integrate, fire."""
        fired = self.numbers.fire(self.u, self.v, drive, self.remainder)
        self.u, self.v, self.message, self.remainder = fired

    def begin(self, command: PhaseCommand) -> None:
        """Nothing is weighed yet."""
        super().begin(command)
        self._weights = spike_weights(command.steps, from_rest=command.start < 0)
        self.weighted, self._unweighed = np.zeros(1), []

    def note(self, step: int) -> None:
        """Weigh the spikes, too, where somebody asks for their mean."""
        if self.command.sign or self.is_output:
            self._unweighed.append(self.message)
            if self.each_step or is_due(self._unweighed, step, self.command.steps):
                weights = self._weights[step - len(self._unweighed) : step].astype(np.float64)
                spikes = np.stack(self._unweighed).astype(np.float64)
                self.weighted = self.weighted + np.tensordot(weights, spikes, 1)
                self._unweighed = []
        super().note(step)

    def read_out(self) -> np.ndarray:
        """The weighted mean of the messages over the phase."""
        return self.weighted / self._weights.sum()


NEURON_MODELS: Mapping[type[Neurons], type[Any]] = {
    GradedNeurons: GradedModel,
    SigmaDeltaNeurons: SigmaDeltaModel,
    SpikingNeurons: SpikingModel,
}
"""The equations of each Process."""


class SourceModel(RecordedModel):
    """The model of `InputSource`."""

    wide = ("s_out",)

    def advance(self) -> None:
        """Send the input at the first step of a sample."""
        message = None
        if self.begins:
            message = self.numbers.message(self.shared[INPUT][self.command.at])
            self.s_out.send(message)
        self.record(message)

    def record(self, message: np.ndarray | None) -> None:
        """Count the events of the input, which speaks once, in the first phase."""
        if self.step == 1:
            if self.begins and self.command.phase == 0:
                assert message is not None
                self.monitor.count(1, message, last=True)
            else:
                self.numbers.forget(self.command.rows)
            self.monitor.saturate(self.numbers.saturated)
