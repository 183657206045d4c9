"""What other tools make of one network's NIR files: how often they answer as we do.

    python examples/nir_readers.py [MODEL] [--data digits] [--limit N] [--readers sinabs ...]

MODEL is a directory that `train` wrote; by default `zoo:digits_dense` is trained first. Writes one
file for each reader (`compile --target nir --option reader=...`), loads it in the reader's own
package, and steps it as long as our executor, with the reset that it has so. A reader that is not
installed is passed over; `pip install --no-deps nirtorch sinabs pbr norse snntorch rockpool nengo`
brings them all, 9 MB, without another torch, and without the older nir and the drivers that sinabs
and rockpool ask for.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch

import compilers
import ep_neuro as ep
import targets
from compilers.learning.traces import spike_weights
from ep_neuro.data import datasets
from targets.nir.backend import BACKEND
from targets.nir.readers import READERS

Load = Callable[[nir.NIRGraph, int], torch.nn.Module]
"""What loads a graph for so many samples."""


class LeakyIntegrator(torch.nn.Module):
    """What a user of nirtorch writes for ``LI``: forward Euler, and the box from the metadata."""

    def __init__(self, node: nir.LI, clip: bool) -> None:
        super().__init__()
        box = node.metadata.get("box") if clip else None
        self.box = (-np.inf, np.inf) if box is None else tuple(map(float, box))
        self.tau, self.r, self.v_leak = map(torch.tensor, (node.tau, node.r, node.v_leak))

    def forward(self, x: torch.Tensor, state: torch.Tensor | None = None) -> Any:
        v = torch.zeros_like(self.tau) if state is None else state
        v = v + (self.v_leak - v + self.r * x) / self.tau
        return v.clamp(*self.box), v


def affine(node: nir.Affine) -> torch.nn.Linear:
    """The default map of nirtorch 2.6 leaves the bias at its random start."""
    layer = torch.nn.Linear(*node.weight.shape[::-1])
    layer.weight.data, layer.bias.data = torch.tensor(node.weight), torch.tensor(node.bias)
    return layer


def nirtorch(clip: bool) -> Load:
    def load(graph: nir.NIRGraph, samples: int) -> torch.nn.Module:
        known = {nir.LI: lambda node: LeakyIntegrator(node, clip), nir.Affine: affine}
        return importlib.import_module("nirtorch").nir_to_torch(graph, known)

    return load


def sinabs(graph: nir.NIRGraph, samples: int) -> torch.nn.Module:
    return importlib.import_module("sinabs.nir").from_nir(graph, batch_size=samples)


def rockpool(graph: nir.NIRGraph, samples: int) -> torch.nn.Module:
    return importlib.import_module("rockpool.nn.modules.torch.nir").from_nir(graph)


class Nengo(torch.nn.Module):
    """A Nengo model wired as NIR's example does: each edge into an ``LI`` through its filter."""

    def __init__(self, graph: nir.NIRGraph, clip: bool) -> None:
        super().__init__()
        nengo = importlib.import_module("nengo")
        self.x, parts, filters = np.zeros(0), {}, {}
        with nengo.Network() as model:
            for name, node in graph.nodes.items():
                size = int(np.prod(node.input_type["input"]))
                if isinstance(node, nir.Input):
                    parts[name] = nengo.Node(lambda t: self.x, size_out=size)
                elif isinstance(node, nir.Affine):
                    parts[name] = nengo.Node(_affine(node), size_in=size)
                else:
                    box = node.metadata.get("box") if clip else None
                    held = None if box is None else lambda t, v, box=box: np.clip(v, *box)
                    parts[name] = nengo.Node(held, size_in=size)
                if isinstance(node, nir.LI):
                    filters[name] = nengo.synapses.Lowpass(float(node.tau[0]))
            for pre, post in graph.edges:
                nengo.Connection(parts[pre], parts[post], synapse=filters.get(post))
                if isinstance(graph.nodes[post], nir.Output):
                    self.shown = nengo.Probe(parts[pre])
            self.simulator = nengo.Simulator(model, READERS["nengo"].dt, progress_bar=False)

    def run(self, x: np.ndarray, steps: int) -> np.ndarray:
        """Output after each step, (T, classes), of one sample x (pixels,)."""
        self.x = x
        self.simulator.reset()
        self.simulator.run_steps(steps, progress_bar=False)
        return np.array(self.simulator.data[self.shown])


def _affine(node: nir.Affine) -> Callable[[float, np.ndarray], np.ndarray]:
    return lambda t, x: np.asarray(node.weight @ x + node.bias)


def nengo(clip: bool) -> Load:
    return lambda graph, samples: Nengo(graph, clip)


def norse(soft: bool) -> Load:
    def load(graph: nir.NIRGraph, samples: int) -> torch.nn.Module:
        reset = importlib.import_module("norse.torch.functional.reset")
        how = {"reset_method": reset.reset_subtract} if soft else {}
        return importlib.import_module("norse.torch").from_nir(graph, **how)

    return load


def snntorch(soft: bool) -> Load:
    def load(graph: nir.NIRGraph, samples: int) -> torch.nn.Module:
        model = importlib.import_module("snntorch.import_nir").import_from_nir(graph)
        for layer in model.modules():
            if soft and hasattr(layer, "reset_mechanism"):
                layer.reset_mechanism = "subtract"
        return model

    return load


