"""What a run costs on an array: converters, cells and digital neurons, by how often each works."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from compilers.hardware.cost import Activity, memory_traffic
from compilers.hardware.limits import HardwareLimits, load_hardware
from compilers.ir.graph import Graph, Spiking
from compilers.ir.operators import fanout
from compilers.program import Program
from targets.crossbar.arrays.mapping import (
    ArrayMapping,
    array_mappings,
    digital_projections,
    is_forward,
)
from targets.crossbar.arrays.options import Options, read_options
from targets.interface.protocols import CostEstimate, RunResult

HARDWARE = Path(__file__).parents[1] / "hardware" / "isaac.yaml"

BITS = 8
"""Bits of an input where the options leave the DAC unlimited."""


@cache
def hardware() -> HardwareLimits:
    """Constants of the array, each with its source."""
    return load_hardware(HARDWARE)


def estimate(program: Program, result: RunResult) -> CostEstimate:
    """Energy and time of the free phase.

    Every line and cell works at every read: an array is read whole, whatever its inputs are. The
    input's arrays are read once, the others once a step and direction; what of the input is
    computed in digital costs its products. Arrays work side by side,
    the reads of one array one after another. Not counted: programming, static power, wires
    between tiles.
    """
    graph, options = program.graph, read_options(program.options)
    steps = len(next(iter(result.free.events.values())))
    cycles = cycles_a_read(graph, options)
    work, seconds = dict.fromkeys(("dac", "adc", "cell"), 0.0), 0.0
    sources = {p.name for p in graph.sources}
    for array, projections in array_mappings(graph, options).items():
        passes = 0
        for p in projections:
            times = (1 if p.pre in sources else steps) * array.reads * cycles
            passes += times
            for part, count in conversions(array, options.tile, is_forward(p)).items():
                work[part] += times * count
        seconds = max(seconds, passes * _constant("cycle"))
    neurons = sum(p.size for p in graph.neurons)
    parts = {
        "input conversions": work["dac"] * _constant("dac_conversion"),
        "output conversions": work["adc"] * _constant("adc_conversion"),
        "cells": work["cell"] * _constant("cell_read"),
        "digital input": _digital_products(graph, options) * _constant("digital_mac"),
        "neuron updates": steps * neurons * _constant("neuron_update"),
    }
    sourced = dict.fromkeys(q.source for q in hardware().parameters.values())
    return CostEstimate(
        energy_joule=sum(parts.values()),
        seconds=seconds,
        source=f"{hardware().name}: {'; '.join(sourced)}",
        parts=parts,
        # Weights are read where they lie: what moves is the states.
        memory_bytes=memory_traffic(graph, Activity({}, {}, steps)),
    )


def conversions(array: ArrayMapping, tile: int, forward: bool) -> dict[str, int]:
    """Conversions and cell reads of one read: a line is driven, and read out, at each tile."""
    outputs, inputs = array.lines
    rows, columns = array.grid(tile)
    driven, sensed = inputs * rows, outputs * columns
    if not forward:
        driven, sensed = sensed, driven
    return {"dac": driven, "adc": sensed, "cell": array.cells}


def _digital_products(graph: Graph, options: Options) -> int:
    """Multiplications of what of the input is computed in digital, once a sample."""
    shape = {p.name: p.shape for p in graph.populations}
    found = (
        fanout(p.operator, graph.arrays[p.weight].shape, shape[p.pre], shape[p.post])
        for p in digital_projections(graph, options)
    )
    return sum(int(counts.sum()) for counts in found)


def cycles_a_read(graph: Graph, options: Options) -> int:
    """Cycles of one read: one for spikes, else one a bit of the input."""
    if any(isinstance(p.dynamics, Spiking) for p in graph.neurons):
        return 1
    return options.dac_bits or BITS


def _constant(name: str) -> float:
    return hardware().parameters[name].value
