"""Named networks: the published ones, their plain twins, and small ones for digits."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable
from typing import Any, Literal

from ep_neuro.errors import ConfigError
from ep_neuro.spec import (
    INPUT,
    CouplingSpec,
    InputSpec,
    NetworkSpec,
    PopulationSpec,
    ReadoutSpec,
)

TORCH_GAIN = 3**-0.5
"""Gain of torch's own layers, which the published VGG5 starts from: variance 1 / (3 fan-in)."""

OUTPUT_BOX = (-0.5, 1.5)
"""Room on both sides of the targets 0 and 1: clipping at the targets can kill a class."""


def zoo(name: str) -> NetworkSpec:
    """The network called `name`; `ConfigError` lists what there is."""
    if name not in ZOO:
        near = difflib.get_close_matches(name, ZOO, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(ZOO)}"
        raise ConfigError(f"network '{name}'", "the zoo has none of this name", hint)
    return ZOO[name]()


def digits_dense() -> NetworkSpec:
    """64-128-10 for 8x8 digits."""
    return NetworkSpec(
        name="digits_dense",
        input=InputSpec(shape=(1, 8, 8)),
        populations=(
            PopulationSpec(name="h1", shape=(128,)),
            PopulationSpec(name="output", shape=(10,), box=OUTPUT_BOX),
        ),
        couplings=(
            CouplingSpec(pre=INPUT, post="h1", gain=0.5),
            CouplingSpec(pre="h1", post="output", gain=0.5),
        ),
    )


def digits_residual() -> NetworkSpec:
    """Two residual blocks for 8x8 digits, wired like Hopfield-Resnet13.

    The boxes shrink from the input to the output: a signal that may shrink needs only weak
    couplings, and weak couplings settle fast and to one point (the forward gain relative to the
    boxes is 0.3 times their ratio, the feedback gain 0.3 divided by it).
    """
    return hopfield_resnet(
        "digits_residual",
        image=(1, 8, 8),
        channels=(16, 32, 32, 64),
        classes=10,
        heights=(32.0, 16.0, 4.0, 2.0),
        output_box=OUTPUT_BOX,
        gain=0.3,
        input_gain=20.0,
    )


def hopfield_resnet13() -> NetworkSpec:
    """Hopfield-Resnet13 as published: 13 couplings, 9.7 M parameters, 32x32 images."""
    return hopfield_resnet(
        "hopfield_resnet13",
        image=(3, 32, 32),
        channels=(128, 128, 256, 256, 512, 512, 512, 512),
        classes=10,
        heights=(6.0,) * 8,
        output_box=None,
        gain=0.6 * TORCH_GAIN,
        skip_gain=0.7 * TORCH_GAIN,
        head_gain=0.8 * TORCH_GAIN,
    )


def plain13() -> NetworkSpec:
    """Hopfield-Resnet13 without its skip couplings."""
    return without_skips(hopfield_resnet13(), "plain13")


def vgg5() -> NetworkSpec:
    """VGG5 as published (Laborieux 2021): four max-pooled 3x3 couplings, hard sigmoids, 32x32."""
    return vgg("vgg5", "max")


def vgg5_avg() -> NetworkSpec:
    """VGG5 with average pools, which hardware can do."""
    return vgg("vgg5_avg", "avg")


def vgg5_softmax() -> NetworkSpec:
    """VGG5 as published for the cross-entropy: a softmax readout in place of the output."""
    return vgg("vgg5_softmax", "max", readout=True)


def vgg(name: str, pool: Literal["max", "avg"], *, readout: bool = False) -> NetworkSpec:
    """VGG5: 3x32x32 images, couplings of 128, 256, 512, 512 channels, each with a 2x2 `pool`.

    The last coupling has no padding, so that its image is a single pixel. With `readout`, a softmax
    layer reads that pixel; otherwise ten output neurons in [0, 1] belong to the dynamics.
    """
    shapes = ((128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1))
    names = [INPUT, *(f"h{i}" for i in range(1, 5))]
    populations = [PopulationSpec(name=n, shape=s) for n, s in zip(names[1:], shapes, strict=True)]
    couplings = [
        CouplingSpec(
            pre=a,
            post=b,
            kind="conv",
            kernel=3,
            padding=0 if b == names[-1] else 1,
            pool=pool,
            gain=TORCH_GAIN,
        )
        for a, b in itertools.pairwise(names)
    ]
    if not readout:
        populations.append(PopulationSpec(name="output", shape=(10,)))
        couplings.append(CouplingSpec(pre=names[-1], post="output", gain=TORCH_GAIN))
    return NetworkSpec(
        name=name,
        input=InputSpec(shape=(3, 32, 32)),
        populations=tuple(populations),
        couplings=tuple(couplings),
        readout=ReadoutSpec(classes=10, gain=TORCH_GAIN) if readout else None,
    )


