"""Messages of a population as its receivers take them up and add them up; silence is skipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from compilers.execution.maps import LinearMap

SMALL = 1 << 15
"""Messages so few that looking for zeros among them costs as much as passing them on."""


class Stream:
    """Messages of one population that arrive some steps after they were sent.

    Parameters
    ----------
    slots : sequence of Tensor, (N, *shape)
        Where the messages of the last steps stand: those of step ``t`` at ``t`` modulo their
        number.
    delay : int
    bound : float
        What no message exceeds in size.
    signed : bool
        Messages may be negative.
    integers : bool
        They are whole numbers: skipping samples without messages changes no bit.

    Attributes
    ----------
    told : Tensor
        Messages that arrive now, of all samples or of those in `rows`.
    rows : Tensor or None
        Samples with a message that is not zero, None for all of them.
    largest : float
        Size of the largest message, or a bound of it.
    silent : bool
        No sample has a message that is not zero.
    """

    def __init__(
        self, slots: Sequence[Tensor], delay: int, bound: float, signed: bool, integers: bool
    ) -> None:
        self._slots, self._delay = tuple(slots), delay
        self._signed, self._integers = signed, integers
        self.told, self.largest = self._slots[0], bound
        self.rows: Tensor | None = None
        self.silent = True
        # On a GPU to look costs more than to pass everything on; hardly a sample has no spikes.
        many = self.told.numel() >= SMALL and self.told.device.type == "cpu"
        self._looks = many and not (integers and bound == 1)

    def listen(self, t: int) -> None:
        """Take up what arrives at step `t`, from 1; before that nothing was sent."""
        sent = t - self._delay
        self.silent = sent < 1
        self.told = self._slots[sent % len(self._slots)]
        if self._looks and not self.silent:
            self._look()

    def _look(self) -> None:
        if not self._integers:
            least, most = self.told.aminmax()
            self.silent = not (least.item() or most.item())
            return
        flat = self.told.flatten(1)
        peaks = (flat.abs() if self._signed else flat).amax(1).tolist()
        self.largest, self.rows = max(peaks), None
        self.silent = not self.largest
        if not self.silent and not all(peaks):
            self.rows = torch.tensor([n for n, peak in enumerate(peaks) if peak])
            self.told = self.told[self.rows]


class Adder:
    """Adds up what messages of changes mean to one population.

    Parameters
    ----------
    constant, base : Tensor, (N, *shape)
        Drive of input and bias, and where this goes with all that has been added up.
    """

    def __init__(self, constant: Tensor, base: Tensor) -> None:
        self._constant, self._base = constant, base
        self._ways: list[tuple[Stream, LinearMap]] = []
        self.totals: list[Tensor] = []
        self.stale = True

    def join(self, stream: Stream, mapped: LinearMap) -> None:
        """Add up a further projection."""
        self._ways.append((stream, mapped))
        self.totals.append(mapped.sums(len(self._base)))

    def rest(self) -> None:
        """Forget everything."""
        self.stale = True
        for total in self.totals:
            total.zero_()

    def add(self) -> None:
        """Take in what is heard in this step."""
        heard: list[Tensor | None] = []
        for (stream, mapped), total in zip(self._ways, self.totals, strict=True):
            if stream.silent:
                continue
            found = mapped.apply(stream.told, stream.largest)
            heard.append(stream.rows)
            if stream.rows is None:
                total.add_(found)
            else:
                total.index_add_(0, stream.rows, found)
        if not heard and not self.stale:
            return
        rows = None if self.stale else _union(heard, len(self._base))
        self.stale = False
        if rows is None:
            self._base.copy_(self._constant)
            for (_, mapped), total in zip(self._ways, self.totals, strict=True):
                self._base.add_(mapped.gained(total))
            return
        part = self._constant[rows]
        for (_, mapped), total in zip(self._ways, self.totals, strict=True):
            part += mapped.gained(total[rows])
        self._base.index_copy_(0, rows, part)


def _union(rows: Iterable[Tensor | None], samples: int) -> Tensor | None:
    """Samples that any of `rows` names; None for all, as soon as most are named."""
    found: list[Tensor] = []
    for some in rows:
        if some is None:
            return None
        found.append(some)
    if sum(some.numel() for some in found) >= samples:
        return None
    return torch.cat(found).unique()
