"""A Python script that builds a quantised graph as a Lava process graph, for Loihi2HwCfg.

One process for each population and each directed projection; the input, which is constant, enters
as a bias that the host computes. The script stands beside ``lava_processes.py`` in the program's
``files`` and reads the program's arrays.
"""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import indent

from compilers.hardware.limits import Violation
from compilers.ir.graph import (
    LEAK_BITS,
    Conv,
    ConvTranspose,
    DenseTranspose,
    Graph,
    Partial,
    Population,
    Projection,
    SigmaDelta,
    Spiking,
    Total,
)
from compilers.ir.operators import unsplit

NETWORK, PROCESSES = "lava_network.py", "lava_processes.py"
"""Names of the two files."""

_PROCESSES = Path(__file__).parent / "lava_processes.py.txt"

_HEAD = '''\
"""{name} as a Lava process graph: {encoding}, {bits}-bit weights. Written by ep-neuro.

    python lava_network.py INPUT.npy OUTPUT.npz [--steps {steps}] [--hardware]

It takes a Python 3.10 with lava-nc 0.10 and SciPy; ep-neuro is not needed.
INPUT.npy holds one sample of shape {shape}; OUTPUT.npz gets `output` and every `z` and `v`.
Without --hardware the network runs in integers on the CPU (Loihi2SimCfg), bit for bit what the
chip is asked to do; with it, on Loihi 2 (Loihi2HwCfg), which needs lava-loihi. Connections are
unrolled into Sparse processes. The placement that was planned is in placement.txt.
"""

import argparse
from pathlib import Path

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg
from lava_processes import {imports}

HERE = Path(__file__).resolve().parent


def build(x, arrays, steps):
    """All populations of the network by name, connected."""
'''

_TAIL = """

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default={steps})
    parser.add_argument("--hardware", action="store_true")
    args = parser.parse_args()
    arrays = load_arrays(HERE.parent / "arrays.safetensors")
    populations = build(np.load(args.input), arrays, args.steps)
    last = populations["{output}"]
    config = Loihi2HwCfg() if args.hardware else Loihi2SimCfg(select_tag="fixed_pt")
    last.run(condition=RunSteps(num_steps=args.steps), run_cfg=config)
    try:
        found = {{f"{{n}}.z": p.z.get() for n, p in populations.items()}}
        found |= {{f"{{n}}.v": p.v.get() for n, p in populations.items()}}
        shown = {shown}
    finally:
        last.stop()
    np.savez(args.output, output={offset} + {gain} * shown, **found)


if __name__ == "__main__":
    main()
"""


def unwritable(graph: Graph) -> list[Violation]:
    """What a graph may hold and the script cannot say."""
    found = [
        Violation(f"projection '{p.name}', delay", p.delay, 1, "give every projection one step")
        for p in graph.projections
        if p.delay > 1
    ]
    inputs = len(graph.sources)
    if inputs != 1:
        subject = f"graph '{graph.name}', inputs besides one"
        found.append(Violation(subject, abs(inputs - 1), 0, "give it one Source population"))
    return found


def lava_files(graph: Graph) -> dict[str, str]:
    """The script and its processes, by file name; `graph` has one input and is quantised."""
    return {NETWORK: network_script(graph), PROCESSES: _PROCESSES.read_text("utf-8")}


def network_script(graph: Graph) -> str:
    """Text of ``lava_network.py``."""
    (source,) = graph.sources
    steps, output = graph.phases[0].steps, graph.population(graph.output)
    assert source.message is not None
    assert output.message is not None
    kinds = {type(p.dynamics).__name__ for p in graph.neurons}
    helpers = {"connect", "conv_matrix", "load_arrays", "saturated", "shift_channels", "shifted"}
    helpers |= {"eye", "kron", "partial_sums"} if graph.split else set()
    body = [
        "# Messages of the input, held for the whole run: its drive is a constant bias.",
        f"x = saturated(np.floor(x.reshape(-1) * {source.message.one} + 0.5).astype(int), "
        f"{source.message.bits})",
        "W = dict(arrays)",
        *_exponents(graph),
        *(line for p in graph.neurons for line in _population(graph, p)),
        *(line for p in graph.projections if p.pre != source.name for line in _join(graph, p)),
        "return {" + ", ".join(f"{p.name!r}: {_variable(p)}" for p in graph.neurons) + "}",
    ]
    head = _HEAD.format(
        name=graph.name,
        encoding=graph.encoding,
        bits=graph.provenance.get("bits"),
        steps=steps,
        shape=source.shape,
        imports="(\n    " + ",\n    ".join(sorted(kinds | helpers)) + ",\n)",
    )
    mean = "last.total.get() / (args.steps - args.steps // 2)"
    tail = _TAIL.format(
        steps=steps,
        output=output.name,
        offset=output.readout.offset,
        gain=output.readout.gain,
        shown=mean
        if isinstance(output.dynamics, Spiking)
        else f"last.z.get() / {output.message.one}",
    )
    return head + indent("\n".join(body), "    ") + "\n" + tail