def hopfield_resnet(
    name: str,
    *,
    image: tuple[int, int, int],
    channels: tuple[int, ...],
    classes: int,
    heights: tuple[float, ...],
    output_box: tuple[float, float] | None,
    gain: float,
    input_gain: float | None = None,
    skip_gain: float | None = None,
    head_gain: float | None = None,
    shrink: float | None = None,
) -> NetworkSpec:
    """A Hopfield-ResNet: blocks of two 3x3 couplings, the second of stride 2, and a 1x1 skip.

    Parameters
    ----------
    image : (channels, height, width)
        Input shape; each block halves height and width, rounding up.
    channels : tuple of int
        Channels of every hidden population, two a block.
    classes : int
        Size of the output.
    heights : tuple of float
        Height of the clipped ReLU of every hidden population.
    output_box : (lo, hi) or None
        Box of the output.
    gain : float
        Gain of the initial weights.
    input_gain, skip_gain, head_gain : float, optional
        Other gains for the couplings from the input, the 1x1 skips, and the dense head.
    shrink : float, optional
        Ratio of the units of neighbouring populations, about 4: population ``l`` of ``n`` lives in
        units ``shrink ** (n - l)``, and the output in 1. Heights and gains are then in units. All
        feedback is weaker by ``shrink ** 2``, over the skips by ``shrink ** 4``, and a few sweeps
        settle. None leaves every unit at 1.
    """
    if len(channels) % 2 or len(heights) != len(channels):
        raise ConfigError(
            f"network '{name}'",
            f"{len(channels)} channels and {len(heights)} heights make no blocks of two",
            "give two of each a block",
        )
    ratio = 1.0 if shrink is None else shrink
    populations: list[PopulationSpec] = []
    couplings: list[CouplingSpec] = []
    start, size = INPUT, image[1:]
    for block in range(0, len(channels), 2):
        middle, end = f"h{block + 1}", f"h{block + 2}"
        half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        for at, population, shape in ((block, middle, size), (block + 1, end, half)):
            populations.append(
                PopulationSpec(
                    name=population,
                    shape=(channels[at], *shape),
                    box=(0.0, heights[at]),
                    unit=ratio ** (len(channels) - at),
                )
            )
        first, skip = gain, skip_gain or gain
        if start == INPUT and input_gain is not None:
            first = skip = input_gain
        conv: dict[str, Any] = dict(kind="conv")
        couplings += [
            CouplingSpec(pre=start, post=middle, kernel=3, padding=1, gain=first, **conv),
            CouplingSpec(pre=middle, post=end, kernel=3, stride=2, padding=1, gain=gain, **conv),
            CouplingSpec(pre=start, post=end, kernel=1, stride=2, gain=skip, **conv),
        ]
        start, size = end, half
    populations.append(PopulationSpec(name="output", shape=(classes,), box=output_box))
    couplings.append(CouplingSpec(pre=start, post="output", gain=head_gain or gain))
    return NetworkSpec(
        name=name,
        input=InputSpec(shape=image),
        populations=tuple(populations),
        couplings=tuple(couplings),
    )


def without_skips(spec: NetworkSpec, name: str) -> NetworkSpec:
    """`spec` without the couplings that jump over a population: its plain twin."""
    order = [INPUT, *(p.name for p in spec.populations)]
    kept = tuple(c for c in spec.couplings if order.index(c.post) == order.index(c.pre) + 1)
    return NetworkSpec(name=name, input=spec.input, populations=spec.populations, couplings=kept)


ZOO: dict[str, Callable[[], NetworkSpec]] = {
    f.__name__: f
    for f in (
        digits_dense,
        digits_residual,
        hopfield_resnet13,
        plain13,
        vgg5,
        vgg5_avg,
        vgg5_softmax,
    )
}
