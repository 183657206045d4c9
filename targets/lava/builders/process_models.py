"""Which Process stands for which dynamics, and which model runs which Process."""

from __future__ import annotations

from collections.abc import Mapping

from lava.magma.core.model.model import AbstractProcessModel
from lava.magma.core.process.process import AbstractProcess

from compilers.ir.graph import Graded, SigmaDelta, Spiking
from targets.lava.processes.neurons import (
    GradedNeurons,
    Neurons,
    SigmaDeltaNeurons,
    SpikingNeurons,
)

NEURONS: Mapping[type, type[Neurons]] = {
    Graded: GradedNeurons,
    SigmaDelta: SigmaDeltaNeurons,
    Spiking: SpikingNeurons,
}
"""The Process of each dynamics."""

Models = Mapping[type[AbstractProcess], type[AbstractProcessModel]]


def by_process(*models: type[AbstractProcessModel]) -> Models:
    """Models by the Process that each implements."""
    return {model.implements_process: model for model in models}
