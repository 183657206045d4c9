"""An initialisation that keeps the settled signal alive at any depth: gains and boxes measured."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ep_neuro.energy.spec import INPUT, CouplingSpec, NetworkSpec
from ep_neuro.errors import SpecError
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle

ROUNDS = 3
"""Measurements, one after the other: boxes that are set change what the next one sees."""

SWEEPS = 200
"""Sweeps of a measurement."""

SETTLED = 1e-12
"""Residual at its end, relative to the input drive: far below the signal of the last population."""

OUT_OF_REACH = 1e30
"""Height of a box before its population has been measured."""


def keep_alive(
    spec: NetworkSpec, x: Tensor, *, seed: int = 0, spread: float = 0.3, headroom: float = 4.0
) -> NetworkSpec:
    """`spec` with gains and boxes from which a batch reaches the output at any depth.

    Couplings that transmit the signal at full strength would settle badly: they are symmetric, so
    the way back is as strong as the way there, and the recurrent spectral radius passes 1. So the
    gains stay weak, the signal shrinks from population to population, and the boxes shrink with it:
    each clipped ReLU is `headroom` times as high as its settled states are large. Relative to its
    box, every population then carries the same signal, and by the homogeneity of the ReLU the
    input gains set its size.

    Gains are corrected for kernels that reach over the border of a small image, where most of the
    fan-in is missing.

    Parameters
    ----------
    spec : NetworkSpec
        Boxes of hidden populations start at 0; the output keeps its box. Gains between populations
        about 0.3 settle with 3x3 kernels; stronger ones are kept, not corrected.
    x : Tensor, (N, *input shape)
        A batch of raw inputs, a few dozen.
    seed : int
        Of the weights with which to measure.
    spread : float
        Standard deviation over samples that the output's drive gets, in units of the targets.
    headroom : float
        Height of a box in root mean squares of its population's states.

    Returns
    -------
    NetworkSpec
        To be built with `Network` and the same or another seed.

    Raises
    ------
    SpecError
        If a hidden population is no clipped ReLU, or the gains are too strong to settle.
    """
    _refuse_others(spec)
    spec = _with_full_gains(spec)
    boxes: dict[str, float] = {}
    for _ in range(ROUNDS):
        sizes, output = _measure(_boxed(spec, boxes) if boxes else _unbounded(spec), x, seed)
        scale = spread / max(output, 1e-300)
        boxes = {name: headroom * size * scale for name, size in sizes.items()}
        spec = _scaled_input(spec, scale)
    return _boxed(spec, boxes)


def signal(network: Network, x: Tensor, schedule: Schedule) -> dict[str, float]:
    """Settled signal by population: root mean square of the spread over the samples of `x`."""
    with torch.no_grad():
        state = settle(Landscape(network, x), schedule).state
    return {p: _spread(v) for p, v in state.items()}


def _measure(spec: NetworkSpec, x: Tensor, seed: int) -> tuple[dict[str, float], float]:
    """Root mean square of the states by hidden population, and the spread of the output's drive."""
    network = Network(spec, seed).double()
    with torch.no_grad():
        landscape = Landscape(network, x.double())
        start = max(float(v.abs().max()) for v in landscape.constant.values())
        tallest = max(a.height for a in landscape.activations.values())
        tolerance = SETTLED * start / tallest
        found = settle(landscape, Schedule(sweeps=SWEEPS, relaxation=1.3, tolerance=tolerance))
        drive = landscape.drive(found.state, spec.output)
    if not found.settled:
        raise SpecError(
            f"network '{spec.name}'",
            f"after {SWEEPS} sweeps from an input drive of {start:.1g} its states still move by "
            f"{found.residual.max() * tallest:.1g}",
            "lower the gains between populations, to about 0.3 for 3x3 kernels",
        )
    sizes = {p: float(v.square().mean().sqrt()) for p, v in found.state.items()}
    sizes.pop(spec.output)
    return sizes, _spread(drive)


def _spread(value: Tensor) -> float:
    return float(value.var(0).mean().sqrt())


def _with_full_gains(spec: NetworkSpec) -> NetworkSpec:
    couplings = [
        c.model_copy(update={"gain": c.gain / math.sqrt(coverage(c, spec.shapes[c.pre]))})
        for c in spec.couplings
    ]
    return spec.model_copy(update={"couplings": tuple(couplings)})


def coverage(c: CouplingSpec, pre: tuple[int, ...]) -> float:
    """Mean share of a coupling's kernel that lies on the image, and not on its padding."""
    if c.kind == "dense":
        return 1.0
    assert c.kernel is not None
    image = torch.ones(1, 1, *pre[1:])
    kernel = torch.full((1, 1, c.kernel, c.kernel), 1 / c.kernel**2)
    return float(F.conv2d(image, kernel, stride=c.stride, padding=c.padding).mean())


def _scaled_input(spec: NetworkSpec, scale: float) -> NetworkSpec:
    couplings = [
        c.model_copy(update={"gain": c.gain * scale}) if c.pre == INPUT else c
        for c in spec.couplings
    ]
    return spec.model_copy(update={"couplings": tuple(couplings)})


def _boxed(spec: NetworkSpec, heights: dict[str, float]) -> NetworkSpec:
    """`spec` with boxes of `heights`; the output keeps its own."""
    return _with_boxes(spec, {name: (0.0, height) for name, height in heights.items()})


def _unbounded(spec: NetworkSpec) -> NetworkSpec:
    """`spec` as nothing bounds it from above, nor its output from below."""
    boxes = {p.name: (0.0, OUT_OF_REACH) for p in spec.populations}
    return _with_boxes(spec, boxes | {spec.output: (-OUT_OF_REACH, OUT_OF_REACH)})


def _with_boxes(spec: NetworkSpec, boxes: dict[str, tuple[float, float]]) -> NetworkSpec:
    """`spec` with `boxes` in real units."""
    populations = [
        p.model_copy(update={"box": tuple(end / p.unit for end in boxes[p.name])})
        if p.name in boxes
        else p
        for p in spec.populations
    ]
    return spec.model_copy(update={"populations": tuple(populations)})


def _refuse_others(spec: NetworkSpec) -> None:
    for p in spec.populations:
        relu = p.activation == "clip" and p.box is not None and p.box[0] == 0
        if p.name != spec.output and not relu:
            raise SpecError(
                f"population '{p.name}'",
                f"box {p.box} with activation {p.activation} does not scale with its signal",
                "give hidden populations box: [0, height] and activation: clip",
            )
