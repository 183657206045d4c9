"""A session on arrays: what only devices have is added here."""

from __future__ import annotations

from compilers.learning.plastic_weights import PlasticWeights
from compilers.program import Program
from ep_neuro.errors import ConfigError
from targets.crossbar.arrays.options import AGEING, read_options
from targets.crossbar.pulsed_weights import PulsedWeights
from targets.crossbar.simulator import CrossbarSimulator
from targets.interface.simulator import SimulatorSession


class CrossbarSession(SimulatorSession):
    """Settles inputs on noisy arrays and learns on them; see `targets.interface.session.Session`.

    A commit of `learn` is an ideal write, up to the end of the conductance range, or, by option
    ``learning``, pulses on the devices (`targets.crossbar.pulsed_weights`).

    Attributes
    ----------
    simulator : CrossbarSimulator
        The arrays, and digital biases; whoever changes them changes what runs.
    """

    def __init__(self, program: Program) -> None:
        self.simulator = CrossbarSimulator(program)
        super().__init__(program, self.simulator)

    def _begun(self) -> PlasticWeights:
        if not self.simulator.pulses:
            return super()._begun()
        learner = PulsedWeights(self.graph, self.simulator.by_weight)
        self.simulator.sense(learner)
        return learner

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass between two sessions of learning, as devices forget.

        Raises
        ------
        ConfigError
            If there is no model of how the program's device forgets (`pcm` and `reram` have one),
            or ReRAM was not measured after that time.
        """
        self._refuse_closed()
        options = read_options(self._program.options)
        if options.device not in AGEING:
            raise ConfigError(
                "target 'crossbar', option 'device'",
                f"nothing is known of how '{options.device}' forgets",
                f"choose from {', '.join(AGEING)}",
            )
        read_options({**self._program.options, "seconds": seconds})
        for array in self.simulator.by_weight.values():
            array.age(seconds)
        if self._learner is not None:
            self.simulator.sense(self._learner)
