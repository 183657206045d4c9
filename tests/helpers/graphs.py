"""Seeded networks for tests: digits-like and random residual specs, and graphs made of them.

`graph_of` writes the graph down directly in graph units, without the compiler, so that a test of a
target does not rest on the passes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from compilers.ir import graph as ir
from compilers.ir.operators import adjoint
from ep_neuro.energy.spec import INPUT, CouplingSpec, InputSpec, NetworkSpec, PopulationSpec

DYNAMICS: dict[ir.Encoding, ir.Dynamics] = {
    "graded": ir.Graded(leak=0.5),
    "sigma-delta": ir.SigmaDelta(leak=0.5, decay=0.8),
    "spike": ir.Spiking(leak=0.5),
}

STATE = ir.FixedPoint(24, 16)
"""Membrane format of quantised test graphs; messages are 16 bits with 8 behind the point."""


def conv(pre: str, post: str, kernel: int, stride: int = 1, padding: int = 0) -> CouplingSpec:
    """A convolutional coupling with a gain that keeps small networks settled."""
    return CouplingSpec(
        pre=pre, post=post, kind="conv", kernel=kernel, stride=stride, padding=padding, gain=0.35
    )


def classifier(
    name: str, side: int, classes: int, hidden: dict[str, tuple[int, ...]], *couplings: CouplingSpec
) -> NetworkSpec:
    """Grey images of `side` pixels, `hidden` populations by their shapes, and an output 'out'."""
    return NetworkSpec(
        name=name,
        input=InputSpec(shape=(1, side, side)),
        populations=(
            *(PopulationSpec(name=n, shape=s) for n, s in hidden.items()),
            PopulationSpec(name="out", shape=(classes,), box=(-0.5, 1.5)),
        ),
        couplings=couplings,
    )


def digits_like_residual() -> NetworkSpec:
    """8x8 input, two residual blocks of 16, 32 and 64 channels, 10 outputs."""
    return classifier(
        *("digits_like_residual", 8, 10),
        {"h1": (16, 8, 8), "h2": (32, 4, 4), "h3": (32, 4, 4), "h4": (64, 2, 2)},
        conv(INPUT, "h1", 3, 1, 1),
        conv("h1", "h2", 3, 2, 1),
        conv(INPUT, "h2", 1, 2),
        conv("h2", "h3", 3, 1, 1),
        conv("h3", "h4", 3, 2, 1),
        conv("h2", "h4", 1, 2),
        CouplingSpec(pre="h4", post="out", gain=0.5),
    )


def digits_like_dense() -> NetworkSpec:
    """64-128-10."""
    couplings = CouplingSpec(pre=INPUT, post="h1"), CouplingSpec(pre="h1", post="out")
    return classifier("digits_like_dense", 8, 10, {"h1": (128,)}, *couplings)


def standardised_in_units(ratio: float = 4.0, **output: Any) -> NetworkSpec:
    """A residual block and a dense head in units that shrink by `ratio`, all standardised."""
    conv: dict[str, Any] = {"kind": "conv", "kernel": 3, "padding": 1, "standardise": True}
    return NetworkSpec(
        name="standardised_in_units",
        input=InputSpec(shape=(2, 6, 6), mean=(0.4, 0.4), std=(0.3, 0.3)),
        populations=(
            PopulationSpec(name="a", shape=(4, 6, 6), unit=ratio**2),
            PopulationSpec(name="b", shape=(5, 3, 3), box=(0.0, 2.0), unit=ratio),
            PopulationSpec(name="out", shape=(3,), **{"box": (-0.5, 1.5), **output}),
        ),
        couplings=(
            CouplingSpec(pre=INPUT, post="a", gain=0.5, **conv),
            CouplingSpec(pre="a", post="b", stride=2, **conv),
            CouplingSpec(pre=INPUT, post="b", gain=0.5, stride=2, **conv),
            CouplingSpec(pre="b", post="out", standardise=True),
        ),
    )


def whitened_in_units() -> NetworkSpec:
    """`standardised_in_units`, whose first kernel whitens instead."""
    spec = standardised_in_units()
    first = CouplingSpec(pre=INPUT, post="a", kind="conv", kernel=3, padding=1, whiten=True)
    return spec.model_copy(update={"couplings": (first, *spec.couplings[1:])})


def random_residual_spec(seed: int) -> NetworkSpec:
    """One or two residual blocks of random sizes, kernels, strides and boxes, and a dense head.

    Odd sizes are frequent, so that strides leave rows unused; a skip has the kernel of its
    block's two steps, or is dense where no kernel fits.
    """
    rng = np.random.default_rng(seed)
    side = int(rng.integers(4, 8))
    shapes: dict[str, tuple[int, ...]] = {}
    shapes[INPUT] = (int(rng.integers(1, 3)), side, side + int(rng.integers(0, 2)))
    couplings: list[CouplingSpec] = []
    before = INPUT
    for block in range(int(rng.integers(1, 3))):
        middle, last = f"a{block}", f"b{block}"
        for pre, post, stride in ((before, middle, 1), (middle, last, int(rng.integers(1, 3)))):
            couplings.append(_random_conv(rng, pre, post, stride, shapes[pre]))
            shapes[post] = _shape_after(couplings[-1], shapes[pre], int(rng.integers(2, 5)))
        couplings.append(_skip(before, last, shapes))
        before = last
    couplings.append(CouplingSpec(pre=before, post="out", gain=0.5))
    shapes["out"] = (int(rng.integers(2, 6)),)
    boxes = [(0.0, 1.0), (-0.5, 1.5), (0.0, 2.0)]
    populations = [
        PopulationSpec(name=name, shape=shape, box=boxes[int(rng.integers(len(boxes)))])
        for name, shape in shapes.items()
        if name != INPUT
    ]
    spec_input = InputSpec(shape=shapes[INPUT], mean=(0.3,) * shapes[INPUT][0])
    return NetworkSpec(
        name=f"random{seed}",
        input=spec_input,
        populations=tuple(populations),
        couplings=tuple(couplings),
    )


def _random_conv(
    rng: np.random.Generator, pre: str, post: str, stride: int, shape: tuple[int, ...]
) -> CouplingSpec:
    kernel = min(int(rng.integers(1, 4)), *shape[1:])
    return conv(pre, post, kernel, stride, int(rng.integers(0, 2)) if kernel > 1 else 0)


def _shape_after(c: CouplingSpec, pre: tuple[int, ...], channels: int) -> tuple[int, ...]:
    assert c.kernel is not None
    return (channels, *((n + 2 * c.padding - c.kernel) // c.stride + 1 for n in pre[1:]))


def _skip(pre: str, post: str, shapes: dict[str, tuple[int, ...]]) -> CouplingSpec:
    for stride in (1, 2):
        for kernel in (1, 2, 3):
            skip = conv(pre, post, kernel, stride)
            if _shape_after(skip, shapes[pre], shapes[post][0]) == shapes[post]:
                return skip
    return CouplingSpec(pre=pre, post=post, gain=0.35)


def graph_of(
    spec: NetworkSpec,
    encoding: ir.Encoding = "graded",
    *,
    seed: int = 0,
    steps: int = 12,
    bits: int | None = None,
    delays: bool = False,
) -> ir.Graph:
    """A directed graph of `spec` with random weights, biases and gains.

    Parameters
    ----------
    spec : NetworkSpec
        Populations and couplings; boxes are taken as [0, 1] in graph units.
    encoding : Encoding
        Dynamics of every population.
    seed : int
        Seed of weights, biases, gains and delays.
    steps : int
        Length of each of the three phases.
    bits : int, optional
        Quantise weights to so many bits, and everything else with them.
    delays : bool
        Draw delays from 1 to 3 instead of 1.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    populations = [ir.Population(INPUT, spec.input.shape, ir.Source())]
    for p in spec.populations:
        arrays[f"bias/{p.name}"] = rng.normal(0.1, 0.2, p.shape).astype(np.float32)
        box = None if p.box is None and encoding != "spike" else (0.0, 1.0)
        readout = ir.Readout() if p.bounds is None else ir.Readout(p.bounds[0], p.height)
        populations.append(
            ir.Population(p.name, p.shape, DYNAMICS[encoding], box, f"bias/{p.name}", readout)
        )
    projections: list[ir.Projection] = []
    for c in spec.couplings:
        shape, weight = spec.weight_shapes[c.name], f"weight/{c.name}"
        std = c.gain / math.sqrt(math.prod(shape[1:]))
        arrays[weight] = (std * rng.normal(size=shape)).astype(np.float32)
        forward = ir.Dense() if c.kind == "dense" else ir.Conv(c.stride, c.padding)
        ends = [(c.pre, c.post, forward), (c.post, c.pre, adjoint(forward))]
        for pre, post, operator in ends[: 1 if c.pre == INPUT else 2]:
            delay = int(rng.integers(1, 4)) if delays else 1
            gain = float(rng.uniform(0.6, 1.4))
            projections.append(ir.Projection(pre, post, operator, weight, gain, delay))
    graph = ir.Graph(
        name=spec.name,
        populations=tuple(populations),
        projections=tuple(projections),
        phases=(
            ir.Phase("free", steps),
            ir.Phase("nudged+", steps, nudge=0.5, start="free", sign=1),
            ir.Phase("nudged-", steps, nudge=-0.5, start="free", sign=-1),
        ),
        output=spec.output,
        encoding=encoding,
        arrays=arrays,
    )
    return graph if bits is None else quantised(graph, bits, rng)


