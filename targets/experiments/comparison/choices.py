"""What is compared: a target, an encoding and a weight width each, and the programs of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import targets
from compilers import compile_network
from compilers.ir.graph import ENCODINGS
from compilers.options import declared, refuse_unknown
from compilers.program import Program
from ep_neuro.errors import ConfigError
from ep_neuro.network.network import Network
from targets.experiments.comparison.sweep import FLOAT, Sweep

DEFAULT_CHOICES = ("reference:graded", "lava:graded", "lava:sigma-delta", "lava:spike")
"""What `compare` runs beside the torch network unless told otherwise, where Lava is here."""


def default_choices(log: Callable[[str], None]) -> tuple[str, ...]:
    """`DEFAULT_CHOICES`; without Lava, whose events and answers it has, the reference alone."""
    if targets.or_reference("lava", log) == "lava":
        return DEFAULT_CHOICES
    return tuple(f"reference:{code}" for code in ENCODINGS)


@dataclass(frozen=True)
class Choice:
    """A target, an encoding and a weight width: ``lava:sigma-delta:8``."""

    target: str
    code: str = "graded"
    bits: int | None = None

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``target[:code[:bits]]``; `ConfigError` or `TargetError` names what is wrong."""
        subject = f"--with {text}"
        parts = text.split(":")
        if len(parts) > 3:
            raise ConfigError(subject, "has too many parts", "write target[:code[:bits]]")
        target, code, bits = (*parts, "", "")[:3]
        targets.get(target)
        if code and code not in ENCODINGS:
            raise ConfigError(
                subject, f"encoding '{code}' does not exist", f"choose from {', '.join(ENCODINGS)}"
            )
        if bits and bits != FLOAT and not bits.isdigit():
            raise ConfigError(subject, f"'{bits}' bits", "give a number, 8 for instance, or float")
        return cls(target, code or "graded", int(bits) if bits.isdigit() else None)

    def compile(self, network: Network, **options: Any) -> Program:
        """Compile `network` for this choice."""
        backend = targets.get(self.target)
        return compile_network(network, backend, code=self.code, bits=self.bits, **options)


def programs(
    network: Network,
    choices: Sequence[Choice],
    sweep: Sweep,
    given: dict[str, Any],
    owned: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Program, Sequence[int | None]]]:
    """Each program, and the lengths of its free phase to run, the longest first.

    Targets may have to start again for a longer run. Thresholds of sigma-delta fall over the
    length that they are compiled for, so each length is a program of its own.
    """
    longest = sweep.compiled_steps(given.pop("steps", None))
    for choice in sweep.over_bits(choices):
        lengths: list[Sequence[int | None]] = [sweep.steps[::-1] or (None,)]
        if choice.code == "sigma-delta" and sweep.steps:
            lengths = [(steps,) for steps in sweep.steps]
        for several in lengths:
            steps = several[0] or longest
            options = dict(owned[choice.target])
            yield choice.compile(network, options=options, steps=steps, **given), several


def shared_options(
    choices: Sequence[Choice], given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Of each target in `choices` those of the options `given` that it takes.

    Raises
    ------
    ConfigError
        If one of them is taken by no target.
    """
    takes = {c.target: declared(targets.get(c.target)) or {} for c in choices}
    known = list(dict.fromkeys(name for options in takes.values() for name in options))
    refuse_unknown(f"with {', '.join(takes)}, a comparison", given, known)
    return {
        target: {name: value for name, value in given.items() if name in options}
        for target, options in takes.items()
    }
