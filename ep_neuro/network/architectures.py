"""Named networks: the published ones, their plain twins, and small ones for digits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

from ep_neuro.energy.spec import (
    INPUT,
    CouplingSpec,
    InputSpec,
    NetworkSpec,
    PopulationSpec,
    ReadoutSpec,
)
from ep_neuro.errors import ConfigError, nearest

TORCH_GAIN = 3**-0.5
"""Gain of torch's own layers, which the VGG5 of Laborieux 2021 starts from.

Variance 1 / (3 fan-in). The gains of arXiv:2509.26003 are half widths of uniform weights, so times
this they are ours.
"""

OUTPUT_BOX = (-0.5, 1.5)
"""Room on both sides of the targets 0 and 1: clipping at the targets can kill a class."""


LOGIT_BOX = (-12.0, 20.0)
"""Room for the scores of a cross-entropy: trained networks stay within it."""

SHRINK = 16.0
"""Ratio of neighbouring units at which two free sweeps and one nudged leave a gradient true."""


def zoo(name: str) -> NetworkSpec:
    """The network called `name`; `ConfigError` lists what there is."""
    if name not in ZOO:
        raise ConfigError(f"network '{name}'", "the zoo has none of this name", nearest(name, ZOO))
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
        heights=(32.0, 16.0, 4.0, 2.0),
        output_box=OUTPUT_BOX,
        gain=0.3,
        input_gain=20.0,
    )


def digits_resnet() -> NetworkSpec:
    """`digits_residual` in units: two free sweeps and one nudged settle it.

    Its feedback, weaker by ``SHRINK ** 2`` a coupling, is too faint for integers to learn by on a
    chip; `digits_residual` learns there.
    """
    return hopfield_resnet(
        "digits_resnet",
        image=(1, 8, 8),
        channels=(16, 32, 32, 64),
        heights=4.0,
        output_box=OUTPUT_BOX,
        gain=1.2,
        input_gain=1.0,
        skip_gain=0.5,
        head_gain=0.3,
        shrink=SHRINK,
    )


def cifar10_resnet() -> NetworkSpec:
    """Three strided stages on 32x32 colour images, in units: 2.0 M parameters.

    Its units shrink faster than those of the others: while it trains, its gains grow, and one free
    sweep is to leave the gradient true all the same.
    """
    return resnet_in_units(
        "cifar10_resnet",
        image=(3, 32, 32),
        channels=(64, 80, 80, 160, 160, 320, 320),
        strides=(2, 1, 1, 2, 1, 2, 1),
        kernel=5,
        shrink=32.0,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.247, 0.2435, 0.2616),
    )


def hopfield_resnet13() -> NetworkSpec:
    """Hopfield-Resnet13 as published: 13 couplings, 9.7 M parameters, 32x32 images."""
    return hopfield_resnet(
        "hopfield_resnet13",
        image=(3, 32, 32),
        channels=(128, 128, 256, 256, 512, 512, 512, 512),
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


def hopfield_vgg5() -> NetworkSpec:
    """VGG5 as published beside Hopfield-Resnet13 (arXiv:2509.26003): 3.9 M parameters, 32x32.

    Unlike that of Laborieux 2021 it pads its last coupling, too, which leaves 2x2 pixels; its
    hidden populations are clipped at 6, and its output is linear.
    """
    return vgg(
        "hopfield_vgg5",
        "max",
        last=2,
        gains=tuple(gain * TORCH_GAIN for gain in (0.4, 0.7, 0.6, 0.3, 0.6)),
        height=6.0,
        output_box=None,
    )


def vgg(
    name: str,
    pool: Literal["max", "avg"],
    *,
    last: Literal[1, 2] = 1,
    gains: tuple[float, ...] = (TORCH_GAIN,) * 5,
    height: float = 1.0,
    output_box: tuple[float, float] | None = (0.0, 1.0),
    readout: bool = False,
) -> NetworkSpec:
    """VGG5: 3x32x32 images, couplings of 128, 256, 512, 512 channels, each with a 2x2 `pool`.

    Parameters
    ----------
    last : {1, 2}
        Side of the last image: 1 without padding of the last coupling, 2 with it.
    gains : tuple of float
        Gains of the initial weights of the five couplings, that of the output or readout last.
    height : float
        Height of the clipped ReLU of every hidden population.
    output_box : (lo, hi) or None
        Box of the ten output neurons.
    readout : bool
        A softmax layer reads the last image; otherwise the output belongs to the dynamics.
    """
    shapes = ((128, 16, 16), (256, 8, 8), (512, 4, 4), (512, last, last))
    names = [INPUT, *(f"h{i}" for i in range(1, 5))]
    populations = [
        PopulationSpec(name=n, shape=s, box=(0.0, height))
        for n, s in zip(names[1:], shapes, strict=True)
    ]
    couplings = [
        CouplingSpec(
            pre=a,
            post=b,
            kind="conv",
            kernel=3,
            padding=last - 1 if b == names[-1] else 1,
            pool=pool,
            gain=gain,
        )
        for (a, b), gain in zip(itertools.pairwise(names), gains[:-1], strict=True)
    ]
    if not readout:
        populations.append(PopulationSpec(name="output", shape=(10,), box=output_box))
        couplings.append(CouplingSpec(pre=names[-1], post="output", gain=gains[-1]))
    return NetworkSpec(
        name=name,
        input=InputSpec(shape=(3, 32, 32)),
        populations=tuple(populations),
        couplings=tuple(couplings),
        readout=ReadoutSpec(classes=10, gain=gains[-1]) if readout else None,
    )


def hopfield_resnet(
    name: str,
    *,
    image: tuple[int, int, int],
    channels: tuple[int, ...],
    gain: float,
    classes: int = 10,
    heights: float | tuple[float, ...] = 6.0,
    output_box: tuple[float, float] | None = None,
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
    gain : float
        Gain of the initial weights.
    classes : int
        Size of the output.
    heights : float or tuple of float
        Height of the clipped ReLU of every hidden population.
    output_box : (lo, hi) or None
        Box of the output.
    input_gain, skip_gain, head_gain : float, optional
        Other gains for the couplings from the input, the 1x1 skips, and the dense head.
    shrink : float, optional
        Ratio of the units of neighbouring populations, 4 to 16: population ``l`` of ``n`` lives in
        units ``shrink ** (n - l)``, and the output in 1. Heights and gains are then in units. All
        feedback is weaker by ``shrink ** 2``, over the skips by ``shrink ** 4``, and a few sweeps
        settle. None leaves every unit at 1.
    """
    if not isinstance(heights, tuple):
        heights = (heights,) * len(channels)
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


