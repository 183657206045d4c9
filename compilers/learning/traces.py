"""Traces: what a synapse sees of its ends, as numbers or in integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compilers.ir.graph import Population, Spiking
from compilers.ir.integers import nearest

MEAN_FRAC = 8
"""Fractional bits of the trace of a spiking neuron, which is a mean over steps."""

Traces = Mapping[str, np.ndarray]
"""Traces by population, each (N, *shape)."""


def trace_frac(p: Population) -> int:
    """Fractional bits of the trace of `p` in a graph of integers."""
    return MEAN_FRAC if isinstance(p.dynamics, Spiking) or p.message is None else p.message.frac


def trace_offset(p: Population, integer: bool) -> float:
    """Offset of the box in units of its height, ``offset / gain``, as the trace counts it."""
    offset = p.readout.offset / p.readout.gain
    return int(nearest(offset * (1 << trace_frac(p)))) if integer else offset


def trace_unit(p: Population, integer: bool) -> float:
    """What one unit of the trace of `p` stands for, in real units."""
    return p.readout.gain * (2.0 ** -trace_frac(p) if integer else 1.0)


def spike_weights(steps: int, from_rest: bool) -> np.ndarray:
    """What a spike at each step counts in a trace and in the readout, (steps,) whole numbers.

    A triangle over the phase, or over its last half where it starts at rest and not in a settled
    state. The soft reset keeps what a spike is too large or too small by, so that a neuron is a
    first-order sigma-delta modulator, and a triangle the window that decodes one best: what the
    ends of a plain mean cut off is an error of 1/n, here they count least (Candy 1986,
    "Decimation for sigma delta modulation").
    """
    skipped = steps // 2 if from_rest else 0
    rising = np.arange(1, steps - skipped + 1)
    return np.concatenate([np.zeros(skipped, np.int64), np.minimum(rising, rising[::-1])])


def trace(p: Population, shown: np.ndarray, window: int = 1) -> np.ndarray:
    """The trace of `p` as float64: whole numbers in a graph of integers.

    Parameters
    ----------
    p : Population
    shown : ndarray, (N, *shape)
        What the neuron has sent: its message, the sum of its messages, or of a spiking neuron its
        spikes, each with its weight (`spike_weights`).
    window : int
        Sum of these weights.
    """
    integer = p.message is not None
    if isinstance(p.dynamics, Spiking):
        if not integer:
            shown = shown / window
        else:
            shown = ((shown.astype(np.int64) << (MEAN_FRAC + 1)) + window) // (2 * window)
    return np.asarray(shown + trace_offset(p, integer), np.float64)
