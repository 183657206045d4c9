"""The pictures of docs/idea.md: an energy, a nudge, units, and what a message carries.

    python -m targets.experiments.idea docs/idea

All that they show is computed when they are drawn, by networks of this package on a CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import compilers
import targets
from ep_neuro.data import datasets
from ep_neuro.energy.costs import Nudge, SquaredError, one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import open_model
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle
from ep_neuro.report.plots.axes import (
    HEIGHT,
    OUTLINED,
    WIDTH,
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

BETA = 0.5
"""Nudging factor of the pictures: large, so that one sees what it does."""

RATIOS = (1, 2, 4)
"""Of neighbouring units."""

CHAIN = 5
"""Hidden populations of the chain in which a response is followed."""

STEPS = 48
"""Length of the phase whose messages are drawn."""


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
        result = settle(
            landscape, schedule, state, nudge,
            on_sweep=lambda _, z, path=path: path.append(torch.cat([*z.values()], 1)),
        )  # fmt: skip
        state = result.state
        found.append(torch.cat(path).numpy())
    return found[0], found[1]


@styled
def draw_landscape() -> Figure:
    """Energy over the states of two neurons, and the way down it: freely, and nudged."""
    network, side = two_neurons(), torch.linspace(0, 1, 41, dtype=torch.float64)
    hidden, output = (grid.reshape(-1, 1) for grid in torch.meshgrid(side, side, indexing="xy"))
    free, nudged = paths(network)
    with torch.no_grad():
        energy = Landscape(network, torch.ones_like(hidden)).energy(
            {"hidden": hidden, "output": output}
        )
    pull = BETA * SquaredError().value(output, torch.ones_like(output))
    figure = Figure(figsize=(2 * WIDTH, HEIGHT + 0.5))
    titles = ("free: downhill in E", f"nudged: downhill in E + {BETA:g} C")
    for axes, title, height, path in zip(
        figure.subplots(1, 2, sharey=True),
        titles, (energy, energy + pull), (free, nudged),
        strict=True,
    ):  # fmt: skip
        shades = [LIGHT[depth_colour(i, 12)] for i in range(12)]
        grid = height.reshape(41, 41).numpy()
        axes.contour(side, side, grid, levels=14, colors=shades[::-1], linewidths=0.8)
        _draw_path(axes, path, title)
        axes.plot(*free[-1], "o", color=LIGHT["ink"], markersize=7, **OUTLINED)
        axes.annotate("free", free[-1], (8, -11), textcoords="offset points")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
        axes.set_xlabel("state of the hidden neuron")
        axes.grid(False)
    axes.plot(*nudged[-1], "s", color=LIGHT["series-2"], markersize=7, **OUTLINED)
    axes.annotate("nudged", nudged[-1], (-6, 8), textcoords="offset points", ha="right")
    figure.axes[0].set_ylabel("state of the output")
    return figure


def _draw_path(axes: Axes, path: np.ndarray, label: str) -> None:
    colour = LIGHT["series-2"]
    axes.plot(*path.T, "-o", color=colour, label=label, markersize=3.5, **OUTLINED)


# --- a network that settles ----------------------------------------------------------------------


@styled
def draw_settling() -> Figure:
    """How far a Hopfield-ResNet is from rest, and its energy, sweep by sweep, on one digit."""
    network = Network(zoo("digits_residual"), 0).double()
    split = datasets.load("digits").test.head(1)
    landscape = Landscape(network, torch.from_numpy(split.x).double())
    schedule = Schedule(method="synchronous", sweeps=30, relaxation=0.5, tolerance=0)
    target = one_hot(torch.from_numpy(split.y), network.spec.target_shape, torch.float64)
    free = settle(landscape, schedule, record=True)
    nudged = settle(landscape, schedule, free.state, Nudge(BETA, target), record=True)
    figure = Figure(figsize=(2 * WIDTH, HEIGHT))
    left, right = figure.subplots(1, 2)
    phases = (("free", free, 0), ("nudged", nudged, schedule.sweeps))
    for index, (name, found, start) in enumerate(phases):
        sweeps, how = start + np.arange(1, schedule.sweeps + 1), {"marker": ""}
        draw_line(left, sweeps, found.residuals, series_style(index), name, **how)
        # The last sweep of a phase is where its energy is counted from.
        above = np.array(found.energies[:-1]) - found.energies[-1]
        draw_line(right, sweeps[:-1], above, series_style(index), name, **how)
    for axes, what in ((left, "residual (box heights)"), (right, "energy above its end")):
        axes.set_yscale("log")
        log_ticks(axes.yaxis, power_of_ten)
        finish(axes, "sweep", what)
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
    """A state of half a box on its way there and back, and how a response fades by ratio."""
    figure = Figure(figsize=(2 * WIDTH, HEIGHT + 0.2))
    left, right = figure.subplots(1, 2)
    for at, unit in ((0, 16), (1.6, 4)):
        shade = LIGHT[depth_colour(int(at > 0), 2)]
        left.add_patch(Rectangle((at - 0.2, 0), 0.4, unit / 2, facecolor=shade, alpha=0.5))
        left.add_patch(Rectangle((at - 0.2, 0), 0.4, unit, fill=False, edgecolor=shade))
        left.text(at, unit + 0.4, f"unit {unit}", ha="center")
    for height, ends, text in (
        (9.5, (0.25, 1.35), "there: 8 / 4 = 2,\nhalf a box"),
        (2.0, (1.35, 0.25), "back: 2 / 4 = 0.5,\n1/32 of a box"),
    ):
        arrow = {"arrowstyle": "->", "color": LIGHT["ink"]}
        left.annotate("", (ends[1], height), (ends[0], height), arrowprops=arrow)
        left.text(0.8, height + 0.4, text, ha="center", va="bottom", size=8.2)
    left.plot((-0.2, 0.2), (0.5, 0.5), color=LIGHT["series-2"])
    left.set(xlim=(-0.4, 2.0), ylim=(0, 18), xticks=[], ylabel="state (real)")
    back = np.arange(CHAIN + 1)
    for index, ratio in enumerate(RATIOS):
        draw_line(right, back, responses(ratio), series_style(index), f"ratio {ratio}", **OUTLINED)
    right.set_yscale("log")
    log_ticks(right.yaxis, power_of_ten)
    whole_numbers(right)
    finish(right, "couplings back from the output", "response (units)")
    return figure


# --- what a message carries ----------------------------------------------------------------------


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
    figure, codes = Figure(figsize=(2 * WIDTH, HEIGHT + 0.8)), ("graded", "sigma-delta", "spike")
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
    "landscape": (
        draw_landscape,
        "Contours of the energy of two neurons. Freely, their states go downhill from zero to the "
        "bottom; with a nudge the bottom lies nearer to the target, and they go on to it.",
    ),
    "settling": (
        draw_settling,
        "Residual and energy by sweep: both fall until the network is at rest; a nudge starts "
        "another, smaller fall.",
    ),
    "units": (
        draw_units,
        "Two boxes, sixteen and four high, both half full: there arrives half a box, back 1/32 of "
        "one. And the response to a nudge by couplings back from the output, which falls the "
        "faster the larger the ratio.",
    ),
    "messages": (
        draw_messages,
        "What one neuron sends at each step: graded its state every time, sigma-delta a few "
        "changes, spikes ones whose rate is the state.",
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
