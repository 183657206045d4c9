"""NetworkSpec: populations and symmetric couplings, which together *are* the energy function."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ep_neuro.energy.coupling_spec import (
    INPUT,
    POOL,
    CouplingSpec,
    Name,
    Positive,
    Record,
    Shape,
    Size,
)
from ep_neuro.errors import EPNeuroError, SpecError
from ep_neuro.storage.yaml_io import dump_yaml, first_problem, load_yaml

__all__ = [
    "INPUT",
    "POOL",
    "CouplingSpec",
    "InputSpec",
    "NetworkSpec",
    "PopulationSpec",
    "ReadoutSpec",
    "Shape",
]

LARGEST_UNIT = 1e16
"""Largest unit, and one over the smallest: float32 holds the squares of what is 1e19 to 1e-19, and
the response to a nudge is some thousandths of one over the unit."""

LARGEST_INPUT = 1e8
"""Largest mean and deviation of a pixel, and one over the smallest deviation: a graph holds both as
the real units of its input."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class InputSpec(Record):
    """The clamped population: ``z = (x - mean) / std``, per channel.

    ``shape`` is (channels, height, width) or (features,); ``mean`` and ``std`` have one value a
    channel, in units of the raw pixel (0 to 1).
    """

    shape: Shape
    mean: tuple[Finite, ...] | None = None
    std: tuple[Positive, ...] | None = None

    @model_validator(mode="after")
    def _one_fitting_value_a_channel(self) -> InputSpec:
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values is not None and len(values) != self.shape[0]:
                raise SpecError(
                    f"input.{key}",
                    f"{len(values)} values for {self.shape[0]} channels",
                    "give one value a channel",
                )
        for key, least in (("mean", 0.0), ("std", 1 / LARGEST_INPUT)):
            for value in getattr(self, key) or ():
                if not least <= abs(value) <= LARGEST_INPUT:
                    raise SpecError(
                        f"input.{key}",
                        f"{value:g} is outside {least or -LARGEST_INPUT:g} to {LARGEST_INPUT:g}",
                        "give it in units of the pixels, 0.25 for instance",
                    )
        return self


