"""The Brian2 script of a graph: the generated network, and parts that every network shares."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np

from compilers.ir.graph import Graph
from targets.brian2.codegen.equations import (
    names,
    neurons,
    sites,
    synapses,
    synapses_name,
    synapses_per_sample,
)

SCRIPT = "brian2_network.py"
"""Name of the script in a program's ``files``."""

PROGRAM_WEIGHTS = "../arrays.safetensors"
"""Where that script finds its weights."""

FLAGS = ["-w", "-O3", "-std=c++11", "-ffp-contract=off"]
"""Of the compiler. No -ffast-math: thresholds are compared with sums that are exactly rounded."""

CACHED = 250_000
"""Synapses of the samples that C++ settles side by side, at 24 bytes each. Four samples of
`digits_residual` took 1.9 times as long side by side as one after another."""

_PARTS = Path(__file__).parent / "parts.py.txt"

_HEAD = '''\
"""{name} ({encoding}) in Brian2. Written by ep-neuro; needs brian2 and numpy only.

    python {file} INPUT.npy OUTPUT.npz [--target TARGET.npy] [--steps {steps}] [--runtime]

INPUT.npy holds samples of shape {shape}, one after another. All settle in one run, so many side by
side and batch after batch: C++ that is compiled in the folder brian2_build first, or NumPy with
--runtime. With targets of shape (samples, {outputs}) the nudged phases follow. `settle` says what
OUTPUT.npz holds; from Python, call it.

Every population steps at once, {dt} ms a step: messages of one step arrive at the next. Each
coupling is one Synapses object, and its weights serve both directions. The input is constant, so
what it drives is a constant too.
"""

import argparse
import json
import math
from pathlib import Path

import brian2 as b2
import numpy as np
from brian2 import EventMonitor, Network, NeuronGroup, SpikeMonitor, StateMonitor, Synapses
from brian2 import TimedArray, ms
from brian2.devices.cpp_standalone.device import CPPStandaloneDevice

WEIGHTS = Path(__file__).resolve().parent / {weights!r}

# No -ffast-math: thresholds are compared with sums that are exactly rounded.
b2.prefs.codegen.cpp.extra_compile_args_gcc = {flags}

DT = {dt} * ms
INPUT = {shape}
OUTPUT, READOUT = {output!r}, {readout}  # offset and gain of real units
SIZES = {sizes}
BATCH = {batch}  # samples side by side in C++: their synapses fit into a cache
'''


def script(graph: Graph, file: str = SCRIPT, weights: str = PROGRAM_WEIGHTS) -> str:
    """The script of `graph`, which has one input and is not quantised.

    Parameters
    ----------
    graph : Graph
        In floating point, all projections with a delay of one step.
    file : str
        Name that the script will have.
    weights : str
        Path of the weights, from the folder of the script.
    """
    (source,) = graph.sources
    output = graph.population(graph.output)
    head = _HEAD.format(
        name=graph.name,
        encoding=graph.encoding,
        file=json.dumps(file, ensure_ascii=False)[1:-1],
        weights=weights,
        steps=graph.phases[0].steps,
        flags=FLAGS,
        shape=source.shape,
        outputs=output.size,
        dt=graph.timestep * 1e3,
        output=output.name,
        readout=(output.readout.offset, output.readout.gain),
        sizes={p.name: p.size for p in graph.neurons},
        batch=side_by_side(graph),
    )
    parts = [head.rstrip(), _phases(graph), "", _drives(graph), "", _build(graph), ""]
    return "\n".join([*parts, _PARTS.read_text("utf-8")])


def side_by_side(graph: Graph) -> int:
    """Samples that C++ settles side by side, so that their synapses fit into a cache."""
    return max(1, CACHED // max(1, synapses_per_sample(graph)))


def weights_file(graph: Graph) -> bytes:
    """Weights and biases of `graph` as an .npz file."""
    stream = io.BytesIO()
    write_arrays(stream, graph.arrays)
    return stream.getvalue()


def write_arrays(file: Any, arrays: Mapping[str, Any]) -> None:
    """Write `arrays` by name to an .npz file, open or by its path."""
    np.savez(file, **arrays)


def _phases(graph: Graph) -> str:
    lines = [f"    {p.name!r}: ({p.steps}, {p.nudge!r}, {p.start!r})," for p in graph.phases]
    title = "# Steps, nudging factor, and the phase that it goes on from (None: from rest)."
    return "\n".join([title, "PHASES = {", *lines, "}", ""])


def _drives(graph: Graph) -> str:
    """The function that computes the constant drive of each population."""
    (source,) = graph.sources
    lines = [
        "def drives(x, W):",
        '    """Bias and input of each population, (samples, neurons)."""',
    ]
    lines += ["    none = np.zeros((len(x), 1))", "    return {"]
    for p in graph.neurons:
        terms = [f"np.zeros({p.size})" if p.bias is None else f"W[{p.bias!r}].ravel()"]
        for edge in graph.into(p.name):
            if edge.pre == source.name:
                called = sites(graph, edge)
                weight = f"W[{edge.weight!r}]"
                terms.append(f"{edge.scale!r} * through(x, {weight}, {called}, {p.size})")
        lines.append(f"        {p.name!r}: none + {' + '.join(terms)},")
    return "\n".join([*lines, "    }", ""])


def _build(graph: Graph) -> str:
    """The function that makes the groups and synapses."""
    called, found = names(graph), graph.tied(recurrent=True)
    lines = [
        "def build(batch, W, period):",
        '    """Groups by population, and synapses, of so many samples that run side by side.',
        "",
        "    After `period` steps the next samples take their place.",
        '    """',
    ]
    for text in (neurons(graph, p, called) for p in graph.neurons):
        lines.append(indent(text, "    ", _code) + "\n")
    for text in (synapses(graph, tie, called) for tie in found):
        lines.append(indent(text, "    ", _code) + "\n")
    groups = ", ".join(f"{p.name!r}: p_{called[p.name]}" for p in graph.neurons)
    joined = ", ".join(synapses_name(tie, called) for tie in found)
    lines.append(f"    groups = {{{groups}}}\n    return groups, [{joined}]\n")
    return "\n".join(lines)


def _code(line: str) -> bool:
    return bool(line.strip())
