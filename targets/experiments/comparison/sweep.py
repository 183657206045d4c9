"""Sweeps: the same choices at several numbers of steps or bits, and which rows are worth having."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compilers.ir.bounds import BOUNDS
from compilers.ir.graph import Phase
from compilers.ir.plasticity import Plasticity
from ep_neuro.errors import ConfigError, nearest

if TYPE_CHECKING:
    from targets.experiments.comparison.choices import Choice

FLOAT = "float"
"""How a sweep over bits writes floating point."""

_LIMITS = {"steps": BOUNDS[Phase, "steps"], "bits": BOUNDS[Plasticity, "bits"]}
_EXAMPLES = {"steps": "steps=8,16,32,64", "bits": "bits=8,6,4,3,2"}


@dataclass(frozen=True)
class Sweep:
    """What is varied; an axis that is empty stays as each choice has it.

    Attributes
    ----------
    steps : tuple of int
        Lengths of the free phase, in ascending order.
    bits : tuple of int or None
        Bits of a weight, None for floating point, in the given order.
    """

    steps: tuple[int, ...] = ()
    bits: tuple[int | None, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Sweep:
        """Read ``steps=8,16,32`` and ``bits=8,6,float``; `ConfigError` names what is wrong."""
        found: dict[str, tuple[int | None, ...]] = {}
        for text in texts:
            axis, _, values = text.partition("=")
            subject = f"--sweep {text}"
            if axis not in _LIMITS:
                problem = f"'{axis}' cannot be swept, steps and bits can"
                how = nearest(axis, _LIMITS, f"write {_EXAMPLES['steps']}")
                raise ConfigError(subject, problem, how)
            if axis in found:
                raise ConfigError(subject, f"{axis} are swept already", "join both into one list")
            found[axis] = tuple(_value(subject, axis, v.strip()) for v in values.split(","))
            if len(set(found[axis])) < len(found[axis]):
                raise ConfigError(subject, "a value comes twice", "name each once")
        steps = sorted(s for s in found.get("steps", ()) if s is not None)
        return cls(tuple(steps), found.get("bits", ()))

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of what is varied."""
        return tuple(axis for axis in ("steps", "bits") if getattr(self, axis))

    @property
    def points(self) -> int:
        """Number of runs of one choice."""
        return max(1, len(self.steps)) * max(1, len(self.bits))

    def over_bits(self, choices: Sequence[Choice]) -> list[Choice]:
        """Each choice at each number of bits; `ConfigError` if one names its own."""
        if not self.bits:
            return list(choices)
        for choice in choices:
            if choice.bits is not None:
                subject = f"--with {choice.target}:{choice.code}:{choice.bits}"
                problem = f"names {choice.bits} bits while --sweep varies them"
                raise ConfigError(subject, problem, "drop one of the two")
        return [replace(choice, bits=bits) for choice in choices for bits in self.bits]

    def compiled_steps(self, asked: int | None) -> int | None:
        """Steps to compile for: the longest of the sweep, or those `asked`; not both."""
        if self.steps and asked is not None:
            problem = "steps are swept as well"
            raise ConfigError(f"--steps {asked}", problem, "drop --steps, or add it to --sweep")
        return self.steps[-1] if self.steps else asked


def front(gain: Sequence[float | None], cost: Sequence[float | None]) -> list[bool]:
    """Which points are on the Pareto front: nothing is as good and as cheap, and better in one.

    Parameters
    ----------
    gain, cost : sequence of float or None
        Larger and smaller is better; a point that lacks either is never on the front.
    """
    points = [None if g is None or c is None else (g, c) for g, c in zip(gain, cost, strict=True)]
    known = [p for p in points if p is not None]

    def beaten(g: float, c: float) -> bool:
        return any(a >= g and b <= c and (a > g or b < c) for a, b in known)

    return [p is not None and not beaten(*p) for p in points]


def _value(subject: str, axis: str, text: str) -> int | None:
    if axis == "bits" and text == FLOAT:
        return None
    low, high = _LIMITS[axis]
    if not text.isdecimal() or not low <= int(text) <= high:
        problem = f"'{text}' is no number of {axis} from {low} to {high:,}"
        raise ConfigError(subject, problem, f"write {_EXAMPLES[axis]}")
    return int(text)
