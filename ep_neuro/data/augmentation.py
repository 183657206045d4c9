"""Augmentation by name: flips, crops, cutout, affine moves, RandAugment, on a whole batch at once.

Each step is a pure function of the images and of uniform random numbers, a row a sample: one seed
gives one result, on any number of machines, and nothing has to be stored to resume.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ep_neuro.registry import Registry

T = TypeVar("T", bound=BaseModel)
Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(BaseModel):
    """One step, chosen by ``kind``; one of your own joins by `register_augmentation`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    @property
    def draws(self) -> int:
        """Uniform random numbers that the step takes for each sample."""
        raise NotImplementedError

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Augment `images` (N, C, H, W) by the numbers `u` (N, draws), each in [0, 1)."""
        raise NotImplementedError


AUGMENTATIONS = Registry("augmentation", Augmentation)
"""What may stand under ``augment`` in a configuration."""


def register_augmentation(kind: str) -> Callable[[type[T]], type[T]]:
    """A decorator that lets a step of one's own stand in a configuration."""
    return AUGMENTATIONS.register(kind)


@register_augmentation("flip")
class Flip(Augmentation):
    """Mirror left and right with probability `p`."""

    kind: Literal["flip"] = "flip"
    p: Share = 0.5

    draws: ClassVar[int] = 1
    """One: whether to flip."""

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Flipped where ``u < p``."""
        return torch.where(u.view(-1, 1, 1, 1) < self.p, images.flip(-1), images)


@register_augmentation("crop")
class Crop(Augmentation):
    """Move by up to `padding` pixels each way; the edge is repeated outwards.

    The same as padding with the edge and cropping back to the size at a random place.
    """

    kind: Literal["crop"] = "crop"
    padding: Annotated[int, Field(ge=1)] = 4

    draws: ClassVar[int] = 2
    """Two: down and right."""

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Moved by whole pixels from ``-padding`` to ``padding``."""
        move = (u * (2 * self.padding + 1)).long() - self.padding
        # Reading outside the image reads its edge.
        rows, columns = (
            (torch.arange(n) + move[:, axis, None]).clamp(0, n - 1)
            for axis, n in enumerate(images.shape[2:])
        )
        sample = torch.arange(len(images))[:, None, None]
        return images[sample, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


@register_augmentation("cutout")
class Cutout(Augmentation):
    """Hide a square of `side` pixels, which the mean of its channel in the image fills.

    Its centre is anywhere in the image, so that less than the square is hidden at the edge
    (DeVries and Taylor 2017).
    """

    kind: Literal["cutout"] = "cutout"
    side: Annotated[int, Field(ge=1)] = 8

    draws: ClassVar[int] = 2
    """Two: how far down and how far right the square lies."""

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Hidden where both distances to the centre are within half the side."""
        rows, columns = (
            self._near((u[:, axis, None] * n).long(), torch.arange(n))
            for axis, n in enumerate(images.shape[2:])
        )
        hidden = (rows[:, :, None] & columns[:, None, :])[:, None]
        mean = images.float().mean((2, 3), keepdim=True)
        if not images.is_floating_point():
            mean = mean.round()
        return torch.where(hidden, mean.to(images.dtype), images)

    def _near(self, centre: Tensor, place: Tensor) -> Tensor:
        """Whether each `place` lies in the square about `centre`, (N, places)."""
        first = centre - self.side // 2
        return (place >= first) & (place < first + self.side)


@register_augmentation("affine")
class Affine(Augmentation):
    """Rotate, scale and shift about the centre, bilinear, with zeros outside."""

    kind: Literal["affine"] = "affine"
    degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Largest angle, either way."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest change of size, as a share, either way."""
    shift: Share = 0.1
    """Largest shift, as a share of the side, in each direction."""

    draws: ClassVar[int] = 4
    """Four: angle, size, right, down."""

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Resampled at the moved places; bytes are rounded."""
        signed = 2 * u - 1
        angle = signed[:, 0] * math.radians(self.degrees)
        size = 1 / (1 + signed[:, 1] * self.scale)
        cos, sin = angle.cos() * size, angle.sin() * size
        # The grid spans -1 to 1, twice the side.
        right, down = 2 * self.shift * signed[:, 2], 2 * self.shift * signed[:, 3]
        theta = torch.stack([cos, -sin, right, sin, cos, down], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        moved = F.grid_sample(images.float(), grid, align_corners=False)
        return moved if images.is_floating_point() else moved.round().to(images.dtype)


@register_augmentation("randaugment")
class RandAugment(Augmentation):
    """`ops` operations of torchvision's RandAugment space, drawn anew for each sample.

    Cubuk et al. 2020; the space and the magnitudes (of 31 bins) are those of
    ``torchvision.transforms.RandAugment``, which the published training uses.
    """

    kind: Literal["randaugment"] = "randaugment"
    ops: Annotated[int, Field(ge=1)] = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9

    @property
    def draws(self) -> int:
        """Two an operation: which one, and its sign."""
        return 2 * self.ops

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Samples that drew the same operation and sign go through it together."""
        space = _space(self.magnitude, int(images.shape[-2]), int(images.shape[-1]))
        done = images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)
        done = done.clone()
        for pair in u.view(-1, self.ops, 2).unbind(1):
            operation = (pair[:, 0] * len(space)).long()
            chosen = 2 * operation + (pair[:, 1] < 0.5).long()
            for code in chosen.unique().tolist():
                mine = chosen == code
                done[mine] = space[code // 2](done[mine], -1 if code % 2 else 1)
        return done if images.dtype == torch.uint8 else done.to(images.dtype) / 255


Operation = Callable[[Tensor, int], Tensor]
"""One entry of the space: images (N, C, H, W) as bytes and a sign, which some leave out."""


def augment(images: Tensor, steps: Sequence[Augmentation], u: Tensor) -> Tensor:
    """Take `images` through all `steps`.

    Parameters
    ----------
    images : Tensor, (N, C, H, W)
        Bytes, or numbers from 0 to 1.
    steps : sequence
        In order.
    u : Tensor, (N, sum of draws)
        Uniform random numbers in [0, 1).
    """
    for step, mine in zip(steps, u.split([step.draws for step in steps], dim=1), strict=True):
        images = step(images, mine)
    return images


def draws(steps: Sequence[Augmentation], samples: int, seed: int) -> Tensor:
    """Uniform random numbers for `steps`, (samples, sum of draws), from `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, sum(step.draws for step in steps), generator=generator)


def _space(magnitude: int, height: int, width: int) -> list[Operation]:
    """The fourteen operations of RandAugment at one magnitude, in torchvision's order."""
    from torchvision.transforms.v2 import functional as V

    share = magnitude / 30
    shear = math.degrees(math.atan(0.3 * share))
    # Published for images of side 331.
    right, down = (int(150 / 331 * n * share) for n in (width, height))

    def move(angle: float = 0, shift: tuple[int, int] = (0, 0), lean: tuple[float, float] = (0, 0),
             centre: list[float] | None = None) -> Operation:  # fmt: skip
        def moved(images: Tensor, sign: int) -> Tensor:
            return V.affine(
                images,
                angle=sign * angle,
                translate=[sign * n for n in shift],
                scale=1.0,
                shear=[sign * n for n in lean],
                center=centre,
            )

        return moved

    def tone(change: Callable[[Tensor, float], Tensor]) -> Operation:
        return lambda images, sign: change(images, 1 + sign * 0.9 * share)

    bits = 8 - round(magnitude / 7.5)
    threshold = 255 * (1 - share)
    return [
        lambda images, sign: images,
        move(lean=(shear, 0), centre=[0, 0]),
        move(lean=(0, shear), centre=[0, 0]),
        move(shift=(right, 0)),
        move(shift=(0, down)),
        lambda images, sign: V.rotate(images, sign * 30 * share),
        tone(V.adjust_brightness),
        tone(V.adjust_saturation),
        tone(V.adjust_contrast),
        tone(V.adjust_sharpness),
        lambda images, sign: V.posterize(images, bits),
        lambda images, sign: V.solarize(images, threshold),
        lambda images, sign: V.autocontrast(images),
        lambda images, sign: V.equalize(images),
    ]
