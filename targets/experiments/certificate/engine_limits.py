"""What a program that learns asks of a chip's learning engine, beside what the engine has."""

from __future__ import annotations

from dataclasses import dataclass

import targets
from compilers.ir.graph import Graph
from compilers.learning.synapses import TAG
from compilers.learning.traces import trace_frac
from compilers.program import Program

NOMINAL = "loihi2"
"""The chip whose engine is meant where a target has none of its own."""


@dataclass(frozen=True)
class EngineLimit:
    """A width that learning on a chip is bound by."""

    chip: str
    """Whose engine it is."""
    quantity: str
    used: int | None
    """Bits that the program takes; None in floating point, which no engine has."""
    limit: float
    """Bits that the engine has."""
    source: str
    """Of the limit."""

    @property
    def holds(self) -> bool:
        """Whether the engine has as many."""
        return self.used is not None and self.used <= self.limit


def engine_limits(program: Program) -> tuple[EngineLimit, ...]:
    """The widths of weights, tags, traces and messages, on the target's own engine or `NOMINAL`.

    By the hardware file of the chip. A trace is a height of its box in fractional bits.
    """
    hardware = targets.get(program).limits(program.options)
    if "trace_bits" not in hardware.limits:
        hardware = targets.get(NOMINAL).limits({})
    used = _widths(program.graph) if program.graph.quantised else {}
    names = ("weight", "tag", "trace", "message", "state")
    known = ((name, hardware.limits.get(f"{name}_bits")) for name in names)
    return tuple(
        EngineLimit(hardware.name, f"{name}s", used.get(name), limit.value, limit.source)
        for name, limit in known
        if limit is not None
    )


def _widths(graph: Graph) -> dict[str, int]:
    """The widest of each kind in a graph of integers, in bits."""
    found = {
        "weight": [r.bits for r in graph.plasticity if r.bits is not None],
        "trace": [trace_frac(p) for p in graph.populations],
        "message": [p.message.bits for p in graph.populations if p.message is not None],
        "state": [p.state.bits for p in graph.neurons if p.state is not None],
    }
    return {"tag": TAG.bits, **{name: max(bits) for name, bits in found.items() if bits}}
