"""The compiled loop over the steps of spiking neurons, in integers and in floating point.

Few neurons spike in a step: sums cost what their spikes reach and not what there are weights.
Those of integers are exact in any order, so that this comes to the same bits as the steps of the
executor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., object])


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
    """Lowest and highest value of the membrane, and the threshold, (P, 3)."""
    hard: np.ndarray
    """Whether a spike empties the membrane, (P,)."""
    wires: np.ndarray
    """Sender, receiver, channels of the sender, and which part of `begins` and which of `weights`
    is its own, (Q, 7)."""
    begins: np.ndarray
    runs: np.ndarray
    """With `begins`, where spikes arrive; see `passed_on`."""
    gains: np.ndarray
    """Factor of the sums, and bits by which they are then shifted to the right, rounded, (Q, 2); in
    floating point weights hold that."""
    weights: np.ndarray


class State(NamedTuple):
    """What N samples hold, (N, T) each, in the words of `compilers.execution.neurons.Cells`."""

    constant: np.ndarray
    u: np.ndarray
    plain: np.ndarray
    v: np.ndarray
    z: np.ndarray


def _compiled(loop: Loop) -> Loop:
    try:
        return cast(Loop, njit(cache=True, nogil=True)(loop))
    except RuntimeError:  # No folder can be written to: it is compiled anew in each process.
        return cast(Loop, njit(nogil=True)(loop))


# Indices are unsigned: of others it is asked at each use whether they count from the end.
ONE = np.uint64(1)


@_compiled
def listed(spikes: np.ndarray, begin: int, end: int, fired: np.ndarray, start: int) -> int:
    """Write which of ``spikes[begin:end]`` are not zero, from 0, to ``fired[start:]``; how many."""
    first, last, at = np.uint64(begin), np.uint64(end), np.uint64(start)
    count = np.uint64(0)
    for i in range(first, last):
        # Without a branch, which would often be guessed wrong; so there is room for one more.
        fired[at + count] = i - first
        count += np.uint64(spikes[i] != 0)
    return int(count)


@_compiled
def passed_on(
    fired: np.ndarray,
    count: int,
    channels: int,
    begins: np.ndarray,
    runs: np.ndarray,
    weight: np.ndarray,
    drive: np.ndarray,
    start: int,
) -> None:
    """Add to ``drive[start:]`` what the first `count` senders of `fired` send.

    The `channels` at one place reach the runs ``begins[place]`` to ``begins[place + 1]``, each with
    its own part of `weight`; see `compilers.execution.compiled.reach.Reach`.
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
            if both:
                for i in range(length):
                    drive[at + i] += weight[one + own + i] + weight[two + own + i]
            else:
                for i in range(length):
                    drive[at + i] += weight[one + own + i]
        k += np.uint64(2) if both else ONE


@_compiled
def gained(sums: np.ndarray, gain: int, bits: int, drive: np.ndarray, start: int) -> None:
    """Add `sums` times `gain`, shifted to the right by `bits` and rounded, to ``drive[start:]``."""
    kind = drive.dtype.type
    at: Any = np.uint64(start)
    half = kind((1 << bits) >> 1)
    for i in range(np.uint64(len(sums))):
        drive[at + i] += kind(kind(sums[i] * gain) + half) >> bits


@_compiled
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
            passed_on(fired, count, len(weights), begins, runs, flat, sums, 0)
            gained(sums, gain, bits, to, n * receivers)