def _variable(population: Population) -> str:
    """A Python name for a population; bare, it could be a keyword."""
    return f"p_{population.name}"


def _exponents(graph: Graph) -> list[str]:
    pairs = sorted({(p.weight, p.exponent) for p in graph.projections if p.exponent})
    return [f"W[{w!r}] = shift_channels(W[{w!r}], arrays[{e!r}])" for w, e in pairs]


def _population(graph: Graph, population: Population) -> list[str]:
    """Lines that compute the constant drive of `population` and make its process."""
    name, kind = _variable(population), type(population.dynamics).__name__
    lines = ["", f"# {population.name}: {kind}, {population.shape}"]
    given = f"arrays[{population.bias!r}].reshape(-1)"
    lines.append(f"bias = {given if population.bias else f'np.zeros({population.size}, int)'}")
    sources = {p.name for p in graph.sources}
    for p in graph.into(population.name):
        if p.pre in sources:
            assert p.rescale is not None
            lines.append(f"matrix = {_matrix(graph, p)}")
            product = f"matrix @ x * {p.rescale.multiplier}"
            lines.append(f"bias = bias + shifted({product}, {p.rescale.shift})")
    settings = "".join(f"    {k}={v},\n" for k, v in _settings(population).items())
    call = f"{name} = {kind}(\n    name={name!r},\n    bias=bias,\n{settings})"
    return [*lines, *call.split("\n")]


def _settings(population: Population) -> dict[str, str]:
    state, message, dynamics = population.state, population.message, population.dynamics
    assert state is not None
    assert message is not None
    box = population.box
    settings = {
        "leak": str(round(getattr(dynamics, "leak", 1.0) * (1 << LEAK_BITS))),
        "box": str(None if box is None else tuple(round(e * message.one) for e in box)),
        "state_bits": str(state.bits),
        "state_frac": str(state.frac),
        "message_bits": str(message.bits),
        "message_frac": str(message.frac),
    }
    if isinstance(dynamics, SigmaDelta):
        settings["threshold"] = str((dynamics.start, dynamics.end, dynamics.decay))
    if isinstance(dynamics, Spiking):
        low, high = -dynamics.bound, 1 + dynamics.bound
        settings["start"] = str(state.one // 2)
        settings["bounds"] = str(tuple(math.floor(e * state.one + 0.5) for e in (low, high)))
        settings["count_after"] = "steps // 2"
    return settings


def _join(graph: Graph, p: Projection) -> list[str]:
    """Lines that connect the two populations of `p`."""
    pre, post = graph.population(p.pre), graph.population(p.post)
    assert p.rescale is not None
    assert pre.message is not None
    adds_up = isinstance(pre.dynamics, SigmaDelta)
    # Stock connections take 0 for binary spikes and a width for graded ones.
    width = 0 if isinstance(pre.dynamics, Spiking) else pre.message.bits
    return [
        "",
        f"# {p.name}",
        f"matrix = {_matrix(graph, p)}",
        "connect(",
        f"    {_variable(pre)}, {_variable(post)}, matrix, message_bits={width},",
        f"    multiplier={p.rescale.multiplier}, shift={p.rescale.shift}, adds_up={adds_up},",
        ")",
    ]


def _matrix(graph: Graph, p: Projection) -> str:
    """Expression of the matrix (post neurons, pre neurons) of `p`."""
    pre, post = graph.population(p.pre).shape, graph.population(p.post).shape
    weight = f"W[{p.weight!r}]" + ".T" * isinstance(unsplit(p.operator), DenseTranspose)
    match p.operator:
        case Conv(stride, padding):
            return f"conv_matrix({weight}, {stride}, {padding}, {pre}, {post})"
        case ConvTranspose(stride, padding):
            return f"conv_matrix({weight}, {stride}, {padding}, {post}, {pre}).T.tocsr()"
        case Partial(_, share):
            return f"partial_sums({weight}, {share})"
        case Total():
            return f"kron(eye({math.prod(post)}, dtype=int), {weight}, format='csr')"
        case _:
            return weight