def resnet_in_units(
    name: str,
    *,
    image: tuple[int, int, int],
    channels: tuple[int, ...],
    strides: tuple[int, ...],
    shrink: float,
    kernel: int = 3,
    gain: float = 1.2,
    skip_gain: float = 0.5,
    classes: int = 10,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> NetworkSpec:
    """A Hopfield-ResNet that settles in two or three sweeps: each unit is `shrink` times the next.

    A whitening kernel, then standardised 3x3 couplings with a 1x1 skip over every second one, and a
    dense head on whose own states the cost is taken.

    Parameters
    ----------
    image : (channels, height, width)
        Input shape.
    channels, strides : tuple of int
        Of every hidden population and of the coupling that leads to it.
    kernel : int
        Side of the first, whitening kernel.
    gain, skip_gain : float
        Initial gains, in units, of the 3x3 couplings and of the 1x1 skips.
    mean, std : tuple of float, optional
        Of the input, by channel.
    """
    size, units = image[1:], [shrink ** (len(channels) - i) for i in range(len(channels))]
    populations: list[PopulationSpec] = []
    couplings: list[CouplingSpec] = []
    for i, (width, stride) in enumerate(zip(channels, strides, strict=True)):
        first, here = i == 0, f"h{i + 1}"
        side = kernel if first else 3
        size = ((size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1)
        shape = (width, *size)
        populations.append(PopulationSpec(name=here, shape=shape, box=(0.0, 4.0), unit=units[i]))
        conv: dict[str, Any] = dict(post=here, kind="conv", stride=stride)
        rule: dict[str, Any] = dict(whiten=True) if first else dict(standardise=True, gain=gain)
        before = INPUT if first else f"h{i}"
        couplings.append(CouplingSpec(pre=before, kernel=side, padding=side // 2, **conv, **rule))
        if i and i % 2 == 0:
            conv["stride"] = stride * strides[i - 1]
            skip: dict[str, Any] = dict(kernel=1, standardise=True, gain=skip_gain)
            couplings.append(CouplingSpec(pre=f"h{i - 1}", **conv, **skip))
    populations.append(PopulationSpec(name="output", shape=(classes,), box=LOGIT_BOX))
    couplings.append(CouplingSpec(pre=f"h{len(channels)}", post="output", gain=0.3))
    return NetworkSpec(
        name=name,
        input=InputSpec(shape=image, mean=mean, std=std),
        populations=tuple(populations),
        couplings=tuple(couplings),
        cost="cross-entropy",
    )


def without_skips(spec: NetworkSpec, name: str) -> NetworkSpec:
    """`spec` without the couplings that jump over a population: its plain twin."""
    order = [INPUT, *(p.name for p in spec.populations)]
    kept = tuple(c for c in spec.couplings if order.index(c.post) == order.index(c.pre) + 1)
    return spec.model_copy(update={"name": name, "couplings": kept})


ZOO: dict[str, Callable[[], NetworkSpec]] = {
    f.__name__: f
    for f in (
        digits_dense,
        digits_residual,
        digits_resnet,
        cifar10_resnet,
        hopfield_resnet13,
        plain13,
        vgg5,
        vgg5_avg,
        vgg5_softmax,
        hopfield_vgg5,
    )
}
