"""Memory that the session, the supervisor and every Lava process share: inputs, orders, records.

`Var.get` moves one element per message, far too slowly for records of every step. The board is one
anonymous file, mapped by all: it has no name, so nothing is left behind however the run ends.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields

import numpy as np

ALIGNMENT = 64
"""Bytes; fields start on a cache line of their own."""

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Data type and shape of each field, by name."""


@dataclass(frozen=True)
class PhaseCommand:
    """What the processes are to do in the next run.

    Attributes
    ----------
    number : int
        Counts the orders; a process that sees a new one begins a phase.
    phase : int
        Index of the phase in the graph.
    start : int
        Index of the phase whose last state this one continues, -1 for a new sample at rest.
    steps : int
        Length of the phase.
    keep : int
        1 if a later phase continues this one, so that its last state has to be kept.
    sign : int
        Sign of the plasticity that the phase contributes; 0 where nothing learns.
    commit : int
        1 if weights change at the end of the phase, or at each of its steps by a stepwise rule.
    samples : int
        Samples that teach, the first ones of the batch; a commit takes the mean over them.
    commits : int
        Commits that were made before this phase.
    """

    number: int = 0
    phase: int = 0
    start: int = -1
    steps: int = 0
    keep: int = 0
    sign: int = 0
    commit: int = 0
    samples: int = 0
    commits: int = 0


class SharedArrays:
    """Named arrays in one shared mapping, beside the order in force.

    Parameters
    ----------
    fd : int
        File to map, which the board closes in the end. Children inherit it and map it again.
    layout : Layout
        The arrays; the same in every process. That called ``a/b`` is also found as ``["a", "b"]``.
    """

    def __init__(self, fd: int, layout: Layout) -> None:
        self.fd, self.layout = fd, dict(layout)
        self.layout["order"] = ("int64", (len(fields(PhaseCommand)),))
        self.layout["nudge"] = ("float64", (1,))
        self.layout["rate scale"] = ("float64", (1,))
        offsets, size = {}, 0
        for name, (dtype, shape) in self.layout.items():
            offsets[name] = size
            size += -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        memory = mmap.mmap(fd, size)
        self._arrays: dict[str, np.ndarray] = {
            name: np.ndarray(shape, dtype, buffer=memory, offset=offsets[name])
            for name, (dtype, shape) in self.layout.items()
        }
        self._close = weakref.finalize(self, os.close, fd)

    @classmethod
    def create(cls, layout: Layout) -> SharedArrays:
        """A new board, all zero."""
        return cls(_anonymous_file(), layout)

    def __getitem__(self, name: str | tuple[str, ...]) -> np.ndarray:
        return self._arrays[_key(name)]

    def __contains__(self, name: str | tuple[str, ...]) -> bool:
        return _key(name) in self._arrays

    def write_order(self, order: PhaseCommand, nudge: float, rate_scale: float = 1.0) -> None:
        """Publish the next order; the processes must be idle."""
        self["order"][:] = astuple(order)
        self["nudge"][0] = nudge
        self["rate scale"][0] = rate_scale

    @property
    def number(self) -> int:
        """Number of the order in force."""
        return int(self["order"][0])

    @property
    def order(self) -> PhaseCommand:
        """The order in force."""
        return PhaseCommand(*self["order"].tolist())

    @property
    def nudge(self) -> float:
        """Nudging factor beta of the order in force, with its sign."""
        return float(self["nudge"][0])

    @property
    def rate_scale(self) -> float:
        """Factor of all learning rates in the order in force."""
        return float(self["rate scale"][0])

    def close(self) -> None:
        """Drop the file; memory goes with the last array that still looks at it."""
        self._arrays.clear()
        self._close()


def _key(name: str | tuple[str, ...]) -> str:
    return name if isinstance(name, str) else "/".join(name)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ep-neuro-lava")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