def quantised(graph: ir.Graph, bits: int, rng: np.random.Generator) -> ir.Graph:
    """`graph` in integers, with a random exponent a channel on every other weight."""
    arrays: dict[str, np.ndarray] = {}
    populations = []
    for p in graph.populations:
        neuron = not isinstance(p.dynamics, ir.Source)
        spiking = isinstance(p.dynamics, ir.Spiking)
        message = ir.FixedPoint(2, 0) if spiking else ir.FixedPoint(16, 8)
        populations.append(replace(p, state=STATE if neuron else None, message=message))
        if p.bias is not None:
            arrays[p.bias] = np.rint(graph.arrays[p.bias] * STATE.one).astype(np.int32)
    limit = 2 ** (bits - 1) - 1
    steps: dict[str, float] = {}
    exponents: dict[str, str | None] = dict.fromkeys(graph.ties)
    for number, weight in enumerate(graph.ties):
        real = graph.arrays[weight]
        steps[weight] = float(np.abs(real).max()) / limit
        step = np.full(len(real), steps[weight])
        if number % 2:
            exponents[weight] = f"exponent/{weight}"
            arrays[f"exponent/{weight}"] = rng.integers(0, 3, len(real)).astype(np.int32)
            step *= 2.0 ** arrays[f"exponent/{weight}"]
        arrays[weight] = np.rint(real / step.reshape(-1, *[1] * (real.ndim - 1))).astype(np.int32)
    formats = {p.name: p.message for p in populations}
    projections = [
        replace(
            p,
            rescale=_rescale(p.scale * steps[p.weight], formats[p.pre]),
            exponent=exponents[p.weight],
        )
        for p in graph.projections
    ]
    return replace(
        graph, populations=tuple(populations), projections=tuple(projections), arrays=arrays
    )


def _rescale(gain: float, message: ir.FixedPoint | None) -> ir.Rescale:
    assert message is not None
    units = gain * 2.0 ** (STATE.frac - message.frac)
    shift = math.floor(math.log2(units)) - 7
    return ir.Rescale(round(units / 2.0**shift), shift)


def samples(spec: NetworkSpec, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs in [0, 1] with a third of exact zeros, and random labels."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(count, *spec.input.shape))
    x[rng.uniform(size=x.shape) < 1 / 3] = 0.0
    return x, rng.integers(0, spec.classes, count)