@_compiled
def count_fired(
    fired: np.ndarray,
    count: int,
    weight: int,
    each: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Add `weight` to the `sums` of the first `count` of `fired`; set `counts` (3,).

    To how many they are, and to the sums of what `each` (neurons, 2) says of them.
    """
    first, second = 0.0, 0.0
    for k in range(np.uint64(count)):
        sums[fired[k]] += weight
        first += each[fired[k], 0]
        second += each[fired[k], 1]
    counts[0], counts[1], counts[2] = count, first, second


@_compiled
def fire(
    membrane: np.ndarray,
    current: np.ndarray,
    spikes: np.ndarray,
    begin: int,
    end: int,
    levels: np.ndarray,
    hard: bool,
) -> None:
    """Move the membranes `begin` to `end` by their currents within their levels, and let them fire.

    `levels` are the lowest and the highest value and the threshold; a spike costs the threshold, a
    `hard` one all that is there.
    """
    low, high, one = levels
    kind = membrane.dtype.type
    for i in range(np.uint64(begin), np.uint64(end)):
        moved = min(max(kind(membrane[i] + current[i]), low), high)
        fires = moved >= one
        spikes[i] = fires
        cost = moved if hard else one
        membrane[i] = kind(moved - cost) if fires else moved


@_compiled
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


@_compiled
def relax(current: np.ndarray, drive: np.ndarray, begin: int, end: int, part: float) -> None:
    """``u + part (I - u)`` in floating point, of the neurons `begin` to `end`."""
    for i in range(np.uint64(begin), np.uint64(end)):
        current[i] += part * (drive[i] - current[i])


@_compiled
def step(
    drive: np.ndarray,
    current: np.ndarray,
    plain: np.ndarray,
    membrane: np.ndarray,
    spikes: np.ndarray,
    leaks: np.ndarray,
    ends: np.ndarray,
    levels: np.ndarray,
    hard: bool,
    saturated: np.ndarray,
) -> None:
    """`leak` and `fire` of one population, (N * neurons,) each; `saturated` (N,) grows."""
    size = len(drive) // len(saturated)
    for n in range(len(saturated)):
        begin, end = n * size, (n + 1) * size
        saturated[n] += leak(current, plain, drive, begin, end, leaks, ends)
        fire(membrane, plain, spikes, begin, end, levels, hard)


@_compiled
def run_phase(
    layout: Layout,
    ends: np.ndarray | None,
    state: State,
    output: int,
    nudges: np.ndarray,
    counting: np.ndarray,
    each: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    updates: np.ndarray,
    saturations: np.ndarray,
) -> None:
    """Run all samples through the steps of a phase; `state` and the last four change in place.

    Parameters
    ----------
    layout : Layout
    ends : (P, 2) or None
        See `leak`; None in floating point, of which other code is compiled.
    state : State
    output, nudges : int, (N, 2, outputs)
        The population that is nudged, and how much where it did not and where it did just spike.
    counting : (steps,)
        What a spike of each step adds to `sums` (N, T).
    each : (T, 2)
        What a spike of each neuron adds to the last two of `counts` (N, steps, P, 3); the first is
        the number of spikes.
    updates : (N, P)
        Grows by the membranes that change from the second step on; (0, P) if nobody asks.
    saturations : (P,)
        Grows by the currents that met an end of their format.
    """
    spans, wires, gains = layout.spans, layout.wires, layout.gains
    fired, told = np.empty(spans[-1, 1] + 1, np.uint64), np.zeros(len(spans), np.int64)
    drive, scratch = np.empty_like(sums[0]), np.empty_like(sums[0])
    before = np.empty_like(state.v[0])
    for n in range(len(sums)):
        u, plain, v, z = state.u[n], state.plain[n], state.v[n], state.z[n]
        weighed = sums[n]
        for p in range(len(spans)):
            told[p] = listed(z, spans[p, 0], spans[p, 1], fired, spans[p, 0])
        for t in range(len(counting)):
            for i in range(len(drive)):
                drive[i] = state.constant[n, i]
            for q in range(len(wires)):
                pre, post, channels, places, stop, first, last = wires[q]
                if told[pre] == 0:
                    continue
                begin, end = spans[post]
                own = layout.begins[places:stop]
                weights, sent = layout.weights[first:last], fired[spans[pre, 0] :]
                if ends is None:
                    passed_on(sent, told[pre], channels, own, layout.runs, weights, drive, begin)
                else:
                    gain, bits = gains[q]
                    alone = gain != 1 or bits > 0
                    to = scratch if alone else drive
                    if alone:
                        to[begin:end] = 0
                    passed_on(sent, told[pre], channels, own, layout.runs, weights, to, begin)
                    if alone:
                        gained(scratch[begin:end], gain, bits, drive, begin)
            begin, end = spans[output]
            for i in range(begin, end):
                drive[i] += nudges[n, int(z[i]), i - begin]
            for p in range(len(spans)):
                begin, end = spans[p]
                if ends is None:
                    relax(plain, drive, begin, end, layout.leaks[p, 0])
                else:
                    saturations[p] += leak(u, plain, drive, begin, end, layout.leaks[p], ends[p])
                if len(updates):
                    for i in range(begin, end):
                        before[i] = v[i]
                fire(v, plain, z, begin, end, layout.levels[p], layout.hard[p])
                if len(updates) and t:
                    for i in range(begin, end):
                        updates[n, p] += v[i] != before[i]
                told[p] = listed(z, begin, end, fired, begin)
                count_fired(
                    fired[begin:],
                    told[p],
                    counting[t],
                    each[begin:],
                    weighed[begin:],
                    counts[n, t, p],
                )