class PopulationSpec(Record):
    """States ``z`` of one shape, held in the box ``[lo, hi]``; ``box: null`` is linear.

    ``[0, c]`` is the clipped ReLU, ``[0, 1]`` the hard sigmoid. ``activation: sigmoid`` is the
    smooth twin of the box (`ep_neuro.energy.activations.Sigmoid`).

    ``unit`` is the size of its states: the box, the gains of its couplings, its bias and the
    relative learning rates are in units, so that a network reads the same whatever the ratio of
    neighbouring units. In units ``u`` the way back of ``i -> j`` is weaker than the way there by
    ``(u_j / u_i)^2``: units that shrink towards the output make feedback weak, and settling fast.
    Targets are in real units, so an output mostly keeps unit 1.
    """

    name: Name
    shape: Shape
    box: tuple[float, float] | None = (0.0, 1.0)
    unit: Positive = 1.0
    activation: Literal["clip", "sigmoid"] = "clip"

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
        if self.box is None and self.activation == "sigmoid":
            raise SpecError(
                f"population '{self.name}'",
                "a sigmoid has two ends, and its box is null",
                "give box: [lo, hi], or activation: clip for a linear population",
            )
        return self

    @model_validator(mode="after")
    def _unit_can_be_squared(self) -> PopulationSpec:
        if not 1 / LARGEST_UNIT <= self.unit <= LARGEST_UNIT:
            raise SpecError(
                f"population '{self.name}'",
                f"unit {self.unit:.2g} is outside {1 / LARGEST_UNIT:g} to {LARGEST_UNIT:g}, "
                "beyond which squares leave float32",
                "take a smaller ratio of neighbouring units, or fewer populations",
            )
        return self

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The box in real units, those of the energy; None if linear."""
        return None if self.box is None else (self.box[0] * self.unit, self.box[1] * self.unit)

    @property
    def height(self) -> float:
        """Height of `bounds`; the unit of a linear population."""
        return self.unit if self.bounds is None else self.bounds[1] - self.bounds[0]


class ReadoutSpec(Record):
    """A softmax layer behind the output, outside the dynamics (Laborieux 2021).

    Its cross-entropy nudges the output in place of the squared error; it learns by its own
    gradient. ``gain`` scales its initial weights as in a coupling.
    """

    kind: Literal["softmax"] = "softmax"
    classes: Size
    gain: Positive = 1.0


class NetworkSpec(Record):
    """A network described by its energy: populations, symmetric couplings, one output.

    ``E(z) = sum_l (|z_l|^2 / 2 - <b_l, z_l>) - sum_(i->j) <z_j, W_ij * z_i>``
    (Scellier & Bengio 2017, eq. 1, with the box in place of ``rho``). ``cost`` nudges the output:
    the squared error, or the cross-entropy of the softmax of its own states
    (`ep_neuro.energy.costs.CrossEntropy`); a ``readout`` brings its own.

    Raises
    ------
    SpecError
        If names repeat, a coupling joins unknown or unfitting populations or is the way back of
        another, or a population is cut off from the input or the output, or if a readout meets a
        cost of its own.
    """

    name: Name
    input: InputSpec
    populations: Annotated[tuple[PopulationSpec, ...], Field(min_length=1)]
    couplings: Annotated[tuple[CouplingSpec, ...], Field(min_length=1)]
    output: Name = ""
    readout: ReadoutSpec | None = None
    cost: Literal["squared-error", "cross-entropy"] = "squared-error"

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
            if c.untied and c.pre == INPUT:
                raise SpecError(
                    f"coupling '{c.name}'",
                    "untied belongs to couplings with a way back, and the input is clamped",
                    "remove untied",
                )
            c.check_shapes(shapes[c.pre], shapes[c.post])
            c.check_parametrisation(shapes[c.pre], shapes[c.post])
        _refuse_ways_back(self.couplings)
        if self.output not in shapes or self.output == INPUT:
            raise SpecError(
                "output", f"population '{self.output}' does not exist", "name a population"
            )
        self._refuse_islands()
        self._refuse_two_costs()
        return self

    def _refuse_two_costs(self) -> None:
        if self.readout is not None and self.cost != "squared-error":
            raise SpecError(
                f"cost of '{self.name}'",
                f"{self.cost} is taken of the output itself, and its readout has one of its own",
                "remove readout, or remove cost",
            )

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
        """Box of each free population, in real units."""
        return {p.name: p.bounds for p in self.populations}

    @property
    def units(self) -> dict[str, float]:
        """Unit of each population; the input has 1."""
        return {INPUT: 1.0, **{p.name: p.unit for p in self.populations}}

    def real_gain(self, c: CouplingSpec) -> float:
        """Gain of coupling `c` in real units, ``gain * u_post / u_pre``."""
        return c.gain * self.units[c.post] / self.units[c.pre]

    def initial_std(self, c: CouplingSpec) -> float:
        """Standard deviation of the initial weights of `c`: `real_gain` over ``sqrt(fan_in)``."""
        return self.real_gain(c) / math.sqrt(math.prod(self.weight_shapes[c.name][1:]))

    @property
    def initial_readout_std(self) -> float:
        """The same of the readout, whose classes have unit 1; 0 without one."""
        gain = 0.0 if self.readout is None else self.readout.gain
        return gain / self.units[self.output] / math.sqrt(math.prod(self.shapes[self.output]))

    @property
    def target_shape(self) -> Shape:
        """Shape of a target: that of the output, or (classes,) under a readout."""
        return self.shapes[self.output] if self.readout is None else (self.readout.classes,)

    @property
    def classes(self) -> int:
        """Number of classes: output neurons, or those of the readout."""
        return math.prod(self.target_shape)

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each coupling's weight, by coupling name."""
        s = self.shapes
        return {c.name: c.weight_shape(s[c.pre], s[c.post]) for c in self.couplings}

    @property
    def parameters(self) -> int:
        """Number of weights and biases (one bias a channel, or a neuron in a flat population)."""
        shapes = self.weight_shapes
        weights = sum(math.prod(shapes[c.name]) * (1 + c.untied) for c in self.couplings)
        weights += sum(shapes[c.name][0] for c in self.couplings if c.standardise)
        biases = sum(p.shape[0] for p in self.populations)
        if self.readout is None:
            return weights + biases
        return weights + biases + self.classes * (math.prod(self.shapes[self.output]) + 1)

    def plain(self) -> NetworkSpec:
        """The same network with weights that are parameters, nothing standardised or whitened."""
        flags = {"standardise": False, "whiten": False}
        couplings = tuple(c.model_copy(update=flags) for c in self.couplings)
        return self.model_copy(update={"couplings": couplings})

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


def _refuse_ways_back(couplings: Iterable[CouplingSpec]) -> None:
    # A target runs each coupling both ways, so a second one would take the same name there.
    pairs: dict[tuple[str, str], str] = {}
    for c in couplings:
        there = pairs.get((c.post, c.pre))
        if there is not None:
            raise SpecError(
                f"coupling '{c.name}'",
                f"it is the way back of '{there}', which acts both ways already",
                f"drop it, or write untied: true in '{there}' for a way back with its own weight",
            )
        pairs[c.pre, c.post] = c.name
