"""From a NIR graph made elsewhere to a network with an energy, or one line on why it has none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import nir
import numpy as np
import torch

from ep_neuro.energy.spec import INPUT, CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import SpecError
from ep_neuro.network.checkpoint import Model
from ep_neuro.network.network import Network
from targets.nir.files import read_nir
from targets.nir.linear_nodes import Drive, drives
from targets.nir.shapes import shaped

SYMMETRY = 1e-5
"""Largest difference between a weight and its transpose, in units of the largest entry: float32
weights that passed through other tools agree to about 1e-7."""

Box = tuple[float, float] | None

WHY_NOT: Mapping[type, str] = {
    nir.LIF: "it fires and resets: its rate is no clipped sum of its inputs",
    nir.CubaLIF: "it fires and resets: its rate is no clipped sum of its inputs",
    nir.IF: "it fires and resets to a fixed value, which loses what exceeds the threshold",
    nir.I: "it integrates without a leak: it has no fixed point",
}
"""Why neurons of these types have no energy of a `NetworkSpec`."""


@dataclass(frozen=True)
class _Neurons:
    """A population that was found: its node, the name it gets, and the drive that it settles to."""

    node: str
    name: str
    box: Box
    drive: Drive


def import_nir(path: str | Path, box: Box = None) -> Model:
    """The network in NIR file `path`; see `network_of`."""
    network = network_of(read_nir(path), _legal(Path(path).stem), box)
    return Model(network, {"imported_from": Path(path).name})


def network_of(net: nir.NIRGraph, name: str = "imported", box: Box = None) -> Network:
    """The energy-based network whose fixed points are those of `net`.

    At rest an ``LI`` or ``CubaLI`` holds ``v = v_leak + r w_in I``, whatever its time constants; if
    the couplings among them are symmetric, that is where an energy is stationary. Symmetric up to
    one positive unit a population is enough: states then come out in other units, the output in
    its own. Populations and couplings are flat and dense, since biases are one per neuron.

    Parameters
    ----------
    net : NIRGraph
        One input, one output, leaky integrators joined by linear nodes.
    name : str
        Name of the spec.
    box : (float, float), optional
        Box of populations whose metadata names none; None keeps them linear, as NIR has them.

    Raises
    ------
    SpecError
        If `net` has no such energy: spiking neurons, asymmetric weights, one-way couplings, a
        population that feeds itself, an operation that is not linear.
    """
    net = shaped(net)
    source = _single(net, nir.Input, "input")
    found = _populations(net, box)
    output = _output(net, found)
    found = _rescaled(found, _units(found, output))
    couplings, weights = _couplings(source, found)
    spec = NetworkSpec(
        name=name,
        input=InputSpec(shape=_input_shape(net.nodes[source])),
        populations=tuple(
            PopulationSpec(name=p.name, shape=(len(p.drive.bias),), box=p.box) for p in found
        ),
        couplings=tuple(couplings),
        output=output,
        cost="cross-entropy" if net.metadata.get("cost") == "cross-entropy" else "squared-error",
    )
    network = Network(spec)
    with torch.no_grad():
        for key, weight in weights.items():
            network.weights[key].copy_(torch.from_numpy(weight))
        for p in found:
            network.biases[p.name].copy_(torch.from_numpy(p.drive.bias))
    return network


def _populations(net: nir.NIRGraph, box: Box) -> list[_Neurons]:
    found, names = [], {INPUT}
    # Before any matrix is built: what no rewriting of a linear node would change.
    for node, neuron in net.nodes.items():
        if type(neuron) in WHY_NOT:
            problem = f"{type(neuron).__name__}: {WHY_NOT[type(neuron)]}"
            raise SpecError(f"node '{node}'", problem, "use leaky integrators (LI)")
    for node, drive in drives(net).items():
        neuron = net.nodes[node]
        if isinstance(neuron, nir.Output):
            continue
        name = _legal(node)
        while name in names:
            name += "_"
        names.add(name)
        found.append(_Neurons(node, name, _noted_box(neuron, node, box), _at_rest(neuron, drive)))
    if not found:
        raise SpecError("NIR graph", "it has no neurons", "give it leaky integrators (LI)")
    return found


def _noted_box(neuron: nir.NIRNode, node: str, box: Box) -> Box:
    """The box in the metadata of `neuron`; `box` if there is none."""
    own = neuron.metadata.get("box")
    if own is None:
        return box
    ends = np.ravel(own)
    if ends.dtype.kind not in "fiu" or ends.size != 2:
        problem = f"the box in its metadata is {own}, not two numbers"
        raise SpecError(f"node '{node}'", problem, "note its two ends, or none")
    return float(ends[0]), float(ends[1])


def _at_rest(neuron: nir.NIRNode, drive: Drive) -> Drive:
    """``v_leak + r w_in I``: what the membrane tends to under the current `drive`."""
    gain = np.asarray(neuron.r, np.float64).ravel()
    if isinstance(neuron, nir.CubaLI):
        gain = gain * np.asarray(neuron.w_in, np.float64).ravel()
    bias = np.asarray(neuron.v_leak, np.float64).ravel() + gain * drive.bias
    return Drive({k: gain[:, None] * w for k, w in drive.weights.items()}, bias)


def _units(found: list[_Neurons], output: str) -> dict[str, float]:
    """Units of the states, by node, in which couplings are symmetric if they can be; output 1.

    ``W_qp = c W_pq^T`` becomes symmetric where the unit of q is sqrt(c) times that of p.
    """
    (start,) = (p for p in found if p.name == output)
    units, frontier = {start.node: 1.0}, [start]
    while frontier:
        p = frontier.pop(0)
        for q in found:
            there, back = q.drive.weights.get(p.node), p.drive.weights.get(q.node)
            if q.node in units or there is None or back is None:
                continue
            ratio = float((there * back.T).sum() / max(float((back**2).sum()), 1e-300))
            units[q.node] = units[p.node] * (ratio**0.5 if ratio > 0 else 1.0)
            frontier.append(q)
    return units


def _rescaled(found: list[_Neurons], units: Mapping[str, float]) -> list[_Neurons]:
    """`found` with the state of each neuron in its unit."""
    rescaled = []
    for p in found:
        unit = units.get(p.node, 1.0)
        weights = {k: w * (units.get(k, 1.0) / unit) for k, w in p.drive.weights.items()}
        box = None if p.box is None else (p.box[0] / unit, p.box[1] / unit)
        rescaled.append(replace(p, box=box, drive=Drive(weights, p.drive.bias / unit)))
    return rescaled


def _couplings(
    source: str, found: list[_Neurons]
) -> tuple[list[CouplingSpec], dict[str, np.ndarray]]:
    """Couplings and their weights by name; each pair counts once, in the order of `found`."""
    couplings: list[CouplingSpec] = []
    weights: dict[str, np.ndarray] = {}

    def add(pre: str, post: str, weight: np.ndarray) -> None:
        couplings.append(CouplingSpec(pre=pre, post=post))
        weights[couplings[-1].name] = weight.astype(np.float32)

    for number, p in enumerate(found):
        if source in p.drive.weights:
            add(INPUT, p.name, p.drive.weights[source])
        if p.node in p.drive.weights:
            problem = "it feeds itself, and a coupling joins two populations"
            raise SpecError(f"node '{p.node}'", problem, "split it in two, or drop the loop")
        for q in found[number + 1 :]:
            weight = _symmetric(p, q)
            if weight is not None:
                add(p.name, q.name, weight)
    return couplings, weights


def _symmetric(p: _Neurons, q: _Neurons) -> np.ndarray | None:
    """The weight from `p` to `q` if the way back is its transpose; None if they are apart."""
    there, back = q.drive.weights.get(p.node), p.drive.weights.get(q.node)
    if there is None and back is None:
        return None
    pair = f"nodes '{p.node}' and '{q.node}'"
    if there is None or back is None:
        start, end = (p, q) if back is None else (q, p)
        problem = f"'{start.node}' drives '{end.node}' and nothing leads back"
        raise SpecError(pair, problem, "add the transposed weight from the one to the other")
    scale = max(float(np.abs(there).max()), float(np.abs(back).max()))
    difference = float(np.abs(there - back.T).max())
    # Negated, so that NaN is refused too.
    if not difference <= SYMMETRY * scale:
        problem = f"weights differ from their transpose by up to {difference:.3g} of {scale:.3g}"
        raise SpecError(pair, problem, "make them symmetric: only then is there an energy")
    return (there + back.T) / 2


def _output(net: nir.NIRGraph, found: list[_Neurons]) -> str:
    node = _single(net, nir.Output, "output")
    before = [pre for pre, post in net.edges if post == node]
    names = {p.node: p.name for p in found}
    if len(before) != 1 or before[0] not in names:
        problem = f"it reads {', '.join(before) or 'nothing'}, not one population of neurons"
        raise SpecError(f"node '{node}'", problem, "let it follow the last population")
    return names[before[0]]


def _single(net: nir.NIRGraph, kind: type, what: str) -> str:
    names = [name for name, node in net.nodes.items() if isinstance(node, kind)]
    if len(names) != 1:
        raise SpecError("NIR graph", f"it has {len(names)} {what}s, not 1", "merge or drop some")
    return names[0]


def _input_shape(node: nir.Input) -> tuple[int, ...]:
    """The shape that samples have: what an export noted, as it may have written the input flat."""
    shape = tuple(int(n) for n in node.input_type["input"])
    noted = np.ravel(node.metadata.get("shape", shape))
    if noted.dtype.kind in "iu" and noted.min() > 0 and noted.prod() == np.prod(shape):
        shape = tuple(map(int, noted))
    return shape if 1 <= len(shape) <= 3 else (int(np.prod(shape)),)


def _legal(name: str) -> str:
    """`name` as a spec may have it: letters, digits and underscores, a letter first."""
    legal = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return legal if legal[:1].isalpha() else f"n{legal}"
