"""The nominal hardware of the simulated targets: what a run would cost on Loihi."""

from __future__ import annotations

from pathlib import Path

from compilers.artifact import Program
from compilers.limits import estimate, estimate_seconds, load_hardware
from targets.base import CostEstimate, RunResult

HARDWARE = Path(__file__).parent / "hardware" / "loihi.yaml"
"""Limits and energy constants of the first Loihi, each with its source."""


def estimate_on_loihi(program: Program, result: RunResult) -> CostEstimate:
    """Energy and time of the free phase on Loihi, from the counted events.

    Every neuron is taken to be active at every step, as the steps of a leaky integrator are;
    the time is that of one core that does all of it.
    """
    hardware = load_hardware(HARDWARE)
    assert hardware.energy is not None
    synops = result.synops_per_sample
    steps = len(next(iter(result.free.events.values())))
    updates = steps * sum(p.size for p in program.graph.neurons)
    return CostEstimate(
        energy_joule=estimate(hardware.energy, result.events_per_sample, synops, updates),
        seconds=estimate_seconds(hardware.energy, synops, updates),
        source=f"{hardware.name}: {hardware.energy.source}",
    )
