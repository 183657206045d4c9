"""Traces: what every population did at every step for a few samples, in one .npz file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from compilers.ir.graph import Graded, Graph, Population, SigmaDelta
from ep_neuro.data.datasets import Split
from ep_neuro.errors import DataError
from ep_neuro.storage.atomic import write_file
from targets.interface.session import Session

MARKER = b"synops/"
"""What tells a trace: arrays of such names."""

TRACE_SAMPLES = 4
"""Samples in a trace: enough to look at, while every state of every step fits in memory."""


def traced(population: Population) -> tuple[str, ...]:
    """Variables of `population` that a trace holds: its state, and its messages if they differ."""
    if isinstance(population.dynamics, Graded):
        return ("z",)
    return ("z", "message") if isinstance(population.dynamics, SigmaDelta) else ("v", "message")


def write_trace(
    session: Session, graph: Graph, split: Split, path: str | Path, *, steps: int | None = None
) -> None:
    """Settle the first `TRACE_SAMPLES` of `split` freely and write what happened, step by step.

    The .npz file replaces an older trace. Its arrays, for N samples over T steps:
    ``events/POPULATION`` and ``synops/POPULATION`` (T, N); ``states/POPULATION.VARIABLE``
    (T, N, *shape), float32 or, quantised, integers of the graph; ``inputs`` (N, *shape), ``labels``
    (N,), ``outputs`` (N, *shape) in real units.

    Raises
    ------
    DataError
        If `path` cannot be written, or something else stands there.
    """
    split = split.head(TRACE_SAMPLES)
    probes = [f"{p.name}.{variable}" for p in graph.neurons for variable in traced(p)]
    free = session.settle(split.x, steps=steps, probes=probes).free
    arrays: dict[str, Any] = {
        "inputs": split.x,
        "labels": split.y,
        "outputs": free.outputs,
        **{f"events/{name}": counts for name, counts in free.events.items()},
        **{f"synops/{name}": counts for name, counts in free.synops.items()},
        **{
            f"states/{name}": values.astype(np.float32) if values.dtype.kind == "f" else values
            for name, values in free.probes.items()
        },
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_file(path, buffer.getvalue(), DataError, marker=MARKER, subject=f"trace {path}")
