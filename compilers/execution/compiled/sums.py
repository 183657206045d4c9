"""What the compiled loops share: where messages arrive, what they add up to, how currents leak.

Few neurons spike in a step, and few graded messages change: sums cost what those reach and not what
there are weights. Those of integers are exact in any order, so that loops come to the same bits as
the steps of the executor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., object])

MOST_BITS = 62
"""Nothing is left of a sum that is shifted so far, and words know no shift over 63 bits."""


def shortest(largest: float) -> type[np.signedinteger]:
    """The shortest integers that hold those up to `largest` in size, which are fetched fastest."""
    return next(k for k in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(k).max)


class Layout(NamedTuple):
    """P populations and Q projections, one after the other, T neurons in all."""

    spans: np.ndarray
    """Begin and end of each population in a row of neurons, (P, 2)."""
    leaks: np.ndarray
    """See `leak` and `relax`, (P, 2)."""
    levels: np.ndarray
    """Of spiking neurons lowest and highest value of the membrane, and the threshold; of graded
    ones the ends of the box in units of messages, and the bits that a membrane has and a message
    has not, (P, 3)."""
    hard: np.ndarray
    """Whether a spike empties the membrane, (P,)."""
    wires: np.ndarray
    """Sender, receiver, channels of the sender, and which part of `begins` and which of `weights`
    is its own, (Q, 7)."""
    begins: np.ndarray
    runs: np.ndarray
    """With `begins`, where spikes arrive; see `passed_on`."""
    gains: np.ndarray
    """Factor of the sums, and bits by which they are then shifted to the right, rounded, (Q, 2), in
    integers that hold sums; in floating point weights hold that."""
    weights: np.ndarray


class State(NamedTuple):
    """What N samples hold, (N, T) each, in the words of `compilers.execution.neurons.Cells`."""

    constant: np.ndarray
    drive: np.ndarray
    u: np.ndarray
    plain: np.ndarray
    v: np.ndarray
    z: np.ndarray


def compiled(kernel: Kernel) -> Kernel:
    """`kernel` as Numba compiles it at its first call; other threads work while it runs."""
    try:
        return cast(Kernel, njit(cache=True, nogil=True)(kernel))
    except RuntimeError:  # No folder can be written to: it is compiled anew in each process.
        return cast(Kernel, njit(nogil=True)(kernel))


# Indices are unsigned: of others it is asked at each use whether they count from the end.
ONE = np.uint64(1)

BLOCK = 32
"""Messages that are compared together: of most blocks none changes."""


@compiled
def listed(spikes: np.ndarray, begin: int, end: int, fired: np.ndarray, start: int) -> int:
    """Write which of ``spikes[begin:end]`` are not zero, from 0, to ``fired[start:]``; how many."""
    first, last, at = np.uint64(begin), np.uint64(end), np.uint64(start)
    count = np.uint64(0)
    for i in range(first, last):
        # Without a branch, which would often be guessed wrong; so there is room for one more.
        fired[at + count] = i - first
        count += np.uint64(spikes[i] != 0)
    return int(count)


@compiled
def changed(
    messages: np.ndarray,
    heard: np.ndarray,
    begin: int,
    end: int,
    fired: np.ndarray,
    values: np.ndarray,
    start: int,
) -> int:
    """As `listed`, which of ``messages[begin:end]`` differ from `heard`; `values`: by how much.

    Afterwards they have been heard.
    """
    first, last, at = np.uint64(begin), np.uint64(end), np.uint64(start)
    count, block = np.uint64(0), np.uint64(BLOCK)
    here = first
    while here < last:
        stop: Any = min(here + block, last)
        differs = False
        for i in range(here, stop):
            differs |= messages[i] != heard[i]
        if differs:
            for i in range(here, stop):
                change = messages[i] - heard[i]
                fired[at + count] = i - first
                values[at + count] = change
                count += np.uint64(change != 0)
                heard[i] = messages[i]
        here = stop
    return int(count)


@compiled
def passed_on(
    fired: np.ndarray,
    values: np.ndarray | None,
    count: int,
    channels: int,
    begins: np.ndarray,
    runs: np.ndarray,
    weight: np.ndarray,
    drive: np.ndarray,
    start: int,
) -> None:
    """Add to ``drive[start:]`` what the first `count` senders of `fired` send: 1, or `values`.

    The `channels` at one place reach the runs ``begins[place]`` to ``begins[place + 1]``, each with
    its own part of `weight`; see `compilers.execution.reach.Reach`.
    """
    many, each = np.uint64(channels), np.uint64(len(weight) // channels)
    k, end = np.uint64(0), np.uint64(count)
    while k < end:
        place, one = fired[k] // many, (fired[k] % many) * each
        # Two at a time, if there are two at a place, are half the sums to fetch and to store.
        both = k + ONE < end and fired[k + ONE] // many == place
        two = (fired[k + ONE] % many) * each if both else one
        for run in range(np.uint64(begins[place]), np.uint64(begins[place + ONE])):
            at: Any = np.uint64(start + runs[run, 0])
            own, length = np.uint64(runs[run, 1]), np.uint64(runs[run, 2])
            if values is None and both:
                for i in range(length):
                    drive[at + i] += weight[one + own + i] + weight[two + own + i]
            elif values is None:
                for i in range(length):
                    drive[at + i] += weight[one + own + i]
            elif both:
                a, b = values[k], values[k + ONE]
                for i in range(length):
                    drive[at + i] += weight[one + own + i] * a + weight[two + own + i] * b
            else:
                a = values[k]
                for i in range(length):
                    drive[at + i] += weight[one + own + i] * a
        k += np.uint64(2) if both else ONE


@compiled
def gained(sums: np.ndarray, gain: int, bits: int, drive: np.ndarray, start: int) -> None:
    """Add `sums` times `gain`, shifted to the right by `bits` and rounded, to ``drive[start:]``."""
    kind = drive.dtype.type
    at: Any = np.uint64(start)
    half = kind((1 << bits) >> 1)
    for i in range(np.uint64(len(sums))):
        drive[at + i] += kind(kind(sums[i] * gain) + half) >> bits


@compiled
def currents(
    spikes: np.ndarray,
    begins: np.ndarray,
    runs: np.ndarray,
    weights: np.ndarray,
    gain: int,
    bits: int,
    drive: np.ndarray,
) -> None:
    """Add to `drive` (N, receivers) what the `spikes` (N, senders) send; see `passed_on`, `gained`.

    `weights` are (channels, ...).
    """
    (rows, senders), receivers = spikes.shape, drive.shape[1]
    flat, sent, to = weights.ravel(), spikes.ravel(), drive.ravel()
    fired, sums = np.empty(senders + 1, np.uint64), np.empty_like(drive[0])
    for n in range(rows):
        count = listed(sent, n * senders, (n + 1) * senders, fired, 0)
        if count:
            sums[:] = 0
            passed_on(fired, None, count, len(weights), begins, runs, flat, sums, 0)
            gained(sums, gain, bits, to, n * receivers)


@compiled
def leak(
    current: np.ndarray,
    plain: np.ndarray,
    drive: np.ndarray,
    begin: int,
    end: int,
    leaks: np.ndarray,
    ends: np.ndarray,
) -> int:
    """``u + part (I - u)``, and what `plain` holds of it; how many met an end of their format.

    Of the neurons `begin` to `end`. `leaks` are the part, in units of ``2**-fine``, and `fine`;
    without fractional bits all leaks, and only `plain` changes.
    """
    part, fine = leaks
    least, most = ends
    kind, saturated = current.dtype.type, np.int32(0)
    first, last = np.uint64(begin), np.uint64(end)
    if fine == 0:
        for i in range(first, last):
            plain[i] = min(max(drive[i], least), most)
            saturated += np.int32(plain[i] != drive[i])
        return int(saturated)
    for i in range(first, last):
        leaked = kind(current[i] + kind(part * kind(drive[i] - plain[i])))
        whole = kind(leaked >> fine)
        held = min(max(whole, least), most)
        saturated += np.int32(held != whole)
        current[i] = leaked - (kind(whole - held) << fine)
        plain[i] = held
    return int(saturated)


@compiled
def relax(current: np.ndarray, drive: np.ndarray, begin: int, end: int, part: float) -> None:
    """``u + part (I - u)`` in floating point, of the neurons `begin` to `end`."""
    for i in range(np.uint64(begin), np.uint64(end)):
        current[i] += part * (drive[i] - current[i])
