"""quantize: integer weights, biases and leaks, with powers of two wherever they suffice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compilers.ir import graph as ir
from compilers.ir.weight_grid import integer_gain, to_grid
from ep_neuro.errors import GraphError

_NOTE = "quantisation"

MESSAGE_FRAC = 8
"""Fractional bits of graded messages by default."""


FEW_BITS = 5
"""Bits of a weight below which every channel gets its exponent."""

UNEVEN = 0.03
"""Share of its size that a channel may lose, mean over channels, to an exponent for all of them.

Trained gains and whitening kernels reach it: their small channels would be left a few levels.
"""


def quantize(
    graph: ir.Graph,
    bits: int = 8,
    state: ir.FixedPoint = ir.FixedPoint(24, 16),  # noqa: B008 - frozen
    message_frac: int = MESSAGE_FRAC,
    per_channel: bool | None = None,
    headroom: int = 0,
) -> ir.Graph:
    """Replace every number of `graph` by an integer; `compilers.ir.graph` says how they compute.

    Parameters
    ----------
    graph : Graph
        Encoded, with boxes folded.
    bits : int
        Bits of a weight, sign included, 2 to 16; the range is symmetric.
    state : FixedPoint
        Format of membranes and drives.
    message_frac : int
        Fractional bits of graded messages; spikes are 0 or 1.
    per_channel : bool, optional
        One exponent per output channel instead of one per weight; None: below `FEW_BITS`, and for
        a weight whose channels would lose `UNEVEN` of their size, and twice as much as with
        exponents of their own.
    headroom : int
        Bits that stay free above the largest weight, for weights that are still to grow: learning
        from scratch needs 1 or 2.

    Raises
    ------
    GraphError
        If a format is impossible, a bias exceeds the state's range, or the graph is quantised
        differently already.

    Notes
    -----
    A weight is ``q * 2**E`` with the ``E`` of least squared error; clipping a few large weights
    to represent the many small ones better is part of that choice.
    """
    _refuse_formats(bits, state, message_frac, headroom)
    if per_channel is None and bits < FEW_BITS:
        per_channel = True
    note = f"{bits} bits, state {state.bits}.{state.frac}, messages .{message_frac}"
    note += {None: "", True: ", per channel", False: ", one exponent a weight"}[per_channel]
    note += f", headroom {headroom}" if headroom else ""
    if graph.quantised:
        if graph.provenance.get(_NOTE) == note:
            return graph
        found = graph.provenance.get(_NOTE, "an unknown format")
        raise GraphError(
            f"graph '{graph.name}'",
            f"is quantised already ({found})",
            "quantise the graph in floating point",
        )
    arrays = dict(graph.arrays)
    populations = tuple(_quantized(p, state, message_frac, arrays) for p in graph.populations)
    exponents: dict[str, int] = {}
    for weight in graph.ties:
        arrays[weight], exponents[weight], shifts = quantize_weight(
            graph.arrays[weight], bits - headroom, per_channel
        )
        if shifts is not None:
            arrays[f"exponent/{weight}"] = shifts
    formats = {p.name: p.message for p in populations}
    projections = tuple(
        _rescaled(p, exponents[p.weight], formats[p.pre], state, arrays) for p in graph.projections
    )
    return graph.with_arrays(
        populations=populations,
        projections=projections,
        arrays=arrays,
        provenance={**graph.provenance, _NOTE: note, "bits": str(bits)},
    )


def _refuse_formats(bits: int, state: ir.FixedPoint, message_frac: int, headroom: int) -> None:
    if not 2 <= bits <= 16:
        raise GraphError("weight bits", f"{bits} is not in 2 to 16", "give 8, for instance")
    if not 0 <= headroom <= bits - 2:
        problem = f"headroom {headroom} is not in 0 to {bits - 2}"
        raise GraphError(f"weights of {bits} bits", problem, "leave at least 2 bits for the weight")
    if not 0 <= message_frac < state.frac < state.bits - 1 or state.bits > 32:
        raise GraphError(
            "number formats",
            f"messages with {message_frac} fractional bits, state {state.bits}.{state.frac}",
            "keep 0 <= message_frac < state.frac < state.bits - 1, and at most 32 state bits",
        )


def _quantized(
    p: ir.Population, state: ir.FixedPoint, message_frac: int, arrays: dict[str, np.ndarray]
) -> ir.Population:
    graded = ir.FixedPoint(state.bits - state.frac + message_frac, message_frac)
    if isinstance(p.dynamics, ir.Source):
        return replace(p, message=graded)
    if p.bias is not None:
        arrays[p.bias] = _quantized_bias(p, arrays[p.bias], state)
    leak = max(1, round(p.dynamics.leak * (1 << ir.LEAK_BITS))) / (1 << ir.LEAK_BITS)
    message = ir.FixedPoint(2, 0) if isinstance(p.dynamics, ir.Spiking) else graded
    dynamics = replace(p.dynamics, leak=leak)
    return replace(p, dynamics=dynamics, state=state, message=message)


def _quantized_bias(p: ir.Population, bias: np.ndarray, state: ir.FixedPoint) -> np.ndarray:
    values = np.rint(bias.astype(np.float64) * state.one)
    low, high = state.range
    if values.size and not (low <= values.min() and values.max() <= high):
        raise GraphError(
            f"bias of population '{p.name}'",
            f"{np.abs(bias).max():g}, with what the boxes and the mean of its inputs add, "
            f"exceeds the state's range of {high / state.one:g}",
            "use fewer fractional bits of state (--state-frac), or smaller weights into it",
        )
    return values.astype(np.int32)


def _rescaled(
    p: ir.Projection,
    exponent: int,
    message: ir.FixedPoint | None,
    state: ir.FixedPoint,
    arrays: dict[str, np.ndarray],
) -> ir.Projection:
    assert message is not None
    gain = p.scale * 2.0 ** (exponent - message.frac + state.frac)
    shifts = f"exponent/{p.weight}"
    return replace(p, rescale=rescale_of(gain), exponent=shifts if shifts in arrays else None)


def rescale_of(gain: float) -> ir.Rescale:
    """The integer gain nearest to `gain`; its multiplier is 1 for a power of two."""
    return ir.Rescale(*integer_gain(gain))


def quantize_weight(
    weight: np.ndarray, bits: int, per_channel: bool | None
) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Integers ``q``, exponent ``E`` and shifts ``e`` with ``weight ~ (q << e) * 2**E``.

    ``q`` is int32 of the weight's shape; ``e`` is int32 with one value per output channel
    (axis 0), or None when all are zero. See `quantize` for `per_channel`.
    """
    weight = weight.astype(np.float64)
    q, exponents = to_grid(weight, bits, bool(per_channel))
    if per_channel is None:
        own = to_grid(weight, bits, True)
        lost = _lost(weight, q, exponents)
        if lost > UNEVEN and lost > 2 * _lost(weight, *own):
            q, exponents = own
    base = int(exponents.min())
    shifts = (exponents - base).astype(np.int32)
    return q.astype(np.int32), base, shifts if shifts.any() else None


def _lost(weight: np.ndarray, q: np.ndarray, exponents: np.ndarray) -> float:
    """Share of its size that a channel loses, mean over the channels that are not zero."""
    whole = weight.reshape(len(weight), -1)
    error = np.linalg.norm(q.reshape(whole.shape) * 2.0 ** exponents[:, None] - whole, axis=1)
    size = np.linalg.norm(whole, axis=1)
    return float((error[size > 0] / size[size > 0]).mean()) if size.any() else 0.0