ROWS: tuple[tuple[str, str, Load, str | None], ...] = (
    ("nirtorch", "graded, with `LI` and its box mapped by hand", nirtorch(clip=True), None),
    ("nirtorch", "graded, without the box", nirtorch(clip=False), None),
    ("nengo", "graded, with its box in a node by hand", nengo(clip=True), None),
    ("nengo", "graded, without the box", nengo(clip=False), None),
    ("sinabs", "as it is", sinabs, "soft"),
    ("rockpool", "as it is", rockpool, "soft"),
    ("norse", "`reset_method=reset_subtract`", norse(soft=True), "soft"),
    ("norse", "as it is", norse(soft=False), "hard"),
    ("snntorch", "`reset_mechanism = 'subtract'`", snntorch(soft=True), "soft"),
    ("snntorch", "as it is", snntorch(soft=False), "hard"),
)
"""Tool, how its file is loaded, what loads it, and the reset that it has so; None: graded."""


def stepped(model: torch.nn.Module, x: torch.Tensor, steps: int, output: str) -> np.ndarray:
    """Output after each step, (T, N, classes), with the same input at every step.

    The older executor of nirtorch, which sinabs, norse and rockpool load into, gives what the node
    that it ran last gave, which is not the output where the input enters two populations.
    """
    state, outputs = None, []
    with torch.no_grad():
        for _ in range(steps):
            out, state = model(x, state)[:2]
            out = getattr(state, "cache", {}).get(output, out)
            outputs.append(out.flatten(1).numpy().copy())
    return np.stack(outputs)


def outputs_of(tool: str, load: Load, graph: nir.NIRGraph, x: np.ndarray, steps: int) -> np.ndarray:
    """Outputs of `graph` in `tool`, (T, N, classes); samples x (N, ...) in any shape."""
    (output,) = (pre for pre, post in graph.edges if isinstance(graph.nodes[post], nir.Output))
    shape = [int(n) for n in graph.nodes["input"].input_type["input"]]
    flat = np.asarray(x, np.float32).reshape(len(x), -1)
    wide = np.zeros((len(flat), int(np.prod(shape))), np.float32)
    # A file whose input is wider has the biases from the last, which is 1.
    wide[:, -1] = 1
    wide[:, : flat.shape[1]] = flat
    inputs = torch.tensor(wide).reshape(-1, *shape)
    with contextlib.redirect_stdout(io.StringIO()):
        model = load(graph, len(inputs))
    if isinstance(model, Nengo):
        return np.stack([model.run(one.numpy().ravel(), steps) for one in inputs], 1)
    if tool != "rockpool":
        return stepped(model, inputs, steps, output)
    found = []
    for one in inputs:
        for layer in model.modules():
            if hasattr(layer, "reset_state"):
                layer.reset_state()
        found.append(stepped(model, one[None, None], steps, output))
    return np.concatenate(found, 1)


def measured(
    model: Any, tool: str, load: Load, reset: str | None, x: np.ndarray, leak: float
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs in `tool` and in our own executor, (N, classes) each, in units of the graph."""
    graded = reset is None
    how: dict[str, Any] = {"code": "graded"}
    if tool in READERS:
        how |= {"options": {"reader": tool}}
    if not graded:
        how |= {"code": "spike", "parameters": {"reset": reset}}
    program = compilers.compile(model, BACKEND, leak=leak, **how)
    with tempfile.TemporaryDirectory() as folder:
        BACKEND.export(program, Path(folder) / "net.nir")
        graph = nir.read(Path(folder) / "net.nir")
    steps = program.graph.phases[0].steps
    found = outputs_of(tool, load, graph, x, steps)
    weights = None if graded else spike_weights(steps, from_rest=True)
    found = found[-1] if graded else np.average(found, 0, weights)
    readout = program.graph.population(program.graph.output).readout
    with targets.open(program) as session:
        ours = session.settle(x).free.outputs.reshape(len(x), -1)
    return found, (ours - readout.offset) / readout.gain


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", metavar="MODEL")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--readers", nargs="*", default=[row[0] for row in ROWS])
    parser.add_argument("--leak", type=float, default=0.5)
    args = parser.parse_args()
    model: Any = (
        ep.train(ep.read_config("zoo:digits_dense")).model
        if args.model is None
        else importlib.import_module("ep_neuro.network.checkpoint").load_model(args.model)
    )
    test = datasets.load(args.data, args.data_root).test.head(args.limit)
    torch.set_num_threads(1)
    print("| reader | loaded | our answers | right (ours) | largest difference |")
    print("|---|---|---|---|---|")
    for tool, how, load, reset in ROWS:
        if tool not in args.readers:
            continue
        if None in map(importlib.util.find_spec, (tool, "nirtorch")):
            print(f"| {tool} | {how} | it or nirtorch is not installed | | |")
            continue
        found, ours = measured(model, tool, load, reset, test.x, args.leak)
        answers, own = found.argmax(1), ours.argmax(1)
        right = f"{(answers == test.y).mean():.1%} ({(own == test.y).mean():.1%})"
        name = f"{tool} {importlib.metadata.version(tool)}"
        difference = np.abs(found - ours).max()
        print(f"| {name} | {how} | {(answers == own).mean():.1%} | {right} | {difference:.2g} |")


if __name__ == "__main__":
    main()
