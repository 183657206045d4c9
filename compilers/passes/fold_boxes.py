"""fold_boxes: every bounded population moves to graph units, where its box is [0, 1]."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compilers.ir.graph import Graph, Population, Projection, Readout
from compilers.ir.operators import apply
from compilers.ir.weight_grid import single


def fold_boxes(graph: Graph) -> Graph:
    """Write each state as ``real = lo + h z``, ``h = hi - lo``, and rewrite what touches it.

    ``scale`` takes the factor ``h_pre / h_post``, the bias becomes
    ``(b + sum scale * op(W, lo_pre) - lo_post) / h_post``, and the readout leads back to real
    units. Weights stay as they are, so tied projections stay tied. Linear populations and
    sources keep their units (``lo = 0``, ``h = 1``). At rest a state stands at ``z = 0``, the
    lower end of its box.
    """
    arrays = dict(graph.arrays)
    populations = []
    for p in graph.populations:
        bias = _folded_bias(graph, p)
        name = p.bias if bias is None else f"bias/{p.name}"
        if bias is not None:
            arrays[f"bias/{p.name}"] = bias
        populations.append(_folded(p, name))
    projections = tuple(_rescaled(graph, p) for p in graph.projections)
    return graph.with_arrays(populations=tuple(populations), projections=projections, arrays=arrays)


def _unit(p: Population) -> tuple[float, float]:
    """Offset and height of the box, ``(lo, h)``; (0, 1) for a population without one."""
    return (0.0, 1.0) if p.box is None else (p.box[0], p.box[1] - p.box[0])


def _folded(p: Population, bias: str | None) -> Population:
    lo, height = _unit(p)
    readout = Readout(p.readout.offset + p.readout.gain * lo, p.readout.gain * height)
    box = None if p.box is None else (0.0, 1.0)
    return replace(p, box=box, readout=readout, bias=bias)


def _rescaled(graph: Graph, p: Projection) -> Projection:
    pre, post = (_unit(graph.population(name))[1] for name in (p.pre, p.post))
    return replace(p, scale=p.scale * pre / post)


def _folded_bias(graph: Graph, p: Population) -> np.ndarray | None:
    """Bias in graph units, float32 of the full shape; None if it is what it was."""
    lo, height = _unit(p)
    offsets = {q.name: _unit(q)[0] for q in graph.populations}
    lifted = [q for q in graph.into(p.name) if offsets[q.pre] != 0]
    if (lo, height) == (0.0, 1.0) and not lifted:
        return None
    total = np.zeros(p.shape) if p.bias is None else graph.arrays[p.bias].astype(np.float64)
    for q in lifted:
        constant = np.full((1, *graph.population(q.pre).shape), offsets[q.pre])
        total = total + q.scale * apply(q.operator, graph.arrays[q.weight], constant, p.shape)[0]
    return np.ascontiguousarray(single((total - lo) / height), np.float32)
