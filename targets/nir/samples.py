"""NIRData beside a NIR file: what some samples put in at each step, and what shall come out."""

from __future__ import annotations

import io
import math
from pathlib import Path

import h5py
import nir
import numpy as np

import targets
from compilers.program import Program
from ep_neuro.data import datasets
from ep_neuro.errors import ProgramError
from ep_neuro.storage.atomic import write_file
from targets.nir.files import nodes_of
from targets.nir.readers import reader_of

MARKER = b"ep-neuro samples"
"""In each file, so that no other one is written over."""


def graph_data(program: Program, x: np.ndarray) -> nir.NIRGraphData:
    """Inputs and outputs of the free phase of `program` by node, (N, T, neurons) each.

    An input stands at each step; for a reader whose inputs are spikes it is the rate of spikes as
    even as steps allow, and the input that brings biases, if there is one, never rests. The outputs
    are the messages that our own executor sends for the graded input.

    Parameters
    ----------
    program : Program
    x : ndarray, (N, *input shape)
        In [0, 1] if the reader's inputs are spikes.
    """
    graph, name = program.graph, program.options.get("reader")
    (source,), output = graph.sources, graph.output
    with targets.open(program) as session:
        found = session.settle(x, probes=[f"{output}.message"]).free
    sent = np.moveaxis(found.probes[f"{output}.message"], 0, 1)
    steps = sent.shape[1]
    dt = 1.0 if name is None else reader_of(name).dt
    flat = np.asarray(x, np.float64).reshape(len(x), 1, -1)
    if name is not None and reader_of(name).events:
        due = np.floor(flat * np.arange(steps + 1)[:, None] + 0.5)
        inputs = np.diff(due, axis=1) > 0
    else:
        inputs = np.repeat(flat, steps, axis=1).astype(np.float32)
    wide = math.prod(map(int, nodes_of(graph, name).nodes[source.name].input_type["input"]))
    if (more := wide - flat.shape[2]) > 0:
        inputs = np.pad(inputs, ((0, 0), (0, 0), (0, more)))
        inputs[..., -1] = 1
    outputs = sent.reshape(len(x), steps, -1)
    if graph.encoding == "spike":
        outputs = outputs > 0
    return nir.NIRGraphData({source.name: _node(inputs, dt), output: _node(outputs, dt)})


def _node(values: np.ndarray, dt: float) -> nir.NIRNodeData:
    what = "spikes" if values.dtype == bool else "values"
    return nir.NIRNodeData({what: nir.TimeGriddedData(values, dt)})


def save_samples(program: Program, count: int, path: str | Path) -> None:
    """Write the first `count` test samples of the data that the model was trained on to `path`.

    Raises
    ------
    ProgramError
        If no data are noted, or the disk refuses.
    """
    data = program.provenance.get("data")
    if data is None:
        problem = "it does not say which data the model was trained on"
        raise ProgramError("option 'samples'", problem, "compile a model that `train` wrote")
    shape = datasets.image_shape(program.graph.sources[0].shape)
    resize = datasets.noted_resize(program.provenance)
    test = datasets.load(datasets.parse(data)[0], shape=shape, resize=resize).test.head(count)
    buffer = io.BytesIO()
    nir.write_data(buffer, graph_data(program, test.x.reshape(-1, *program.graph.sources[0].shape)))
    with h5py.File(buffer, "a") as file:
        file.attrs["written by"] = MARKER.decode()
    write_file(path, buffer.getvalue(), ProgramError, marker=MARKER)
