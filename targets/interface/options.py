"""Options of a program against what its target allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compilers.options import refuse_unknown
from ep_neuro.errors import ConfigError
from targets.interface.supervised.process import LONGEST

SECONDS = float
"""Stands for a time above 0 that a process may take."""

COUNT = range(1, 1_000_001)
"""Of chips, samples, processes."""

Values = Sequence[str] | range | type[float]
"""What an option may be: one of some words, a whole number of a range, or `SECONDS`."""


def checked(
    target: str,
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    allowed: Mapping[str, Values],
) -> dict[str, Any]:
    """The `defaults` of `target` with those that are `given`; None is allowed where it is one.

    Raises
    ------
    ConfigError
        Names the first option that is unknown or out of range, its value, and what is allowed.
    """
    refuse_unknown(f"target '{target}'", given, defaults)
    options = {**defaults, **given}
    for name, values in allowed.items():
        value, none = options[name], defaults[name] is None
        if (value is None and none) or _fits(value, values):
            continue
        if isinstance(values, range):
            remedy = f"give a whole number from {values[0]:,} to {values[-1]:,}"
        elif isinstance(values, type):
            remedy = f"give seconds above 0, {LONGEST:g} at most"
        else:
            remedy = f"choose from {', '.join(values)}"
        remedy += ", or none" if none else ""
        raise ConfigError(f"target '{target}', option '{name}'", f"is {value!r}", remedy)
    return options


def _fits(value: Any, values: Values) -> bool:
    if isinstance(values, type):
        return type(value) in (int, float) and 0 < value <= LONGEST
    return type(value) is (int if isinstance(values, range) else str) and value in values
