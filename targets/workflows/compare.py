"""Side by side: one model settled in torch and on targets, encodings and weight widths."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import targets
from compilers import compile_network
from compilers.artifact import Program
from compilers.ir import ENCODINGS, Graph
from ep_neuro.data import Split
from ep_neuro.errors import ConfigError, DataError
from ep_neuro.network import Network
from ep_neuro.settle import Schedule
from ep_neuro.training import Evaluation, evaluate
from targets.base import Progress, RunResult

DEFAULT_CHOICES = ("reference:graded", "lava:graded", "lava:sigma-delta", "lava:spike")
"""What `compare` runs beside the torch network unless told otherwise."""


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
        if bits and not bits.isdigit():
            raise ConfigError(subject, f"'{bits}' bits", "give a number, 8 for instance")
        return cls(target, code or "graded", int(bits) if bits else None)

    def compile(self, network: Network, **options: Any) -> Program:
        """Compile `network` for this choice."""
        backend = targets.get(self.target)
        return compile_network(network, backend, code=self.code, bits=self.bits, **options)


@dataclass(frozen=True)
class Row:
    """One line of the comparison; fields as in the command line's contract.

    ``events`` and ``synops`` are means a sample over the free phase, ``energy_joule`` is an
    estimate on nominal hardware, ``ms_per_sample`` the wall time of the simulation; ``agreement``
    is the share of samples answered as the torch network answers them.
    """

    target: str
    code: str
    bits: int | None
    accuracy: float
    agreement: float
    events: float | None
    synops: float | None
    energy_joule: float | None
    ms_per_sample: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Compared:
    """A row, and the run behind it (None for torch)."""

    row: Row
    predictions: np.ndarray
    program: Program | None = None
    result: RunResult | None = None


def fit(split: Split, graph: Graph) -> Split:
    """`split` in the input shape of `graph`; `DataError` if it cannot be."""
    (source,) = graph.sources
    has = split.x.shape[1:]
    if int(np.prod(has)) != source.size:
        raise DataError(
            f"data for '{graph.name}'",
            f"samples are {list(has)}, the program takes {list(source.shape)}",
            "choose the data that the network was made for",
        )
    return Split(split.x.reshape(-1, *source.shape), split.y)


def rate(network: Network, split: Split, schedule: Schedule) -> Compared:
    """The torch network: the reference line of every comparison."""
    started = time.perf_counter()
    found: Evaluation = evaluate(network, split, schedule)
    spent = (time.perf_counter() - started) * 1e3 / len(split)
    row = Row("torch", "rate", None, found.accuracy, 1.0, None, None, None, spent)
    return Compared(row, found.outputs.argmax(1))


def measure(
    program: Program,
    split: Split,
    expected: np.ndarray,
    *,
    steps: int | None = None,
    progress: Progress | None = None,
) -> Compared:
    """Run `program` on `split` and compare its answers with the `expected` ones."""
    split = fit(split, program.graph)
    with targets.open(program) as session:
        result = session.settle(split.x, steps=steps, progress=progress)
    cost = targets.get(program.target).estimate(program, result)
    row = Row(
        target=program.target,
        code=program.graph.encoding,
        bits=weight_bits(program),
        accuracy=float((result.predictions == split.y).mean()),
        agreement=float((result.predictions == expected).mean()),
        events=result.events_per_sample,
        synops=result.synops_per_sample,
        energy_joule=cost.energy_joule,
        ms_per_sample=result.seconds * 1e3 / len(split),
    )
    return Compared(row, result.predictions, program, result)


def compare(
    network: Network,
    split: Split,
    choices: Sequence[Choice],
    *,
    schedule: Schedule,
    options: Mapping[str, Any] | None = None,
    on_row: Callable[[Compared], None] | None = None,
) -> list[Compared]:
    """Torch first, then each of `choices`; `on_row` is called with each result as it comes."""
    compared: list[Compared] = []

    def add(one: Compared) -> None:
        compared.append(one)
        if on_row is not None:
            on_row(one)

    add(rate(network, split, schedule))
    for choice in choices:
        program = choice.compile(network, **(options or {}))
        add(measure(program, split, compared[0].predictions))
    return compared


def weight_bits(program: Program) -> int | None:
    """Bits of a weight, or None in floating point."""
    noted = program.graph.provenance.get("bits")
    return int(noted) if noted else None
