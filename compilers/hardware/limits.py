"""Hardware as data: limits and energy constants with their sources, and violations of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ep_neuro.errors import ConfigError


@dataclass(frozen=True)
class Quantity:
    """A number, its unit, and where it was published or how it was assumed."""

    value: float
    unit: str
    source: str


UNPUBLISHED = Quantity(0.0, "J", "not published")
"""Stands for a constant that a hardware file may leave out."""


@dataclass(frozen=True)
class EnergyModel:
    """Energy and time of the events that a chip is made of."""

    event: Quantity
    """One message that leaves a neuron, joule."""
    synaptic_operation: Quantity
    """One message that meets one synapse, joule."""
    active_update: Quantity
    """One step of a neuron that changes, joule."""
    idle_update: Quantity
    """One step of a neuron that does not change, joule."""
    synaptic_operation_time: Quantity
    active_update_time: Quantity
    idle_update_time: Quantity
    """The same three in seconds, of one core, which works through them one after another."""
    hop: Quantity = UNPUBLISHED
    """One message on its way from a router to the next, joule; zero where none is published."""
    weight_update: Quantity = UNPUBLISHED
    """One change of one weight on the chip, joule; zero where none is published."""

    @property
    def source(self) -> str:
        """Sources of all constants, each once."""
        known = (q for q in vars(self).values() if q != UNPUBLISHED)
        return "; ".join(dict.fromkeys(q.source for q in known))


@dataclass(frozen=True)
class Violation:
    """A limit that a graph breaks."""

    subject: str
    value: float
    limit: float
    remedy: str
    unit: str = ""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        value, limit = (f"{v:,.12g}" for v in (self.value, self.limit))
        return f"{self.subject}: {value}{unit} exceed the limit of {limit}; {self.remedy}"


@dataclass(frozen=True)
class HardwareLimits:
    """Limits of one machine by name, each with its source; an unnamed one is unlimited.

    `parameters` are facts about the machine that bound nothing by themselves. `target` says what
    runs programs on it: summary, module (of the vendor's software) and missing (how to get it),
    and whether ``lava`` is that software, so that a program holds a script for it.
    """

    name: str
    limits: Mapping[str, Quantity] = field(default_factory=dict)
    energy: EnergyModel | None = None
    parameters: Mapping[str, Quantity] = field(default_factory=dict)
    target: Mapping[str, str] = field(default_factory=dict)

    def limit(self, name: str) -> float:
        """The limit called `name`; infinity if there is none."""
        return self.limits[name].value if name in self.limits else math.inf

    def parameter(self, name: str, default: float) -> float:
        """The parameter called `name`, or `default`."""
        return self.parameters[name].value if name in self.parameters else default

    def violation(self, limit: str, subject: str, value: float, remedy: str) -> Violation | None:
        """The violation if `value` exceeds the limit called `limit`, else None."""
        bound = self.limits.get(limit)
        if bound is None or value <= bound.value:
            return None
        return Violation(subject, value, bound.value, remedy, bound.unit)


# --- reading -----------------------------------------------------------------------------------


TARGET_KEYS = ("summary", "module", "missing")
"""What a hardware file says of the software that drives the machine; ``script`` may be added."""

SCRIPTS = ("lava",)
"""Software for which a program can hold a script."""

_SECTIONS = ("name", "target", "limits", "parameters", "energy")


def load_hardware(path: str | Path) -> HardwareLimits:
    """Read ``name``, ``target``, ``limits``, ``parameters`` and ``energy`` from a YAML file.

    Every number is a mapping ``{value, unit, source}``; `ConfigError` names one that is not.
    """
    # Here, as Lava's environment, where limits are compared and not read, has no YAML.
    from ep_neuro.storage.yaml_io import read_text

    return parse_hardware(read_text(path), str(path))


def parse_hardware(text: str, path: str) -> HardwareLimits:
    """`load_hardware` of a file's `text`; `path` names its origin in errors."""
    from ep_neuro.storage.yaml_io import parse_yaml

    data = parse_yaml(text, path)
    unknown = sorted(set(data) - set(_SECTIONS))
    if unknown or not isinstance(data.get("name"), str):
        problem = f"unknown key '{unknown[0]}'" if unknown else "key 'name' is missing"
        raise ConfigError(path, problem, f"give {', '.join(_SECTIONS)}")
    limits, parameters, energy = (
        _quantities(data.get(section), f"{path}: {section}")
        for section in ("limits", "parameters", "energy")
    )
    return HardwareLimits(
        name=data["name"],
        limits=limits,
        energy=_energy_model(energy, path) if energy else None,
        parameters=parameters,
        target=_target(data.get("target"), f"{path}: target"),
    )


def _target(data: Any, where: str) -> dict[str, str]:
    if data is None:
        return {}
    if not isinstance(data, Mapping) or set(data) - {"script"} != set(TARGET_KEYS):
        raise ConfigError(where, "is not complete", f"give {', '.join(TARGET_KEYS)}")
    if any(not isinstance(v, str) or not v.strip() for v in data.values()):
        raise ConfigError(where, "holds an empty value", "write a line of text for each")
    if data.get("script", SCRIPTS[0]) not in SCRIPTS:
        problem = f"script '{data['script']}' is unknown"
        raise ConfigError(where, problem, f"choose from {', '.join(SCRIPTS)}, or leave it out")
    return {str(key): " ".join(text.split()) for key, text in data.items()}


def _energy_model(constants: Mapping[str, Quantity], path: str) -> EnergyModel:
    fields = dataclasses.fields(EnergyModel)
    names = {f.name for f in fields}
    needed = {f.name for f in fields if f.default is dataclasses.MISSING}
    for problem, wrong in (
        ("unknown constant", set(constants) - names),
        ("missing constant", needed - set(constants)),
    ):
        if wrong:
            remedy = f"give {', '.join(sorted(names))}"
            raise ConfigError(f"{path}: energy", f"{problem} '{min(wrong)}'", remedy)
    return EnergyModel(**constants)


def _quantities(data: Any, where: str) -> dict[str, Quantity]:
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise ConfigError(where, "is not a mapping", "write `name: {value, unit, source}` lines")
    return {str(name): _quantity(item, f"{where}.{name}") for name, item in data.items()}


def _quantity(item: Any, where: str) -> Quantity:
    if not isinstance(item, Mapping) or set(item) != {"value", "unit", "source"}:
        raise ConfigError(where, "is not {value, unit, source}", "give exactly these three")
    value, unit, source = item["value"], item["unit"], item["source"]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise ConfigError(where, f"value {value!r} is no finite number >= 0", "correct it")
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(where, "has no source", "say where the number comes from")
    return Quantity(float(value), str(unit), source)
