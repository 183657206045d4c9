"""The placement of a graph, told as text and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compilers.hardware.limits import HardwareLimits
from compilers.hardware.placement import (
    CoreLoad,
    between_chips,
    chips_used,
    cores_used,
    loads,
    volume,
)
from compilers.hardware.resources import partial_sums
from compilers.ir.graph import Graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ("neurons", "synaptic_bytes", "memory_bytes", "axons_in", "axons_out")
_LIMITS = tuple(f"{name}_per_core" for name in _COLUMNS)


def placement_text(graph: Graph, hardware: HardwareLimits) -> str:
    """Table of the populations on their cores, and of the messages between chips.

    Loads are those of the fullest core of a population, in percent of the limit where there is
    one; messages count what would be sent if every neuron spoke once.
    """
    by_population: dict[str, list[CoreLoad]] = {}
    for load in loads(graph, hardware):
        for name in load.populations:
            by_population.setdefault(name, []).append(load)
    width = max(12, *map(len, by_population))
    lines = [
        f"{graph.name} on {hardware.name}: cores {cores_used(graph)}, chips {chips_used(graph)}",
        "",
        f"{'population':<{width}} {'shape':<14} {'cores':<10} {'chips':<6} {'box':<12} "
        + " ".join(f"{c.replace('_', ' '):>16}" for c in _COLUMNS),
    ]
    for name, held in by_population.items():
        lines.append(f"{name:<{width}} " + _population_line(graph, hardware, name, held))
    return (
        "\n".join([*lines, "", *_split_lines(graph), *_traffic_lines(between_chips(graph))]) + "\n"
    )


def _population_line(
    graph: Graph, hardware: HardwareLimits, name: str, held: Sequence[CoreLoad]
) -> str:
    first = next(t for t in graph.placement if t.population == name)
    box = "x".join(str(high - low) for low, high in (first.channels, first.rows, first.columns))
    shape = "x".join(map(str, volume(graph.population(name))))
    cells = []
    for quantity, limit in zip(_COLUMNS, _LIMITS, strict=True):
        most, bound = max(getattr(load, quantity) for load in held), hardware.limit(limit)
        share = f" ({100 * most / bound:3.0f} %)" if np.isfinite(bound) else ""
        cells.append(f"{most:,}{share}".rjust(16))
    cores, chips = (_span([getattr(x, k) for x in held]) for k in ("core", "chip"))
    return f"{shape:<14} {cores:<10} {chips:<6} {box:<12} " + " ".join(cells)


def _split_lines(graph: Graph) -> list[str]:
    lines = []
    for name, sums in partial_sums(graph).items():
        count = f"{sums['shares']} shares, {sums['neurons']:,} neurons of partial sums"
        lines.append(f"split over cores: {name}, {count}, heard one step later")
    return lines


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _traffic_lines(by_chip: np.ndarray) -> list[str]:
    inside, total = int(by_chip.trace()), int(by_chip.sum())
    lines = [f"messages to cores, every neuron once: {total:,}, between chips {total - inside:,}"]
    for sender, receiver in zip(*np.nonzero(by_chip), strict=True):
        if sender != receiver:
            lines.append(f"  chip {sender} -> chip {receiver}: {by_chip[sender, receiver]:,}")
    return lines


def draw_placement(graph: Graph, hardware: HardwareLimits) -> Figure:
    """One square a core, a panel a chip; coloured by population, filled by its memory in use."""
    # The object-oriented interface: pyplot would keep every figure and choose a window system.
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    held, chips = loads(graph, hardware), sorted({t.chip for t in graph.placement})
    most = hardware.limit("cores")
    per_chip = int(min(most, max(cores_used(graph), 1)))
    of = f" of {most:.0f}" if math.isfinite(most) else ""
    names = [p.name for p in graph.neurons]
    colour = {name: colormaps["tab20"](i % 20) for i, name in enumerate(names)}
    # Title and legend belong to the figure, and one chip alone is narrower than they are.
    figure = Figure(figsize=(max(7.0, 4.2 * len(chips)), 4.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, max(len(chips), 1), squeeze=False)[0])
    for axes, chip in zip(panels, chips, strict=False):
        on_chip = [load for load in held if load.chip == chip]
        _draw_chip(axes, on_chip, colour, per_chip, hardware.limit("memory_bytes_per_core"))
        axes.set_title(f"chip {chip}: {len(on_chip)}{of} cores")
    handles = [Patch(color=colour[name], label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(names)))
    figure.suptitle(f"{graph.name} on {hardware.name}\nshare of each core's memory in use")
    return figure


def _draw_chip(
    axes, on_chip: Sequence[CoreLoad], colour: dict[str, tuple], per_chip: int, memory: float
) -> None:
    from matplotlib.patches import Rectangle

    side = int(np.ceil(np.sqrt(per_chip)))
    fullest = memory if np.isfinite(memory) else max(load.memory_bytes for load in on_chip)
    for load in on_chip:
        row, column = divmod(load.core % per_chip, side)
        share = min(1.0, load.memory_bytes / fullest)
        shade = colour[load.populations[0]]
        axes.add_patch(Rectangle((column, row), 0.9, 0.9, color=shade, alpha=0.25))
        axes.add_patch(Rectangle((column, row + 0.9 * (1 - share)), 0.9, 0.9 * share, color=shade))
    axes.set(xlim=(0, side), ylim=(-(-per_chip // side), 0), aspect="equal", xticks=[], yticks=[])
