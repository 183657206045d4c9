"""NEST as a backend: what it can do, what it refuses, and what its spiking neurons leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compilers.hardware.limits import Quantity, Violation
from compilers.ir.graph import Graph, Spiking
from compilers.passes.encode import UNBOUNDED, with_spiking
from compilers.pipeline import Pass
from compilers.program import Program
from targets.interface.fanout import synapses_of
from targets.interface.options import SECONDS, Values
from targets.interface.protocols import Feature, Options
from targets.interface.refusals import (
    forbidden,
    refuse_integers,
    too_many_synapses,
    unrunnable,
    unusual,
)
from targets.interface.simulated_backend import SimulatedBackend

if TYPE_CHECKING:
    from targets.nest.simulator import NestSimulator


class NestBackend(SimulatedBackend):
    """Runs a graph on the built-in neurons of NEST, in floating point.

    It buys an independent second opinion and reach, not speed: a sample runs at a time, and weights
    are not shared: each place of a kernel is a synapse of its own in each direction. NEST built
    with MPI lets one network span machines; the wheel of PyPI has threads alone. NEST is GPL: it
    is installed by the extra ``nest``, and runs in a process of its own. Sums are made in another
    order, so that a state of 0 may be one of 1e-17, which counts as a message.
    """

    name = "nest"
    summary = "NEST, the simulator: built-in rate and soft-reset neurons, an independent check"
    tolerance = 1e-12
    package, how_to_get = "nest", "NEST is not installed; `pip install 'ep-neuro[nest]'`"
    bounds: Mapping[str, Quantity] = {
        "synapses": Quantity(1 << 28, "synapses", "assumed: 60 bytes each in the memory of a host")
    }
    options: Mapping[str, Any] = {"threads": 1, "time_limit": None}
    allowed: Mapping[str, Values] = {"threads": range(1, 1025), "time_limit": SECONDS}
    unsupported: Mapping[Feature, str] = {
        Feature.SIGMA_DELTA: "no built-in neuron of it sends the change of its state",
        Feature.FIXED_POINT: "its neurons hold real numbers, and know no shifts",
        Feature.LEARNING: "a weight is many synapses there, which would learn apart",
    }

    def passes(self, options: Options) -> Sequence[Pass]:
        """Spikes lose their filter and their bound; `ConfigError` if an option is out of range."""
        return (*super().passes(options), Pass("plain_spikes", plain_spikes))

    def check(self, graph: Graph) -> Sequence[Violation]:
        """What its neurons cannot do, and more synapses than a host can hold."""
        spiking = [p.dynamics for p in graph.neurons if isinstance(p.dynamics, Spiking)]
        changes = [] if Feature.SIGMA_DELTA.value != graph.encoding else graph.neurons
        filtered = [d for d in spiking if d.leak != 1]
        hard = [d for d in spiking if d.reset == "hard"]
        bounded = [d for d in spiking if d.bound < UNBOUNDED]
        found = forbidden(
            graph,
            (len(graph.split), "sums made by share", "compile it for nest"),
            (len(graph.plasticity), "weights that learn", "compile it without a rule"),
            (len(changes), "sigma-delta populations", "compile with --code graded or spike"),
            (len(filtered), "spiking leaks below 1", "compile it for nest, which leaves them out"),
            (len(hard), "hard resets", "run it on reference or brian2, or emit it with pynn"),
            (len(bounded), "bounds of spiking membranes", "compile it for nest"),
        )
        count = sum(int(synapses_of(graph, p).sum()) for p in graph.neurons)
        many = too_many_synapses(self, graph, "both directions", count)
        return (*unrunnable(graph), *unusual(graph), *found, *many)

    def emit(self, graph: Graph) -> Program:
        """The graph itself; `TargetError` if it is in integers."""
        refuse_integers(self, graph)
        return super().emit(graph)

    def simulator(self, program: Program) -> NestSimulator:
        """What runs `program`; NEST itself starts with the first sample."""
        from targets.nest.simulator import NestSimulator

        options = self.chosen(program.options)
        return NestSimulator(program.graph, options["threads"], options["time_limit"])


def plain_spikes(graph: Graph) -> Graph:
    """`graph` with spiking neurons as NEST has them with a soft reset: leak 1, and no bound.

    ``eprop_iaf`` takes its input up at once, and its membrane has no upper end, so that it
    remembers all of a drive that was beyond 1.
    """
    return with_spiking(graph, leak=1.0, bound=UNBOUNDED)


BACKEND = NestBackend()
