"""The compiled loop over the steps of spiking neurons in whole numbers.

Few neurons spike in a step: sums cost what their spikes reach and not what there are weights. They
are exact in any order, so that this comes to the same bits as the steps of the executor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., object])


class Layout(NamedTuple):
    """P populations and Q projections, one after the other, T neurons in all.

    Attributes
    ----------
    spans : (P, 2)
        Begin and end of each population in a row of neurons.
    leaks : (P, 2)
        What of a current leaks in a step, and the unit that its drive is in; 0 if all leaks.
    levels, hard : (P, 3), (P,)
        See `fire`.
    wires : (Q, 7)
        Of each projection: sender and receiver, channels of the sender, which part of `begins` and
        which of `weights` is its own.
    begins, runs : ndarray
        Where spikes arrive, see `passed_on`.
    factors : (Q,)
        What sums are multiplied by and then rounded; 0 if they are in the receiver's units.
    weights : ndarray
    """

    spans: np.ndarray
    leaks: np.ndarray
    levels: np.ndarray
    hard: np.ndarray
    wires: np.ndarray
    begins: np.ndarray
    runs: np.ndarray
    factors: np.ndarray
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
def listed(spikes: np.ndarray, begin: int, end: int, fired: np.ndarray) -> int:
    """Write which of ``spikes[begin:end]`` are not zero, from 0, to `fired`; how many they are."""
    first, last = np.uint64(begin), np.uint64(end)
    count = np.uint64(0)
    for i in range(first, last):
        # Without a branch, which would often be guessed wrong; so there is room for one more.
        fired[first + count] = i - first
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
    its own part of `weight`; see `compilers.execution.spiking.Reach`.
    """
    many, each = np.uint64(channels), np.uint64(len(weight) // channels)
    for k in range(np.uint64(count)):
        place, channel = fired[k] // many, fired[k] % many
        for run in range(np.uint64(begins[place]), np.uint64(begins[place + ONE])):
            at: Any = np.uint64(start + runs[run, 0])
            own: Any = channel * each + np.uint64(runs[run, 1])
            for i in range(np.uint64(runs[run, 2])):
                drive[at + i] += weight[own + i]


@_compiled
def fire(
    membrane: np.ndarray,
    current: np.ndarray,
    spikes: np.ndarray,
    levels: np.ndarray,
    hard: bool,
) -> None:
    """Move `membrane` by `current` within its levels, and take off it what its `spikes` cost.

    `levels` are the lowest and the highest value and the threshold; a spike costs the threshold, a
    `hard` one all that is there.
    """
    low, high, one = levels
    nothing = one - one
    for i in range(len(membrane)):
        moved = min(max(membrane[i] + current[i], low), high)
        fires = moved >= one
        spikes[i] = fires
        cost = moved if hard else one
        membrane[i] = moved - (cost if fires else nothing)


@_compiled
def leak(
    current: np.ndarray, plain: np.ndarray, drive: np.ndarray, part: float, fine: float
) -> None:
    """``u + part (I - u)`` in units of ``1 / fine``, and what `plain` holds of it."""
    for i in range(len(drive)):
        current[i] += part * (drive[i] - plain[i])
        plain[i] = np.floor(current[i] * fine)


@_compiled
def run_phase(
    layout: Layout,
    state: State,
    output: int,
    nudges: np.ndarray,
    counting: np.ndarray,
    each: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    updates: np.ndarray,
) -> None:
    """Run all samples through the steps of a phase; `state` and the last three change in place.

    Parameters
    ----------
    layout : Layout
    state : State
    output, nudges : int, (2, N, outputs)
        The population that is nudged, and how much where it did not and where it did just spike.
    counting : (steps,)
        What a spike of each step adds to `sums` (N, T).
    each : (T, 3)
        What a spike of each neuron adds to `counts` (N, steps, P, 3).
    updates : (N, P)
        Grows by the membranes that change from the second step on; (0, P) if nobody asks.
    """
    spans, wires, factors, leaks = layout.spans, layout.wires, layout.factors, layout.leaks
    fired, told = np.empty(spans[-1, 1] + 1, np.uint64), np.zeros(len(spans), np.int64)
    drive, scratch = np.empty_like(sums[0]), np.empty_like(sums[0])
    half = scratch.dtype.type(0.5)
    for n in range(len(sums)):
        u, plain, v, z = state.u[n], state.plain[n], state.v[n], state.z[n]
        for p in range(len(spans)):
            told[p] = listed(z, spans[p, 0], spans[p, 1], fired)
        for t in range(len(counting)):
            drive[:] = state.constant[n]
            for q in range(len(wires)):
                pre, post, channels, places, ends, first, last = wires[q]
                if told[pre] == 0:
                    continue
                begin, end = spans[post]
                to = drive
                if factors[q] != 0:
                    to = scratch
                    to[begin:end] = 0
                passed_on(
                    fired[spans[pre, 0] :],
                    told[pre],
                    channels,
                    layout.begins[places:ends],
                    layout.runs,
                    layout.weights[first:last],
                    to,
                    begin,
                )
                if factors[q] != 0:
                    for i in range(begin, end):
                        drive[i] += np.floor(scratch[i] * factors[q] + half)
            begin, end = spans[output]
            for i in range(begin, end):
                drive[i] += nudges[int(z[i]), n, i - begin]
            for p in range(len(spans)):
                begin, end = spans[p]
                own, current = v[begin:end], drive[begin:end]
                if leaks[p, 1] != 0:
                    current = plain[begin:end]
                    leak(u[begin:end], current, drive[begin:end], leaks[p, 0], leaks[p, 1])
                before = own.copy() if len(updates) and t else own
                fire(own, current, z[begin:end], layout.levels[p], layout.hard[p])
                if len(updates) and t:
                    updates[n, p] += np.count_nonzero(own != before)
                told[p] = listed(z, begin, end, fired)
                for k in range(told[p]):
                    i = begin + np.int64(fired[begin + k])
                    sums[n, i] += counting[t]
                    for c in range(3):
                        counts[n, t, p, c] += each[i, c]
        for p in range(len(spans)):
            if leaks[p, 1] == 0:
                begin, end = spans[p]
                plain[begin:end] = u[begin:end] = drive[begin:end]
