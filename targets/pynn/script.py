"""The PyNN script of a graph, and the file of the synapses that it makes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from compilers.ir.graph import Graph, Projection
from targets.interface.fanout import sites

SCRIPT, NETWORK = "pynn_network.py", "pynn_network.npz"
"""Names of the script and of its network, where nobody gives it others."""

_PARTS = Path(__file__).with_name("parts.py.txt")


def script(graph: Graph, file: str = SCRIPT, network: str = NETWORK) -> str:
    """The script of `graph`, which `PynnBackend.check` has let pass."""
    (source,) = graph.sources
    output = graph.population(graph.output)
    values = {
        "NAME": graph.name,
        "FILE": json.dumps(file, ensure_ascii=False)[1:-1],
        "NETWORK": repr(network),
        "STEPS": graph.phases[0].steps,
        "INPUT": (source.name, source.size),
        "SIZES": {p.name: p.size for p in graph.neurons},
        "READOUT": (output.name, output.readout.offset, output.readout.gain),
        "PROJECTIONS": [(p.pre, p.post) for p in graph.projections],
    }
    # At once, as the name of a file may hold such a word.
    return re.sub(r"@([A-Z]+)@", lambda found: str(values[found[1]]), _PARTS.read_text("utf-8"))


def network_file(graph: Graph) -> bytes:
    """Biases by population, and synapses (pre, post, weight) by projection, as an .npz file."""
    found: dict[str, Any] = {f"synapses/{p.name}": _synapses(graph, p) for p in graph.projections}
    for p in graph.neurons:
        bias = np.zeros(p.size) if p.bias is None else graph.arrays[p.bias].ravel()
        found[f"bias/{p.name}"] = bias.astype(np.float64)
    stream = io.BytesIO()
    np.savez(stream, **found)
    return stream.getvalue()


def _synapses(graph: Graph, p: Projection) -> np.ndarray:
    """One row a synapse: index of the pre and of the post neuron, and the weight."""
    rows = [np.stack([pre, post, p.scale * weight], 1) for pre, post, weight in sites(graph, p)]
    return np.concatenate(rows)
