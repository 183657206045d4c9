"""The compiled loop over the steps of graded neurons in integers, which pass on what changes."""

from __future__ import annotations

import numpy as np

from compilers.execution.compiled.sums import (
    Layout,
    State,
    changed,
    compiled,
    gained,
    leak,
    passed_on,
)
from compilers.ir.graph import LEAK_BITS


@compiled
def changed_currents(
    messages: np.ndarray,
    heard: np.ndarray,
    sums: np.ndarray,
    begins: np.ndarray,
    runs: np.ndarray,
    weights: np.ndarray,
    gain: int,
    bits: int,
    drive: np.ndarray,
) -> None:
    """Add to `drive` (N, receivers) what `messages` (N, senders) send; see `passed_on`, `gained`.

    `sums` (N, receivers) are those of what was `heard` (N, senders) before, and become those of
    `messages`. `weights` are (channels, ...).
    """
    rows, senders = messages.shape
    flat = weights.ravel()
    fired, values = np.empty(senders + 1, np.uint64), np.empty(senders + 1, sums.dtype)
    for n in range(rows):
        count = changed(messages[n], heard[n], 0, senders, fired, values, 0)
        passed_on(fired, values, count, len(weights), begins, runs, flat, sums[n], 0)
        gained(sums[n], gain, bits, drive[n], 0)


@compiled
def show(
    membrane: np.ndarray,
    plain: np.ndarray,
    states: np.ndarray,
    begin: int,
    end: int,
    fine: int,
    levels: np.ndarray,
) -> None:
    """Set ``states[begin:end]`` to membranes in units of messages, rounded, within their box.

    `levels` are its ends, and the bits that a membrane has and a message has not; `plain` is what
    `membrane` holds but for its `fine` fractional bits, or all where there are none.
    """
    low, high, finer = levels[0], levels[1], int(levels[2])
    kind = states.dtype.type
    if finer <= 0:
        for i in range(np.uint64(begin), np.uint64(end)):
            states[i] = min(max(kind(plain[i] << -finer), low), high)
        return
    held, bits = (membrane, fine + finer) if fine > 0 else (plain, finer)
    half = kind((1 << bits) >> 1)
    for i in range(np.uint64(begin), np.uint64(end)):
        states[i] = min(max(kind(held[i] + half) >> bits, low), high)


@compiled
def relaxed(
    drive: np.ndarray,
    membrane: np.ndarray,
    plain: np.ndarray,
    states: np.ndarray,
    leaks: np.ndarray,
    ends: np.ndarray,
    levels: np.ndarray,
    saturated: np.ndarray,
) -> None:
    """`leak` and `show` of one population, (N * neurons,) each; `saturated` (N,) grows."""
    size = len(drive) // len(saturated)
    for n in range(len(saturated)):
        begin, end = n * size, (n + 1) * size
        saturated[n] += leak(membrane, plain, drive, begin, end, leaks, ends)
    show(membrane, plain, states, 0, len(drive), leaks[1], levels)


@compiled
def count_sent(
    states: np.ndarray,
    fired: np.ndarray,
    values: np.ndarray,
    count: int,
    each: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Correct `counts` (3,), of the `states` that are not zero, by the first `count` changes.

    They are how many those are, and the sums of what `each` (neurons, 2) says of them.
    """
    for k in range(np.uint64(count)):
        i = fired[k]
        more = int(states[i] != 0) - int(states[i] != values[k])
        counts[0] += more
        counts[1] += more * each[i, 0]
        counts[2] += more * each[i, 1]


@compiled
def run_graded(
    layout: Layout,
    ends: np.ndarray,
    state: State,
    output: int,
    targets: np.ndarray,
    beta: int,
    silent: bool,
    each: np.ndarray,
    before: np.ndarray,
    counts: np.ndarray,
    updates: np.ndarray,
    saturations: np.ndarray,
) -> None:
    """Run all samples through the steps of a phase; `state` and the last four change in place.

    Parameters
    ----------
    layout : Layout
    ends : (P, 2)
        Of the formats of membranes.
    state : State
    output, targets, beta : int, (N, outputs), int
        The population that is nudged, to where in units of its membrane, and how much, in units of
        ``2**-LEAK_BITS``; (N, 0) if none is.
    silent : bool
        Nothing has been sent yet.
    each : (T, 2)
        What a message of each neuron adds to the last two of `counts` (N, steps, P, 3); the first
        is the number of messages that are not zero.
    before : (N, T)
        Will be the states before the last step.
    updates : (N, P)
        Grows by the membranes that change from the second step on; (0, P) if nobody asks.
    saturations : (P,)
        Grows by the membranes that met an end of their format.
    """
    spans, wires, gains, levels = layout.spans, layout.wires, layout.gains, layout.levels
    size, steps = spans[-1, 1], counts.shape[1]
    fired, values = np.empty(size + 1, np.uint64), np.empty(size + 1, gains.dtype)
    heard, held = np.empty(size, state.z.dtype), np.empty(size, state.z.dtype)
    sums = np.empty((len(wires), size), gains.dtype)
    told, totals = np.zeros(len(spans), np.int64), np.zeros((len(spans), 3))
    for n in range(len(before)):
        v, plain, z, drive = state.v[n], state.plain[n], state.z[n], state.drive[n]
        heard[:] = 0
        sums[:] = 0
        totals[:] = 0
        told[:] = 0
        if not silent:
            for p in range(len(spans)):
                begin, end = spans[p]
                told[p] = changed(z, heard, begin, end, fired, values, begin)
                own = fired[begin:], values[begin:]
                count_sent(z[begin:end], *own, told[p], each[begin:], totals[p])
        for t in range(steps):
            for i in range(size):
                drive[i] = state.constant[n, i]
            if t == steps - 1:
                before[n] = z
            for q in range(len(wires)):
                pre, post, channels, places, stop, first, last = wires[q]
                begin, end = spans[post]
                if told[pre]:
                    sent = fired[spans[pre, 0] :], values[spans[pre, 0] :], told[pre]
                    where = layout.begins[places:stop], layout.runs, layout.weights[first:last]
                    passed_on(*sent, channels, *where, sums[q], begin)
                gained(sums[q, begin:end], gains[q, 0], gains[q, 1], drive, begin)
            if targets.shape[1]:
                begin, end = spans[output]
                finer = int(levels[output, 2])
                for i in range(begin, end):
                    shown = z[i] << finer if finer > 0 else (z[i] + (1 << -finer >> 1)) >> -finer
                    drive[i] += (targets[n, i - begin] - shown) * beta >> LEAK_BITS
            for p in range(len(spans)):
                begin, end = spans[p]
                if len(updates):
                    held[begin:end] = plain[begin:end]
                saturations[p] += leak(v, plain, drive, begin, end, layout.leaks[p], ends[p])
                if len(updates) and t:
                    for i in range(begin, end):
                        updates[n, p] += plain[i] != held[i]
                show(v, plain, z, begin, end, layout.leaks[p, 1], levels[p])
                told[p] = changed(z, heard, begin, end, fired, values, begin)
                own = fired[begin:], values[begin:]
                count_sent(z[begin:end], *own, told[p], each[begin:], totals[p])
                counts[n, t, p] = totals[p]
