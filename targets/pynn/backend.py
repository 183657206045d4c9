"""PyNN as a backend: the script that it writes, and what that leaves out of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compilers.hardware.limits import Quantity, Violation
from compilers.ir.graph import Graph, Spiking
from compilers.passes.encode import UNBOUNDED, with_spiking
from compilers.pipeline import Pass
from compilers.program import Program
from targets.interface.fanout import synapses_of
from targets.interface.protocols import Feature, Options
from targets.interface.refusals import forbidden, too_many_synapses, unrunnable, unusual
from targets.interface.script_backend import ScriptBackend
from targets.pynn.script import SCRIPT, network_file, script

if TYPE_CHECKING:
    from targets.interface.simulator import Simulator

PLAIN: Mapping[str, Any] = {"leak": 1.0, "bound": UNBOUNDED, "reset": "hard"}
"""A spiking neuron as `IF_curr_delta` has it."""

_NO_VALUE = "its neurons send spikes without a value"


class PynnBackend(ScriptBackend):
    """Writes a graph as a PyNN script, and has the reference's executor compute what that says.

    The standard neuron of PyNN empties its membrane when it fires, filters no current and knows no
    bound, so that answers are approximate; fine-tuning with ``reset: hard, leak: 1`` sees them as
    they will be. The script settles freely: it has no nudge and no learning.
    """

    name = "pynn"
    summary = "PyNN script (.py) for SpiNNaker and NEST: hard reset, approximate; an executor of it"
    suffix, marker = ".py", b"in PyNN. Written by ep-neuro"
    array_marker, script_name = b"synapses/", SCRIPT
    bounds: Mapping[str, Quantity] = {
        "synapses": Quantity(
            1 << 22, "synapses", "assumed: lines of a list, which PyNN goes through in minutes"
        )
    }
    unsupported: Mapping[Feature, str] = {
        Feature.GRADED: _NO_VALUE,
        Feature.SIGMA_DELTA: _NO_VALUE,
        Feature.FIXED_POINT: "a script holds real numbers, which SpiNNaker rounds by itself",
        Feature.LEARNING: "PyNN's plasticity pairs spikes, and has no phases",
    }

    def passes(self, options: Options) -> Sequence[Pass]:
        """Spiking neurons become those of PyNN."""
        return (Pass("plain_spikes", lambda graph: with_spiking(graph, **PLAIN)),)

    def check(self, graph: Graph) -> Sequence[Violation]:
        """What a script cannot say, and more synapses than PyNN can list."""
        other = [p for p in graph.neurons if not isinstance(p.dynamics, Spiking)]
        unlike = [p for p in graph.neurons if p not in other and p.dynamics != Spiking(**PLAIN)]
        found = forbidden(
            graph,
            (len(other), "populations that do not spike", "compile with --code spike"),
            (len(unlike), "neurons that PyNN has not", "compile it for pynn"),
            (len(graph.split), "sums made by share", "compile it for pynn"),
            (len(graph.plasticity), "weights that learn", "compile it without a rule"),
        )
        count = sum(int(synapses_of(graph, p).sum()) for p in graph.neurons)
        many = too_many_synapses(self, graph, "both directions", count)
        return (*unrunnable(graph), *found, *unusual(graph), *many)

    def script(self, graph: Graph, *names: str) -> str:
        """The script of `graph`."""
        return script(graph, *names)

    def arrays(self, graph: Graph) -> bytes:
        """What it reads."""
        return network_file(graph)

    def simulator(self, program: Program) -> Simulator:
        """The executor, of the graph that the script says."""
        # Imports torch: whoever asks what targets there are shall not wait for it.
        from targets.interface.graph_simulator import GraphSimulator

        return GraphSimulator(program.graph)


BACKEND = PynnBackend()
