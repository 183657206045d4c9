"""Lava as a backend: what it can do, what it refuses, what a run would cost on Loihi."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compilers.hardware.limits import HardwareLimits, Violation
from compilers.hardware.word_lengths import HOST_WORDS, inexact
from compilers.ir.graph import Graph
from compilers.learning.weight_sharing import FREEZE
from compilers.program import Program
from ep_neuro.errors import ConfigError
from targets.interface.protocols import Availability, Options
from targets.interface.refusals import forbidden, refuse_unready
from targets.interface.simulated_backend import SimulatedBackend
from targets.lava.connections.native import OWN, kind, misfit
from targets.lava.connections.replicas import copies, unlearnable
from targets.lava.runtime.environment import ARCHIVED, missing
from targets.lava.runtime.layout import BATCHED, FAITHFUL, homes, unreached
from targets.lava.session import ALLOWED, OPTIONS, LavaSession

PROCESSES, LAYERS = "processes.txt", "layers.txt"
"""Names of the program's files that list the process graph of either lowering."""

LEARNING = "LearningDense"
"""Name of the process of a projection that learns in the faithful lowering."""


class LavaBackend(SimulatedBackend):
    """Executes a graph as Lava Processes on the CPU, in floating point or in integers.

    The option ``lowering`` of a program chooses how. ``batched``, the default, settles many samples
    at once and keeps each tied weight in one Process. ``faithful`` is the graph that moves to
    hardware: a `HopfieldLayer` for each population, with one Process for each directed projection,
    Lava's own Dense or Sparse wherever those compute the right thing. Batched, everything learns
    that the reference can, and alike; faithful, dense couplings do, by Lava's own learning rule (in
    integers where they are stock processes, see `targets.lava.connections.loihi_rule`), and a
    program that asks for more is refused as it is to learn.
    """

    name = "lava"
    summary = "Lava processes on the CPU, batched or as on chip (lava-nc 0.10; archived by Intel)"
    tolerance = 1e-9
    differs = True
    options, allowed = OPTIONS, ALLOWED

    def available(self) -> Availability:
        """Whether Lava is in an environment of its own, on the Python that it needs."""
        found = missing()
        return Availability(found is None, "; ".join(found or (ARCHIVED,)))

    def limits(self, options: Options) -> HardwareLimits:
        """The word lengths within which integer arithmetic is exact; memory is the CPU's."""
        return HardwareLimits(self.name, HOST_WORDS)

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Undirected couplings, loops without a step of delay, what Lava cannot reach, overflow."""
        apart, formless = unreached(graph), _formless(graph)
        hasty = [p.name for p in graph.projections if p.delay < 1]
        found = forbidden(
            graph,
            (formless, "populations without a number format", "quantise the whole graph"),
            (len(graph.couplings), "undirected couplings", "run the pass 'expand_couplings'"),
            (len(hasty), "feedback loops without a buffer", f"delay {', '.join(hasty)} by 1 step"),
            (len(apart), "unconnected populations", f"connect {', '.join(apart)}"),
            (len(graph.sources) - 1, "further inputs", "give it one Source population"),
        )
        return (*found, *_shared(graph), *(() if formless else inexact(graph, self.limits({}))))

    def emit(self, graph: Graph) -> Program:
        """The graph itself, with the lists of processes that it becomes."""
        files = {PROCESSES: process_list(graph), LAYERS: layer_list(graph)}
        return replace(super().emit(graph), files=files)

    def open(self, program: Program) -> LavaSession:
        """Load `program`; Lava itself starts with the first batch.

        Raises
        ------
        TargetError
            If Lava is not available, or `check` finds a violation.
        ConfigError
            If an option of the program is out of range, or its lowering cannot take the graph.
        """
        refuse_unready(self, program.graph)
        session = LavaSession(program)
        late = [p for p in program.graph.projections if p.delay > 1]
        if session.lowering == FAITHFUL and late:
            subject = f"projection '{late[0].name}', delay"
            more = f" ({len(late)} projections in all)" if len(late) > 1 else ""
            problem = f"{late[0].delay} steps exceed the 1 that a stock process holds back{more}"
            raise ConfigError(subject, problem, f"use lowering {BATCHED}")
        return session


def _formless(graph: Graph) -> int:
    """Populations and projections that lack the format to be integers, in a graph that has some."""
    if not graph.quantised:
        return 0
    bare = [p for p in graph.populations if p.message is None]
    bare += [p for p in graph.neurons if p.state is None and p.message is not None]
    return len(bare) + sum(p.rescale is None for p in graph.projections)


def _shared(graph: Graph) -> list[Violation]:
    """Plastic weights that more than one process would hold and change."""
    remedy = f"give each projection a weight of its own, or {FREEZE}"
    counts = {r.weight: homes(graph, r.weight) for r in graph.plasticity}
    return [
        Violation(f"plastic weight '{name}', processes", count, 1, remedy)
        for name, count in counts.items()
        if count > 1
    ]


def process_list(graph: Graph) -> str:
    """The Processes of the batched lowering of `graph`, one a line, with what they connect."""
    lines = [f"{type(p.dynamics).__name__:<12} {p.name} {list(p.shape)}" for p in graph.populations]
    sources = {p.name for p in graph.sources}
    lines += [f"{'FromInput':<12} {p.name}" for p in graph.projections if p.pre in sources]
    for tie in graph.tied(recurrent=True):
        kind, arrow = ("Coupling", "<->") if tie.forward and tie.backward else ("OneWay", "->")
        lines.append(f"{kind:<12} {tie.first.pre}{arrow}{tie.first.post}")
    return "\n".join(lines) + "\n"


def layer_list(graph: Graph) -> str:
    """The Processes of the faithful lowering, those inside a layer indented, with the reasons why.

    A projection says why it is no stock process where it is none. In a network that learns by
    Lava's rule, a plastic one has a gate, and so has a plastic bias, from a neuron that sends 1.
    """
    taught = copies(graph) if graph.plasticity and not unlearnable(graph) else {}
    lines = [f"{'Source':<16} {p.name} {list(p.shape)}" for p in graph.sources]
    for population in graph.neurons:
        lines.append(f"{'HopfieldLayer':<16} {population.name} {list(population.shape)}")
        for p in graph.into(population.name):
            if p.name in taught:
                lines.append(f"  {LEARNING:<14} {p.name}")
                continue
            name = kind(graph, p)
            why = f": {misfit(graph, p)}" if name == OWN else ""
            lines.append(f"  {name:<14} {p.name}{why}")
        if population.bias in taught:
            lines.append(f"  {LEARNING:<14} {population.bias}")
    lines.append(f"{'Nudge':<16} {graph.output}")
    return "\n".join(lines) + "\n"
