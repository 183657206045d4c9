"""Memory that the session, the supervisor and every Lava process share: inputs, plans, records.

`Var.get` moves one element per message, far too slowly for records of every step. The memory is one
anonymous file, mapped by all: it has no name, so nothing is left behind however the run ends.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import numpy as np

ALIGNMENT = 64
"""Bytes; arrays start on a cache line of their own."""

Fields = Mapping[str, tuple[Any, Sequence[int]]]
"""Data type and shape of each array, by name."""


@dataclass(frozen=True)
class PhaseCommand:
    """A phase that the processes are to run."""

    number: int = 0
    """Counts the commands from 1; a process that sees a new one begins a phase."""
    phase: int = 0
    """Index of the phase in the graph."""
    start: int = -1
    """Index of the phase whose last state this one continues, -1 for a new sample at rest."""
    steps: int = 0
    """Length of the phase."""
    first: int = 0
    """Where its samples begin in the shared input and target."""
    rows: int = 1
    """Samples at once; the first ones of the ports, but see `beside`."""
    slot: int = 0
    """Where its readout and its records are among those of a plan."""
    keep: int = 0
    """1 if a later phase continues this one, so that its last state has to be kept."""
    sign: int = 0
    """Sign of the plasticity that the phase contributes; 0 where nothing learns."""
    commit: int = 0
    """1 if weights change at the end of the phase, or at each of its steps by a stepwise rule."""
    samples: int = 0
    """Samples that teach; a commit takes the mean over them."""
    commits: int = 0
    """Commits that were made before this phase."""
    nudge: float = 0.0
    """Nudging factor beta, with its sign."""
    rate_scale: float = 1.0
    """Factor of all learning rates."""
    difference: int = 0
    """1 if populations send what differs from the state that the phase starts from."""
    beside: int = 0
    """1 if it runs side by side with the command before it, in rows behind its rows."""

    @property
    def at(self) -> slice:
        """Its samples in the shared input and target."""
        return slice(self.first, self.first + self.rows)


def shares(phases: Sequence[PhaseCommand]) -> list[tuple[PhaseCommand, slice]]:
    """Each of the `phases` that run side by side, with its rows among all of theirs."""
    ends = np.cumsum([phase.rows for phase in phases]).tolist()
    return [(p, slice(end - p.rows, end)) for p, end in zip(phases, ends, strict=True)]


COMMAND = np.dtype([(f.name, f.type) for f in fields(PhaseCommand)])
"""A command as it lies in memory."""

PLANNED = 12
"""Most commands of a plan."""


class SharedArrays:
    """Named arrays in one shared mapping, beside the plan in force.

    Parameters
    ----------
    fd : int
        File to map, which is closed in the end. Children inherit it and map it again.
    fields : Fields
        The same in every process. An array called ``a/b`` is also found as ``["a", "b"]``.
    """

    def __init__(self, fd: int, fields: Fields) -> None:
        self.fd = fd
        fields = {"plan": (COMMAND, (PLANNED,)), **fields}
        size = size_of(fields)
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        self._arrays = _arranged(fields, mmap.mmap(fd, size))
        self._close = weakref.finalize(self, os.close, fd)

    @classmethod
    def create(cls, fields: Fields) -> SharedArrays:
        """New arrays, all zero."""
        return cls(_anonymous_file(), fields)

    def __getitem__(self, name: str | tuple[str, ...]) -> np.ndarray:
        return self._arrays[_key(name)]

    def within(self, name: str, row: int, fields: Fields) -> dict[str, np.ndarray]:
        """One `row` of the array of bytes `name`, seen as arrays of these `fields`."""
        return _arranged(fields, self._arrays[name][row])

    def __contains__(self, name: str | tuple[str, ...]) -> bool:
        return _key(name) in self._arrays

    @property
    def number(self) -> int:
        """Number of the first command in force."""
        return int(self._arrays["plan"]["number"][0])

    @property
    def plan(self) -> list[PhaseCommand]:
        """The commands in force, one after the other; the processes must be idle when it is set.

        They are numbered as they are set.
        """
        found = (PhaseCommand(*command) for command in self._arrays["plan"].tolist())
        return [command for command in found if command.number]

    @plan.setter
    def plan(self, commands: Sequence[PhaseCommand]) -> None:
        held, last = self._arrays["plan"], int(self._arrays["plan"]["number"].max())
        held[...] = np.zeros((), COMMAND)
        for i, command in enumerate(commands):
            held[i] = astuple(replace(command, number=last + 1 + i))

    @property
    def abreast(self) -> list[list[PhaseCommand]]:
        """The commands in force, those that run side by side in one list."""
        found: list[list[PhaseCommand]] = []
        for command in self.plan:
            if command.beside and found:
                found[-1].append(command)
            else:
                found.append([command])
        return found

    def close(self) -> None:
        """Drop the file; memory goes with the last array that still looks at it."""
        self._arrays.clear()
        self._close()


def size_of(fields: Fields) -> int:
    """Bytes that `fields` take, the gaps between them included."""
    return sum(_spacing(*field) for field in fields.values())


def _spacing(dtype: Any, shape: Sequence[int]) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT


def _arranged(fields: Fields, memory: Any) -> dict[str, np.ndarray]:
    arrays, offset = {}, 0
    for name, (dtype, shape) in fields.items():
        arrays[name] = np.ndarray(shape, dtype, buffer=memory, offset=offset)
        offset += _spacing(dtype, shape)
    return arrays


def _key(name: str | tuple[str, ...]) -> str:
    return name if isinstance(name, str) else "/".join(name)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ep-neuro-lava")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
