"""The compiled loop over the steps of spiking neurons, in integers and in floating point."""

from __future__ import annotations

import numpy as np

from compilers.execution.compiled.sums import (
    Layout,
    State,
    compiled,
    gained,
    leak,
    listed,
    passed_on,
    relax,
)


@compiled
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


@compiled
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


@compiled
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


@compiled
def run_spiking(
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
                    passed_on(
                        sent, None, told[pre], channels, own, layout.runs, weights, drive, begin
                    )
                else:
                    gain, bits = gains[q]
                    alone = gain != 1 or bits > 0
                    to = scratch if alone else drive
                    if alone:
                        to[begin:end] = 0
                    passed_on(sent, None, told[pre], channels, own, layout.runs, weights, to, begin)
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
