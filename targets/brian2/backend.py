"""Brian2 as a backend: what it can do, what it refuses, and the script that it writes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence

from compilers.hardware.limits import Quantity, Violation
from compilers.ir.graph import Graph
from compilers.program import Program
from targets.brian2.codegen.equations import synapses_per_sample
from targets.brian2.codegen.script import SCRIPT, script, weights_file
from targets.brian2.session import ALLOWED, OPTIONS, Brian2Session, missing_tools
from targets.interface.protocols import Availability, Feature
from targets.interface.refusals import (
    forbidden,
    refuse_unready,
    too_many_synapses,
    unrunnable,
    unusual,
)
from targets.interface.script_backend import ScriptBackend


class Brian2Backend(ScriptBackend):
    """Writes a graph as a Brian2 script, and runs that script.

    C++ standalone settles all samples in one run; NumPy, without a compiler, serves probes of
    states. The option ``mode`` of a program chooses one of them for all.
    """

    name = "brian2"
    summary = "Brian2, the simulator: a readable script, run as C++ (standalone) or in NumPy"
    tolerance = 1e-9
    suffix, marker = ".py", b"Written by ep-neuro"
    array_marker, script_name = b"weight/", SCRIPT
    # Brian2 has no convolution: listing a synapse takes 48 bytes, running it 24.
    bounds: Mapping[str, Quantity] = {
        "synapses": Quantity(1 << 26, "synapses", "assumed: 72 bytes each in the memory of a host")
    }
    options, allowed = OPTIONS, ALLOWED
    unsupported: Mapping[Feature, str] = {
        Feature.FIXED_POINT: "its equations hold real numbers, and know no shifts",
    }

    def available(self) -> Availability:
        """Whether Brian2 is installed; without a C++ compiler it runs all the same, in NumPy."""
        if importlib.util.find_spec("brian2") is None:
            older = sys.version_info < (3, 12)
            wanted = "'brian2>=2.9,<2.10'" if older else "'brian2>=2.10'"
            return Availability(False, f"Brian2 is not installed; `pip install {wanted}`")
        missing = missing_tools()
        return Availability(True, f"in NumPy, slowly: {missing}" if missing else "")

    def check(self, graph: Graph) -> Sequence[Violation]:
        """What a script cannot say, and more synapses than a host can list."""
        stepwise = [r.weight for r in graph.plasticity if r.rule.when == "step"]
        found = forbidden(
            graph,
            (len(stepwise), "weights that change at every step", "choose the rule contrastive"),
        )
        many = too_many_synapses(self, graph, "its couplings", synapses_per_sample(graph))
        return (*unrunnable(graph), *unusual(graph), *found, *many)

    def script(self, graph: Graph, *names: str) -> str:
        """The script of `graph`."""
        return script(graph, *names)

    def arrays(self, graph: Graph) -> bytes:
        """What it reads."""
        return weights_file(graph)

    def open(self, program: Program) -> Brian2Session:
        """Load `program`; Brian2 itself starts with the first samples.

        Raises
        ------
        TargetError
            If Brian2 is missing, or the graph is in integers or breaks a limit.
        ConfigError
            If an option of the program is out of range.
        """
        refuse_unready(self, program.graph)
        return Brian2Session(program)


BACKEND = Brian2Backend()
