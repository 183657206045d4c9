"""Lava as a backend: what it can do, what it refuses, what a run would cost on Loihi."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from compilers.artifact import Program, versions
from compilers.ir import Graph
from compilers.limits import (
    HardwareLimits,
    Violation,
    estimate,
    estimate_seconds,
    load_hardware,
)
from compilers.pipeline import Pass
from ep_neuro.errors import TargetError
from targets.base import Availability, CostEstimate, Feature, Options, RunResult
from targets.lava.plan import partners, unreached
from targets.lava.session import LavaSession

HARDWARE = Path(__file__).parents[1] / "hardware" / "loihi.yaml"
"""The nominal hardware of the estimate."""

PYTHON = (3, 10)
"""The only Python that lava-nc 0.10 runs on."""

PROCESSES = "processes.txt"
"""Name of the program's file that lists the process graph."""


class LavaBackend:
    """Executes a graph as Lava Processes on the CPU, batched, in floating point."""

    name = "lava"
    summary = "Lava processes on the CPU, batched, in floating point (lava-nc)"
    tolerance = 1e-9
    unsupported: Mapping[Feature, str] = {
        Feature.FIXED_POINT: "its processes have floating-point models only",
        Feature.LEARNING: "its processes execute settling only; their weights are constant",
    }

    def available(self) -> Availability:
        """Whether Lava is installed, on the Python that it needs."""
        python = ".".join(map(str, PYTHON))
        if sys.version_info[:2] != PYTHON:
            running = ".".join(map(str, sys.version_info[:2]))
            how = f"make an environment with Python {python} and `pip install lava-nc` there"
            return Availability(False, f"Lava needs Python {python} and this is {running}; {how}")
        if importlib.util.find_spec("lava") is None:
            return Availability(False, "Lava is not installed; `pip install lava-nc==0.10.*`")
        return Availability(True)

    def limits(self, options: Options) -> HardwareLimits:
        """None: the CPU holds what its memory holds."""
        return HardwareLimits(self.name)

    def passes(self, options: Options) -> Sequence[Pass]:
        """None: a graph runs as it is."""
        return ()

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Integers, undirected couplings, and what Lava cannot reach from one Process."""
        integers = sum(p.state is not None or p.message is not None for p in graph.populations)
        apart = unreached(graph)
        counts = (
            (integers, "populations with number formats", "compile without bits"),
            (len(graph.couplings), "undirected couplings", "run the pass 'expand_couplings'"),
            (len(apart), "unconnected populations", f"connect {', '.join(apart)}"),
            (max(0, len(graph.sources) - 1), "further inputs", "give it one Source population"),
        )
        subject = f"graph '{graph.name}'"
        return tuple(Violation(f"{subject}, {what}", n, 0, how) for n, what, how in counts if n)

    def emit(self, graph: Graph) -> Program:
        """The graph itself, with the list of processes that it becomes."""
        files = {PROCESSES: process_list(graph)}
        return Program(target=self.name, graph=graph, files=files, provenance=versions())

    def open(self, program: Program) -> LavaSession:
        """Load `program`; Lava itself starts with the first batch.

        Raises
        ------
        TargetError
            If Lava is not available, or `check` finds a violation.
        ConfigError
            If an option of the program is out of range.
        """
        state = self.available()
        if not state.available:
            what, _, how = state.reason.partition("; ")
            raise TargetError("target 'lava'", what, how)
        violations = self.check(program.graph)
        if violations:
            first = violations[0]
            more = f" ({len(violations)} violations in all)" if len(violations) > 1 else ""
            problem = f"{first.value:g} exceed {first.limit:g}{more}"
            raise TargetError(first.subject, problem, first.remedy)
        return LavaSession(program)

    def estimate(self, program: Program, result: RunResult) -> CostEstimate:
        """Energy and time of the free phase on Loihi, from the counted events.

        Every neuron is taken to be active at every step, as the steps of a leaky integrator are;
        the time is that of one core that does all of it.
        """
        hardware = load_hardware(HARDWARE)
        assert hardware.energy is not None
        events, synops = result.events_per_sample, result.synops_per_sample
        steps = len(next(iter(result.free.events.values())))
        updates = steps * sum(p.size for p in program.graph.neurons)
        return CostEstimate(
            energy_joule=estimate(hardware.energy, events, synops, updates),
            seconds=estimate_seconds(hardware.energy, synops, updates),
            source=f"{hardware.name}: {hardware.energy.source}",
        )


def process_list(graph: Graph) -> str:
    """The Lava Processes of `graph`, one a line, with what they connect."""
    lines = [f"{type(p.dynamics).__name__:<12} {p.name} {list(p.shape)}" for p in graph.populations]
    sources = {p.name for p in graph.sources}
    lines += [f"{'FromInput':<12} {p.name}" for p in graph.projections if p.pre in sources]
    for p, mate in partners(graph):
        kind, arrow = ("OneWay", "->") if mate is None else ("Coupling", "<->")
        lines.append(f"{kind:<12} {p.pre}{arrow}{p.post}")
    return "\n".join(lines) + "\n"
