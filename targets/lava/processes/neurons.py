"""Populations of neurons: one Process for each dynamics of `compilers.ir.graph`."""

from __future__ import annotations

from typing import ClassVar

from compilers.ir.graph import Graded, SigmaDelta, Spiking
from targets.lava.processes.declared import DeclaredProcess


class Neurons(DeclaredProcess):
    """What all populations share.

    Ports, all (batch, *shape), or (neurons,) where one sample settles at a time: `a_in` sums the
    currents of a step, `x_in` changes of a current that are held, `s_out` carries the messages and
    `z_out` what the readout sees. `v` is the membrane. Where something learns, `t_out` carries the
    trace, and `f_in` (*shape) sums the constant currents of plastic synapses.
    """

    inputs: ClassVar = {"a_in": "shape", "x_in": "shape", "f_in": "sample_shape"}
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
