"""The equations of the neurons, in either kind of numbers, whatever the ports deliver."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from compilers.ir.graph import Population
from compilers.learning.synapses import spike_weights, trace
from targets.lava.processes.neurons import (
    GradedNeurons,
    Neurons,
    SigmaDeltaNeurons,
    SpikingNeurons,
)
from targets.lava.processes.phase_model import PhasedModel
from targets.lava.runtime.layout import OUTPUT
from targets.lava.runtime.monitor import PopulationMonitor

REMEMBERED = ("v", "message", "constant", "remainder")
"""State that all neurons have: membrane, last message, held current, remainder of the leak."""


class NeuronsModel(PhasedModel):
    """What all populations share: the state at rest, the record of a step, the readout."""

    v: Any  # a LavaPyType until Lava builds the model

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.population: Population = proc_params["population"]
        self.recorder: PopulationMonitor = proc_params["recorder"]
        self.is_output: bool = proc_params["is_output"]
        self.numbers = self.arithmetic(proc_params)
        self.bias = np.asarray(proc_params["bias"], self.numbers.dtype)
        self.silence = np.zeros(proc_params["shape"], self.numbers.dtype)

    @property
    @abstractmethod
    def shown(self) -> np.ndarray:
        """What the readout and the nudge see of the last step, in units of messages."""

    @property
    def trace(self) -> np.ndarray:
        """What a rule sees at the end of a phase, float64: `compilers.learning.synapses`."""
        return trace(self.population, self.shown)

    def rest(self) -> None:
        """Membrane at zero, nothing sent, nothing saturated."""
        self.numbers.saturated[:] = 0
        self.v = self.message = self.remainder = self.silence
        self.constant = self.silence + self.bias

    def step_under(self, drive: np.ndarray) -> None:
        """One step under `drive`, recorded."""
        if self.step == 1 and self.order.phase:
            self.numbers.saturated[:] = 0
        self.update(drive)
        self.recorder.count(self.step, self.message)
        self.recorder.probe(self.step, self)
        self.recorder.saturate(self.numbers.saturated)
        if self.is_output:
            output = self.board[OUTPUT]
            self.read_out(output.reshape(self.silence.shape))

    @abstractmethod
    def update(self, drive: np.ndarray) -> None:
        """One step of the dynamics under `drive`."""

    def read_out(self, output: np.ndarray) -> None:
        """Write the readout; what the last step of a phase leaves there counts."""
        output[:] = self.numbers.real(self.shown)


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

    def update(self, drive: np.ndarray) -> None:
        """Integrate and clip."""
        self.v, self.remainder = self.numbers.integrate(self.v, drive, self.remainder)
        self.z = self.message = self.numbers.clip(self.v)


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
    """Integrate and fire on a filtered current; the reset subtracts, so the overshoot stays."""

    memory: ClassVar[tuple[str, ...]] = (*REMEMBERED, "u")

    u: Any

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.spikes = self.weighted = self.silence

    @property
    def shown(self) -> np.ndarray:
        """The spikes of the last step."""
        return self.message

    @property
    def trace(self) -> np.ndarray:
        """The weighted mean of the messages over the phase."""
        return trace(self.population, self.weighted, int(self._weights().sum()))

    def rest(self) -> None:
        """Half way to a spike, so that the mean rate carries no bias."""
        super().rest()
        self.u, self.v = self.silence, self.silence + self.numbers.own.half

    def update(self, drive: np.ndarray) -> None:
        """Filter, integrate, fire."""
        self.u, self.remainder = self.numbers.integrate(self.u, drive, self.remainder)
        v = self.numbers.store(np.clip(self.v + self.u, *self.numbers.own.levels))
        self.message = (v >= self.numbers.one).astype(self.numbers.dtype)
        self.v = v - self.numbers.one * self.message
        late = self.step - self.order.steps // 2
        if late > 0 and self.is_output:
            self.spikes = (self.silence if late == 1 else self.spikes) + self.message
        if self.order.sign:
            weight = self._weights()[self.step - 1].astype(self.numbers.dtype)
            before = self.silence if self.step == 1 else self.weighted
            self.weighted = before + weight * self.message

    def _weights(self) -> np.ndarray:
        return spike_weights(self.order.steps, from_rest=self.order.start < 0)

    def read_out(self, output: np.ndarray) -> None:
        """The mean of the messages over the last half of the phase."""
        late = self.step - self.order.steps // 2
        if late > 0:
            output[:] = self.spikes / late


NEURON_MODELS: Mapping[type[Neurons], type[Any]] = {
    GradedNeurons: GradedModel,
    SigmaDeltaNeurons: SigmaDeltaModel,
    SpikingNeurons: SpikingModel,
}
"""The equations of each Process."""
