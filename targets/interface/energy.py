"""The nominal hardware of the simulated targets: what a run would cost on Loihi."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from compilers.hardware.cost import Activity, learning_joule, phase_cost
from compilers.hardware.limits import HardwareLimits, load_hardware
from compilers.ir.graph import Graph
from targets.interface.protocols import CostEstimate, PhaseResult, RunResult


@cache
def loihi() -> HardwareLimits:
    """Limits and energy constants of the first Loihi, each with its source."""
    return load_hardware(Path(__file__).parents[1] / "hardware" / "loihi.yaml")


def estimate_on(hardware: HardwareLimits, graph: Graph, result: RunResult) -> CostEstimate:
    """Cost of one inference on `hardware`, and of one learning step if `result` has more phases.

    Raises
    ------
    TargetError
        If the hardware has no energy constants.
    """
    cost = phase_cost(graph, hardware, activity(result.free))
    phases = [activity(phase) for phase in result.phases.values()]
    assert hardware.energy is not None
    return CostEstimate(
        energy_joule=cost.joule,
        seconds=cost.seconds,
        source=f"{hardware.name}: {hardware.energy.source}",
        parts=cost.parts,
        memory_bytes=cost.memory_bytes,
        learning_joule=learning_joule(graph, hardware, phases) if len(phases) > 1 else None,
    )


def activity(phase: PhaseResult) -> Activity:
    """What one sample did in `phase`, the mean over all samples."""
    return Activity(
        events={name: float(counts.sum(0).mean()) for name, counts in phase.events.items()},
        synops={name: float(counts.sum(0).mean()) for name, counts in phase.synops.items()},
        steps=len(next(iter(phase.events.values()))),
    )
