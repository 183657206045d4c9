"""NetworkSpec: populations and symmetric couplings, which together *are* the energy function."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ep_neuro.errors import EPNeuroError, SpecError
from ep_neuro.yaml_io import dump_yaml, first_problem, load_yaml

INPUT = "input"
"""Name of the clamped input population."""

Size = Annotated[int, Field(ge=1)]
Shape = Annotated[tuple[Size, ...], Field(min_length=1, max_length=3)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Record):
    """The clamped population: ``z = (x - mean) / std``, per channel.

    ``shape`` is (channels, height, width) or (features,); ``mean`` and ``std`` have one value a
    channel, in units of the raw pixel (0 to 1).
    """

    shape: Shape
    mean: tuple[Finite, ...] | None = None
    std: tuple[Positive, ...] | None = None

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> InputSpec:
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values is not None and len(values) != self.shape[0]:
                raise SpecError(
                    f"input.{key}",
                    f"{len(values)} values for {self.shape[0]} channels",
                    "give one value a channel",
                )
        return self


class PopulationSpec(_Record):
    """States ``z`` of one shape, held in the box ``[lo, hi]``; ``box: null`` is linear.

    ``[0, c]`` is the clipped ReLU, ``[0, 1]`` the hard sigmoid.
    """

    name: Name
    shape: Shape
    box: tuple[float, float] | None = (0.0, 1.0)

    @model_validator(mode="after")
    def _box_is_ordered(self) -> PopulationSpec:
        if self.box is not None and not (
            all(map(math.isfinite, self.box)) and self.box[0] < self.box[1]
        ):
            raise SpecError(
                f"population '{self.name}'",
                f"box {list(self.box)} is not a finite interval lo < hi",
                "give [lo, hi], or null for a linear population",
            )
        return self

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)


class CouplingSpec(_Record):
    """A symmetric coupling ``- <z_post, W * z_pre>``: dense, or a convolution and its adjoint.

    ``gain`` scales the initial weights (standard deviation ``gain / sqrt(fan_in)``).
    """

    pre: Name
    post: Name
    kind: Literal["conv", "dense"] = "dense"
    kernel: Annotated[int, Field(ge=1)] | None = None
    stride: Annotated[int, Field(ge=1)] = 1
    padding: Annotated[int, Field(ge=0)] = 0
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

    def check_shapes(self, pre: Shape, post: Shape) -> None:
        """Raise `SpecError` unless ``W * z_pre`` has the shape of ``z_post``."""
        subject = f"coupling '{self.name}'"
        if self.kind == "dense":
            if self.kernel is not None or self.stride != 1 or self.padding != 0:
                raise SpecError(
                    subject,
                    "kernel, stride and padding belong to kind: conv, and its kind is dense",
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
        sides = [(n + 2 * self.padding - self.kernel) // self.stride + 1 for n in pre[1:]]
        if list(post[1:]) != sides or min(sides) < 1:
            raise SpecError(
                subject,
                f"kernel {self.kernel}, stride {self.stride}, padding {self.padding} on "
                f"{list(pre)} gives {sides}, but '{self.post}' is {list(post[1:])}",
                f"give '{self.post}' the shape {[post[0], *sides]}, or change the kernel",
            )


class NetworkSpec(_Record):
    """A network described by its energy: populations, symmetric couplings, one output.

    ``E(z) = sum_l (|z_l|^2 / 2 - <b_l, z_l>) - sum_(i->j) <z_j, W_ij * z_i>``
    (Scellier & Bengio 2017, eq. 1, with the box in place of ``rho``).

    Raises
    ------
    SpecError
        If names repeat, a coupling joins unknown or unfitting populations, or a population is
        cut off from the input or the output.
    """

    name: Name
    input: InputSpec
    populations: Annotated[tuple[PopulationSpec, ...], Field(min_length=1)]
    couplings: Annotated[tuple[CouplingSpec, ...], Field(min_length=1)]
    output: Name = ""

    @model_validator(mode="before")
    @classmethod
    def _last_population_is_the_output(cls, data: Any) -> Any:
        populations = data.get("populations") if isinstance(data, Mapping) else None
        if isinstance(populations, Sequence) and populations and not data.get("output"):
            last = populations[-1]
            name = last.get("name") if isinstance(last, Mapping) else getattr(last, "name", None)
            if name:
                return {**data, "output": name}
        return data

    @model_validator(mode="after")
    def _is_one_connected_network(self) -> NetworkSpec:
        _refuse_repeats("population", [INPUT, *(p.name for p in self.populations)])
        _refuse_repeats("coupling", [c.name for c in self.couplings])
        shapes = self.shapes
        for c in self.couplings:
            for end in (c.pre, c.post):
                if end not in shapes:
                    raise SpecError(
                        f"coupling '{c.name}'",
                        f"population '{end}' does not exist",
                        f"choose from {', '.join(shapes)}",
                    )
            if c.post == INPUT or c.pre == c.post:
                raise SpecError(
                    f"coupling '{c.name}'",
                    "the input is clamped"
                    if c.post == INPUT
                    else "it joins a population to itself",
                    "let it lead from one population to another, later one",
                )
            c.check_shapes(shapes[c.pre], shapes[c.post])
        if self.output not in shapes or self.output == INPUT:
            raise SpecError(
                "output", f"population '{self.output}' does not exist", "name a population"
            )
        self._refuse_islands()
        return self

    def _refuse_islands(self) -> None:
        # The input is clamped: nothing that happens on one side of it is felt on the other.
        free = [(c.pre, c.post) for c in self.couplings if c.pre != INPUT]
        ends = {
            "output": _reached(self.output, free),
            "input": _reached(INPUT, [(c.pre, c.post) for c in self.couplings]),
        }
        for end, reached in ends.items():
            for p in self.populations:
                if p.name not in reached:
                    raise SpecError(
                        f"population '{p.name}'",
                        f"no chain of couplings joins it to the {end}",
                        "add a coupling or remove the population",
                    )

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each population, the input first."""
        return {INPUT: self.input.shape, **{p.name: p.shape for p in self.populations}}

    @property
    def boxes(self) -> dict[str, tuple[float, float] | None]:
        """Box of each free population."""
        return {p.name: p.box for p in self.populations}

    @property
    def classes(self) -> int:
        """Number of output neurons."""
        return math.prod(self.shapes[self.output])

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each coupling's weight, by coupling name."""
        s = self.shapes
        return {c.name: c.weight_shape(s[c.pre], s[c.post]) for c in self.couplings}

    @property
    def parameters(self) -> int:
        """Number of weights and biases (one bias a channel, or a neuron in a flat population)."""
        weights = sum(math.prod(s) for s in self.weight_shapes.values())
        return weights + sum(p.shape[0] for p in self.populations)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "spec") -> NetworkSpec:
        """Build a spec from plain data; `where` names its origin in errors."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SpecError(where, *first_problem(error, cls)) from None
        except EPNeuroError as error:
            raise SpecError(f"{where}: {error.subject}", error.problem, error.remedy) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> NetworkSpec:
        """Read a spec from a YAML file."""
        return cls.from_dict(load_yaml(path), where=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def to_yaml(self) -> str:
        """YAML text that `from_yaml` reads back."""
        return dump_yaml(self.to_dict())


def _reached(start: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    """Everything that a chain of `edges`, walked either way, joins to `start`."""
    near: dict[str, set[str]] = {}
    for a, b in edges:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    reached, frontier = {start}, [start]
    while frontier:
        fresh = near.get(frontier.pop(), set()) - reached
        reached |= fresh
        frontier += fresh
    return reached


def _refuse_repeats(kind: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise SpecError(f"{kind} '{name}'", f"the name stands {count} times", "rename one")
