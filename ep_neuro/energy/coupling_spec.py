"""CouplingSpec: what joins two populations, and what it needs of their shapes."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ep_neuro.errors import SpecError

INPUT = "input"
"""Name of the clamped input population."""

POOL = 2
"""Side and stride of every pool."""

Size = Annotated[int, Field(ge=1)]
Shape = Annotated[tuple[Size, ...], Field(min_length=1, max_length=3)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Record(BaseModel):
    """Read from YAML, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CouplingSpec(Record):
    """A symmetric coupling ``- <z_post, W * z_pre>``: dense, or a convolution and its adjoint.

    ``gain`` scales the initial weights (standard deviation ``gain / sqrt(fan_in)``, in units).
    ``pool`` takes the maximum or the mean of 2x2 patches after the convolution,
    ``- <z_post, P(W * z_pre)>`` (Laborieux 2021). ``untied`` gives the way back a
    weight of its own, which learns by the same local rule: no weight is transported, but the
    network then has no energy, sweeps descend nothing (over-relaxed ones may not settle: take
    ``relaxation: 1``), and the gradient is an approximation until both weights have aligned.

    ``standardise`` keeps mean and size of each neuron's weights out of learning: they are
    standardised over the fan-in, times a gain that learns
    (`ep_neuro.energy.weight_standardization`). ``whiten`` fixes a convolution of the input to the
    whitening of image patches, which training measures before its first step
    (`ep_neuro.network.whitening`).
    """

    pre: Name
    post: Name
    kind: Literal["conv", "dense"] = "dense"
    kernel: Annotated[int, Field(ge=1)] | None = None
    stride: Annotated[int, Field(ge=1)] = 1
    padding: Annotated[int, Field(ge=0)] = 0
    pool: Literal["max", "avg"] | None = None
    untied: bool = False
    standardise: bool = False
    whiten: bool = False
    gain: Positive = 1.0

    @property
    def name(self) -> str:
        """``pre->post``, unique in a network."""
        return f"{self.pre}->{self.post}"

    def weight_shape(self, pre: Shape, post: Shape) -> tuple[int, ...]:
        """Shape of ``W`` between populations of shapes `pre` and `post`."""
        if self.kind == "dense":
            return (math.prod(post), math.prod(pre))
        assert self.kernel is not None
        return (post[0], pre[0], self.kernel, self.kernel)

    def sides(self, pre: Shape) -> tuple[int, ...]:
        """Height and width of a convolution of `pre`, before any pool."""
        assert self.kernel is not None
        return tuple((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in pre[1:])

    def check_shapes(self, pre: Shape, post: Shape) -> None:
        """Raise `SpecError` unless ``W * z_pre`` has the shape of ``z_post``."""
        subject = f"coupling '{self.name}'"
        if self.kind == "dense":
            if self.kernel is not None or self.stride != 1 or self.padding != 0 or self.pool:
                raise SpecError(
                    subject,
                    "kernel, stride, padding and pool belong to kind: conv, and its kind is dense",
                    "remove them, or write kind: conv",
                )
            return
        if self.kernel is None:
            raise SpecError(subject, "a convolution has no kernel", "give kernel: 3, for instance")
        if len(pre) != 3 or len(post) != 3:
            raise SpecError(
                subject,
                f"a convolution joins {list(pre)} to {list(post)}, which are not both "
                "[channels, height, width]",
                "use kind: dense",
            )
        self._check_room(subject, pre)
        sides = [n // POOL if self.pool else n for n in self.sides(pre)]
        if list(post[1:]) != sides:
            raise SpecError(
                subject,
                f"kernel {self.kernel}, stride {self.stride}, padding {self.padding}"
                f"{', a 2x2 pool' if self.pool else ''} on {list(pre)} gives {sides}, "
                f"but '{self.post}' is {list(post[1:])}",
                f"give '{self.post}' the shape {[post[0], *sides]}, or change the kernel",
            )

    def _check_room(self, subject: str, pre: Shape) -> None:
        """Raise `SpecError` if the kernel or the pool finds no place on a population of `pre`."""
        padded = [n + 2 * self.padding for n in pre[1:]]
        assert self.kernel is not None
        if self.kernel > min(padded):
            what = "padded image" if self.padding else "image"
            problem = f"kernel {self.kernel} is larger than the {what} {padded[0]} x {padded[1]}"
            raise SpecError(subject, problem, f"take at most {min(padded)}, or more padding")
        rows, cols = self.sides(pre)
        if self.pool and min(rows, cols) < POOL:
            problem = f"a 2x2 pool finds no place on the {rows} x {cols} that the kernel leaves"
            raise SpecError(subject, problem, "remove pool, or take a smaller kernel or stride")

    def check_parametrisation(self, pre: Shape, post: Shape) -> None:
        """Raise `SpecError` unless the weights can be standardised or whitened as asked."""
        subject, fan_in = f"coupling '{self.name}'", math.prod(self.weight_shape(pre, post)[1:])
        for other in ("untied", "whiten"):
            if self.standardise and getattr(self, other):
                problem = f"standardise and {other} exclude each other"
                raise SpecError(subject, problem, "remove one of the two")
        if self.standardise and fan_in < 2:
            problem = "a fan-in of 1 has no spread to standardise, it takes 2"
            raise SpecError(subject, problem, "remove standardise, or give a larger kernel")
        if not self.whiten:
            return
        if self.kind != "conv" or self.pre != INPUT:
            raise SpecError(
                subject,
                "whiten belongs to convolutions of the input, and this is "
                f"kind: {self.kind} from '{self.pre}'",
                "remove whiten",
            )
        if post[0] > 2 * fan_in:
            raise SpecError(
                subject,
                f"{post[0]} channels exceed {2 * fan_in}, two signs of each direction in a patch "
                f"of {pre[0]}x{self.kernel}x{self.kernel}",
                f"give '{self.post}' fewer channels, or a larger kernel",
            )
        if (self.kernel or 0) > min(pre[1:]):
            problem = f"no patch of side {self.kernel} fits on the input {list(pre)}"
            raise SpecError(subject, problem, "remove whiten, or give a smaller kernel")
