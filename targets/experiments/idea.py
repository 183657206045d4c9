"""The pictures of docs/idea.md: an energy, a nudge, units, and what a message carries.

    python -m targets.experiments.idea docs/idea

All that they show is computed when they are drawn, by networks of this package on a CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import compilers
import targets
from ep_neuro.data import datasets
from ep_neuro.energy.costs import Nudge, SquaredError, one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import open_model
from ep_neuro.network.network import Landscape, Network, State
from ep_neuro.network.settling import Schedule, SettleResult, settle
from ep_neuro.report.plots.axes import (
    HEIGHT,
    OUTLINED,
    draw_line,
    finish,
    log_ticks,
    styled,
    whole_numbers,
)
from ep_neuro.report.plots.formatting import power_of_ten
from ep_neuro.report.plots.palette import LIGHT, code_styles, depth_colour, series_style
from ep_neuro.report.svg import standalone_svg
from ep_neuro.storage.atomic import write_file
from targets.experiments.comparison.layer_errors import probe_of, shown_states

PANEL = 3.5
"""Inches of a picture: two stand side by side on the page, and one on a phone."""

BETA = 0.5
"""Nudging factor of the pictures: large, so that one sees what it does."""

RATIOS = (1, 2, 4)
"""Of neighbouring units."""

CHAIN = 5
"""Hidden populations of the chain in which a response is followed."""

STEPS = 48
"""Length of the phase whose messages are drawn."""


def _panel(height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(PANEL, height))
    return figure, figure.subplots()


# --- a landscape of two neurons ------------------------------------------------------------------


def two_neurons() -> Network:
    """One hidden neuron and one output, joined by 0.6; the input pushes the first one by 0.5."""
    spec = NetworkSpec.from_dict(
        {
            "name": "two",
            "input": {"shape": [1]},
            "populations": [{"name": "hidden", "shape": [1]}, {"name": "output", "shape": [1]}],
            "couplings": [{"pre": "input", "post": "hidden"}, {"pre": "hidden", "post": "output"}],
        }
    )
    network = Network(spec, 0).double()
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), (0.5, 0.6, 0.0, 0.05), strict=True):
            parameter.fill_(value)
    return network


def paths(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """States (steps + 1, 2) on the way to rest: freely from zero, then nudged from there."""
    landscape = Landscape(network, torch.ones(1, 1, dtype=torch.float64))
    schedule = Schedule(method="synchronous", sweeps=30, relaxation=0.4, tolerance=0)
    state, found = landscape.rest(), []
    for nudge in (None, Nudge(BETA, torch.ones(1, 1, dtype=torch.float64))):
        path = [torch.cat([*state.values()], 1)]

        def follow(_: int, z: State, path: list[Tensor] = path) -> None:
            path.append(torch.cat([*z.values()], 1))

        state = settle(landscape, schedule, state, nudge, on_sweep=follow).state
        found.append(torch.cat(path).numpy())
    return found[0], found[1]


@styled
def draw_landscape(nudged: bool) -> Figure:
    """Energy over the states of two neurons, dark where it is low, and the way down it."""
    network, side = two_neurons(), torch.linspace(0, 1, 41, dtype=torch.float64)
    hidden, output = (grid.reshape(-1, 1) for grid in torch.meshgrid(side, side, indexing="xy"))
    landscape = Landscape(network, torch.ones_like(hidden))
    with torch.no_grad():
        energy = landscape.energy({"hidden": hidden, "output": output})
    if nudged:
        energy = energy + BETA * SquaredError().value(output, torch.ones_like(output))
    path = paths(network)[nudged]
    figure, axes = _panel(PANEL)
    shades = [LIGHT[depth_colour(i, 12)] for i in reversed(range(12))]
    grid = energy.reshape(41, 41).numpy()
    axes.contour(side, side, grid, levels=14, colors=shades, linewidths=0.8)
    axes.plot(*path.T, "-o", color=LIGHT["series-2"], markersize=3.5, **OUTLINED)
    names = ("free", "nudged") if nudged else ("", "free")
    for at, name, beside in zip((path[0], path[-1]), names, ((8, -11), (-28, 9)), strict=True):
        axes.plot(*at, "o", color=LIGHT["ink"], markersize=7, clip_on=False, **OUTLINED)
        axes.annotate(name, at, beside, textcoords="offset points")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(f"nudged: E + {BETA:g} C" if nudged else "free: E", size=9.2)
    axes.set(xlabel="state of the hidden neuron", ylabel="state of the output")
    axes.grid(False)
    return figure


# --- a network that settles ----------------------------------------------------------------------


@cache
def phases() -> dict[str, SettleResult]:
    """The free and the nudged phase of a Hopfield-ResNet of fresh weights, on one digit."""
    network = Network(zoo("digits_residual"), 0).double()
    split = datasets.load("digits").test.head(1)
    landscape = Landscape(network, torch.from_numpy(split.x).double())
    schedule = Schedule(method="synchronous", sweeps=30, relaxation=0.5, tolerance=0)
    target = one_hot(torch.from_numpy(split.y), network.spec.target_shape, torch.float64)
    free = settle(landscape, schedule, record=True)
    nudged = settle(landscape, schedule, free.state, Nudge(BETA, target), record=True)
    return {"free": free, "nudged": nudged}


@styled
def draw_settling(quantity: str) -> Figure:
    """The ``residual`` of both phases, or their ``energy`` above that at the end."""
    figure, axes = _panel()
    for index, (name, found) in enumerate(phases().items()):
        shown = np.array(found.residuals)
        if quantity == "energy":
            shown = np.array(found.energies[:-1]) - found.energies[-1]
        sweeps = index * found.sweeps + np.arange(1, len(shown) + 1)
        draw_line(axes, sweeps, shown, series_style(index), name, marker="")
    axes.set_yscale("log")
    log_ticks(axes.yaxis, power_of_ten)
    told = {"residual": "residual (box heights)", "energy": "energy above its end"}
    finish(axes, "sweep", told[quantity])
    return figure


# --- units ---------------------------------------------------------------------------------------


def chain(ratio: int) -> NetworkSpec:
    """Populations in a row whose units shrink by `ratio` towards the output, of unit 1."""
    names = [f"h{i}" for i in range(1, CHAIN + 1)]
    sizes = [{"name": n, "shape": [64], "unit": ratio ** (CHAIN - i)} for i, n in enumerate(names)]
    output = {"name": "output", "shape": [10], "box": [-0.5, 1.5]}
    pairs = zip(["input", *names], [*names, "output"], strict=True)
    return NetworkSpec.from_dict(
        {
            "name": f"ratio{ratio}",
            "input": {"shape": [1, 8, 8]},
            "populations": [*sizes, output],
            "couplings": [{"pre": pre, "post": post} for pre, post in pairs],
        }
    )


@cache
def responses(ratio: int) -> np.ndarray:
    """What a nudge moves, rms in units over that of the output, from there to the first."""
    spec = chain(ratio)
    network, split = Network(spec, 0).double(), datasets.load("digits").test.head(20)
    landscape = Landscape(network, torch.from_numpy(split.x).double())
    exact = Schedule(sweeps=200, tolerance=0)
    target = one_hot(torch.from_numpy(split.y), spec.target_shape, torch.float64)
    free = settle(landscape, exact).state
    nudged = settle(landscape, exact, free, Nudge(0.05, target)).state
    moved = [
        float((nudged[p.name] - free[p.name]).square().mean().sqrt() / p.unit)
        for p in reversed(spec.populations)
    ]
    return np.array(moved) / moved[0]


@styled
def draw_units() -> Figure:
    """A state of half a box on its way to a smaller box, and back."""
    figure, axes = _panel()
    for at, unit in ((0, 16), (1.6, 4)):
        shade = LIGHT[depth_colour(int(at > 0), 2)]
        axes.add_patch(Rectangle((at - 0.2, 0), 0.4, unit / 2, facecolor=shade, alpha=0.5))
        axes.add_patch(Rectangle((at - 0.2, 0), 0.4, unit, fill=False, edgecolor=shade))
        axes.text(at, unit + 0.4, f"unit {unit}", ha="center")
    for height, ends, text in (
        (9.5, (0.25, 1.35), "there: 8 / 4 = 2,\nhalf a box"),
        (2.0, (1.35, 0.25), "back: 2 / 4 = 0.5,\n1/32 of a box"),
    ):
        arrow = {"arrowstyle": "->", "color": LIGHT["ink"]}
        axes.annotate("", (ends[1], height), (ends[0], height), arrowprops=arrow)
        axes.text(0.8, height + 0.4, text, ha="center", va="bottom", size=8.2)
    axes.plot((-0.2, 0.2), (0.5, 0.5), color=LIGHT["series-2"])
    axes.set(xlim=(-0.4, 2.0), ylim=(0, 18), xticks=[], ylabel="state (real)")
    return figure


@styled
def draw_response() -> Figure:
    """How what a nudge moves fades on its way back from the output, by the ratio of units."""
    figure, axes = _panel()
    back = np.arange(CHAIN + 1)
    for index, ratio in enumerate(RATIOS):
        draw_line(axes, back, responses(ratio), series_style(index), f"ratio {ratio}", **OUTLINED)
    axes.set_yscale("log")
    log_ticks(axes.yaxis, power_of_ten)
    whole_numbers(axes)
    finish(axes, "couplings back from the output", "response (units)")
    return figure


# --- what a message carries ----------------------------------------------------------------------


@cache
def messages(code: str) -> tuple[np.ndarray, np.ndarray]:
    """What the hidden neurons next to the output send, and their states, in boxes; (STEPS, N)."""
    model, split = open_model("hub:digits_resnet"), datasets.load("digits").test.head(1)
    program = compilers.compile(model, "reference", code=code, steps=STEPS)
    population = program.graph.population("h4")
    probes = sorted({"h4.message", probe_of(population)})
    with targets.open(program) as session:
        found = session.settle(split.x, probes=probes).phases["free"].probes
    state = shown_states(population, found[probe_of(population)]).reshape(STEPS, -1)
    in_boxes = (state - population.readout.offset) / population.readout.gain
    return np.asarray(found["h4.message"], float).reshape(STEPS, -1), in_boxes


@styled
def draw_messages() -> Figure:
    """What one neuron sends at each step in three encodings, and what a receiver makes of it."""
    graded, _ = messages("graded")
    neuron = int(np.abs(graded[-1] - 0.5).argmin())
    figure, codes = Figure(figsize=(PANEL, HEIGHT + 1.2)), ("graded", "sigma-delta", "spike")
    steps, every = np.arange(1, STEPS + 1), figure.subplots(3, 1, sharex=True)
    for axes, code, style in zip(every, codes, code_styles(codes), strict=True):
        sent, state = (values[:, neuron] for values in messages(code))
        # Of spikes the rate, over the later half of the steps so far.
        known = {"graded": sent, "sigma-delta": np.cumsum(sent), "spike": state}[code]
        at = np.flatnonzero(sent)
        axes.vlines(steps[at], 0, sent[at], color=LIGHT[style.colour], linewidth=2)
        line = {"color": LIGHT["ink"], "drawstyle": "steps-mid", "label": "what the others know"}
        axes.plot(steps, known, **line)
        axes.axhline(graded[-1, neuron], color=LIGHT["muted"], linestyle=":", label="its rest")
        axes.set_title(f"{code}: {len(at)} messages", loc="left", size=9.2)
        axes.set(ylim=(-0.05, 1.05), yticks=(0, 0.5, 1), xlim=(0, STEPS + 1))
    handles = every[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    every[1].set_ylabel("state (box heights)")
    every[-1].set_xlabel("step")
    return figure


# --- all of them ---------------------------------------------------------------------------------

PICTURES: dict[str, tuple[Callable[[], Figure], str]] = {
    "free": (
        partial(draw_landscape, nudged=False),
        "Contours of the energy of two neurons: their states go downhill from zero to the bottom.",
    ),
    "nudged": (
        partial(draw_landscape, nudged=True),
        "With a nudge the bottom lies nearer to the target, and both states go on to it.",
    ),
    "residual": (
        partial(draw_settling, "residual"),
        "Residual by sweep: it falls until the network is at rest; a nudge starts another fall.",
    ),
    "energy": (
        partial(draw_settling, "energy"),
        "Energy by sweep above that at the end: it falls in the free and in the nudged phase.",
    ),
    "units": (
        draw_units,
        "Two boxes, sixteen and four high, both half full: there arrives half a box, back 1/32 of "
        "one.",
    ),
    "response": (
        draw_response,
        "The response to a nudge by couplings back from the output: the larger the ratio, the "
        "faster it falls.",
    ),
    "messages": (
        draw_messages,
        "What one neuron sends in 48 steps: graded its state every time, sigma-delta two changes, "
        "spikes ones whose rate is the state.",
    ),
}
"""What draws each picture, and what it shows, for who does not see it."""


def drawn(name: str) -> str:
    """A picture as SVG."""
    draw, description = PICTURES[name]
    return standalone_svg(draw(), description)


def main() -> None:
    """Write every picture into a folder."""
    parser = argparse.ArgumentParser(description="the pictures of docs/idea.md")
    parser.add_argument("directory", type=Path, help="where they go")
    directory = parser.parse_args().directory
    for name in PICTURES:
        page = drawn(name).encode()
        write_file(directory / f"{name}.svg", page, ConfigError, marker=b"<svg")


if __name__ == "__main__":
    main()
