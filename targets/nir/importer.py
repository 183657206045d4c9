"""From a NIR graph made elsewhere to a network with an energy, or one line on why it has none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch

from compilers.execution.maps import Apply
from ep_neuro.energy.spec import INPUT, CouplingSpec, InputSpec, NetworkSpec, PopulationSpec, Shape
from ep_neuro.errors import SpecError
from ep_neuro.network.checkpoint import Model
from ep_neuro.network.network import Network
from targets.nir.couplings import Linked, linked
from targets.nir.files import read_nir
from targets.nir.kernel_shapes import PIXEL
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
    """A population that was found: its node, the name it gets, and the drive that it settles to.

    ``bias`` has one value a channel of `shape`; ``noted`` is its largest value in the file.
    """

    node: str
    name: str
    box: Box
    shape: Shape
    maps: Mapping[str, Apply]
    bias: np.ndarray
    noted: float


def import_nir(path: str | Path, box: Box = None) -> Model:
    """The network in NIR file `path`; see `network_of`."""
    network = network_of(read_nir(path), _legal(Path(path).stem), box)
    return Model(network, {"imported_from": Path(path).name})


def network_of(net: nir.NIRGraph, name: str = "imported", box: Box = None) -> Network:
    """The energy-based network whose fixed points are those of `net`.

    At rest an ``LI`` or ``CubaLI`` holds ``v = v_leak + r w_in I``, whatever its time constants; if
    the couplings among them are symmetric, that is where an energy is stationary. Symmetric up to
    one positive unit a population is enough: the output's is 1. What one convolution does between
    planes of neurons is one, all else a matrix. A population whose biases differ within a channel
    is flat, unless it is by what a mean of the input leaves at the border of a padded convolution.

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
    found = _read_out(net, found, output)
    shape = _input_shape(net.nodes[source])
    found, mean = _by_channel(found, source, shape)
    pairs = _pairs(found)
    units = _units(found, pairs, output)
    couplings, weights = _couplings(source, shape, found, pairs, units)
    spec = NetworkSpec(
        name=name,
        input=InputSpec(shape=shape, mean=mean),
        populations=tuple(
            PopulationSpec(name=p.name, shape=p.shape, box=p.box, unit=units[p.node]) for p in found
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
            network.biases[p.name].copy_(torch.from_numpy(p.bias * units[p.node]))
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
        rest = _at_rest(neuron, drive)
        shape, most = _noted_shape(neuron), float(np.abs(rest.bias).max())
        own = _noted_box(neuron, node, box)
        found.append(_Neurons(node, name, own, shape, rest.maps, rest.bias, most))
    if not found:
        raise SpecError("NIR graph", "it has no neurons", "give it leaky integrators (LI)")
    return found


def _noted_box(neuron: nir.NIRNode, node: str, box: Box) -> Box:
    """The box in the metadata of `neuron`; `box` if there is none."""
    return _two_noted(neuron, node, "box") or box


def _two_noted(neuron: nir.NIRNode, node: str, key: str) -> Box:
    """The two numbers that are `key` in the metadata of `neuron`; None if there are none."""
    own = neuron.metadata.get(key)
    if own is None:
        return None
    ends = np.ravel(own)
    if ends.dtype.kind not in "fiu" or ends.size != 2:
        problem = f"the {key} in its metadata is {own}, not two numbers"
        raise SpecError(f"node '{node}'", problem, "note both, or neither")
    return float(ends[0]), float(ends[1])


def _at_rest(neuron: nir.NIRNode, drive: Drive) -> Drive:
    """``v_leak + r w_in I``: what the membrane tends to under the current `drive`."""
    gain = np.asarray(neuron.r, np.float64).ravel()
    if isinstance(neuron, nir.CubaLI):
        gain = gain * np.asarray(neuron.w_in, np.float64).ravel()
    bias = np.asarray(neuron.v_leak, np.float64).ravel() + gain * drive.bias
    return Drive({k: _times(torch.from_numpy(gain), of) for k, of in drive.maps.items()}, bias)


def _read_out(net: nir.NIRGraph, found: Sequence[_Neurons], output: str) -> list[_Neurons]:
    """`found` with states of the output as its readout, if an export noted one, shows them."""
    node = _single(net, nir.Output, "output")
    offset, gain = _two_noted(net.nodes[node], node, "readout") or (0.0, 1.0)
    if not (math.isfinite(offset) and 0 < gain < math.inf):
        problem = f"its readout has the offset {offset:g} and the gain {gain:g}"
        raise SpecError(f"node '{node}'", problem, "note a finite offset and a gain above 0")
    (shown,) = (p for p in found if p.name == output)
    ends = shown.box and (offset + gain * shown.box[0], offset + gain * shown.box[1])
    ones = torch.ones(1, len(shown.bias), dtype=torch.float64)
    outputs = []
    for p in found:
        if p is shown:
            maps = {key: _times(gain, of) for key, of in p.maps.items()}
            p = replace(p, box=ends, maps=maps, bias=offset + gain * p.bias)
        elif shown.node in p.maps:
            back = _times(1 / gain, p.maps[shown.node])
            bias = p.bias - offset * back(ones)[0].numpy()
            p = replace(p, maps={**p.maps, shown.node: back}, bias=bias)
        outputs.append(p)
    return outputs


def _times(factor: float | torch.Tensor, of: Apply) -> Apply:
    return lambda x: factor * of(x)


def _by_channel(
    found: Sequence[_Neurons], source: str, shape: Shape
) -> tuple[list[_Neurons], tuple[float, ...] | None]:
    """`found` with a bias a channel, flat where there is none; and the mean of the input's channels
    if that is what makes biases differ near the border.
    """
    uneven = [p for p in found if len(p.shape) == 3 and np.ptp(_channels(p, p.bias), axis=1).any()]
    driven = [p for p in uneven if source in p.maps]
    mean = None
    if driven and len(shape) == 3:
        ones = torch.eye(shape[0], dtype=torch.float64).repeat_interleave(math.prod(shape[1:]), 1)
        reach = {p.node: p.maps[source](ones).numpy() for p in found if source in p.maps}
        spread = [_apart(p, reach[p.node]).reshape(shape[0], -1) for p in driven]
        wanted = [-_apart(p, p.bias[None]).ravel() for p in driven]
        fitted, *_ = np.linalg.lstsq(np.hstack(spread).T, np.hstack(wanted))
        if all(_even(p, p.bias + fitted @ reach[p.node]) for p in driven):
            mean = tuple(map(float, fitted))
            found = [
                replace(p, bias=p.bias + fitted @ reach[p.node]) if p.node in reach else p
                for p in found
            ]
    settled = [
        replace(p, bias=_channels(p, p.bias).mean(1))
        if len(p.shape) == 3 and _even(p, p.bias)
        else replace(p, shape=(len(p.bias),))
        for p in found
    ]
    return settled, mean


def _channels(p: _Neurons, values: np.ndarray) -> np.ndarray:
    return values.reshape(p.shape[0], -1)


def _apart(p: _Neurons, values: np.ndarray) -> np.ndarray:
    """How far `values` (N, size) are from the mean of their channel."""
    by_channel = values.reshape(len(values), p.shape[0], -1)
    return by_channel - by_channel.mean(-1, keepdims=True)


def _even(p: _Neurons, bias: np.ndarray) -> bool:
    """Whether `bias` is one a channel, to what float32 leaves of the largest that was noted."""
    return bool(np.ptp(_channels(p, bias), axis=1).max() <= SYMMETRY * p.noted)


def _pairs(found: Sequence[_Neurons]) -> dict[tuple[str, str], Linked]:
    """Weights between populations, by the nodes that they lead from and to.

    A convolution leads to where there are fewer pixels; all others in the order of `found`.
    """
    pairs = {}
    for number, p in enumerate(found):
        for q in found[number + 1 :]:
            if p.node in q.maps or q.node in p.maps:
                finer = len(p.shape) == len(q.shape) == 3 and q.shape[1:] > p.shape[1:]
                pre, post = (q, p) if finer else (p, q)
                ends = (pre.node, pre.shape), (post.node, post.shape)
                pairs[pre.node, post.node] = linked(
                    *ends, post.maps.get(pre.node), pre.maps.get(post.node)
                )
    return pairs


def _units(
    found: Sequence[_Neurons], pairs: Mapping[tuple[str, str], Linked], output: str
) -> dict[str, float]:
    """Sizes of states, by node, in which couplings are symmetric if they can be; the output's is 1.

    ``W_qp = c W_pq^T`` becomes symmetric where the unit of p is sqrt(c) times that of q.
    """
    (start,) = (p.node for p in found if p.name == output)
    units, frontier = {start: 1.0}, [start]
    while frontier:
        p = frontier.pop(0)
        for (pre, post), link in pairs.items():
            there, back = (link.there, link.back) if p == pre else (link.back, link.there)
            q = post if p == pre else pre
            if p not in (pre, post) or q in units or there is None or back is None:
                continue
            ratio = float((there * back).sum() / max(float((back**2).sum()), 1e-300))
            units[q] = _unit(units[p] / ratio**0.5 if ratio > 0 else units[p])
            frontier.append(q)
    return {p.node: units.get(p.node, 1.0) for p in found}


def _unit(size: float) -> float:
    """`size` as far as float32 weights know it: a power of two, by which they divide exactly, or
    nine digits."""
    exact = 2.0 ** round(math.log2(size))
    return exact if math.isclose(size, exact, rel_tol=1e-6) else float(f"{size:.9g}")


def _couplings(
    source: str,
    shape: Shape,
    found: Sequence[_Neurons],
    pairs: Mapping[tuple[str, str], Linked],
    units: Mapping[str, float],
) -> tuple[list[CouplingSpec], dict[str, np.ndarray]]:
    """Couplings and their weights in real units by name, in the order of `found`."""
    names = {p.node: p.name for p in found}
    couplings: list[CouplingSpec] = []
    weights: dict[str, np.ndarray] = {}

    def add(pre: str, post: str, link: Linked, weight: np.ndarray) -> None:
        how: dict[str, Any] = {}
        if link.conv is not None:
            how = {"kind": "conv", "kernel": weight.shape[-1], **vars(link.conv)}
        couplings.append(CouplingSpec(pre=pre, post=post, **how))
        weights[couplings[-1].name] = weight.astype(np.float32)

    for p in found:
        if source in p.maps:
            link = linked((source, shape), (p.node, p.shape), p.maps[source], None)
            assert link.there is not None
            add(INPUT, p.name, link, units[p.node] * link.there)
        if p.node in p.maps:
            problem = "it feeds itself, and a coupling joins two populations"
            raise SpecError(f"node '{p.node}'", problem, "split it in two, or drop the loop")
    for (pre, post), link in pairs.items():
        add(names[pre], names[post], link, _symmetric(pre, post, link, units))
    return couplings, weights


def _symmetric(pre: str, post: str, link: Linked, units: Mapping[str, float]) -> np.ndarray:
    """The weight from `pre` to `post` if the way back is its transpose."""
    subject = f"nodes '{pre}' and '{post}'"
    if link.there is None or link.back is None:
        start, end = (pre, post) if link.back is None else (post, pre)
        problem = f"'{start}' drives '{end}' and nothing leads back"
        raise SpecError(subject, problem, "add the transposed weight from the one to the other")
    there = link.there * (units[post] / units[pre])
    back = link.back * (units[pre] / units[post])
    scale = max(float(np.abs(there).max()), float(np.abs(back).max()))
    difference = float(np.abs(there - back).max())
    # Negated, so that NaN is refused too.
    if not difference <= SYMMETRY * scale:
        problem = f"weights differ from their transpose by up to {difference:.3g} of {scale:.3g}"
        raise SpecError(subject, problem, "make them symmetric: only then is there an energy")
    return (there + back) / 2


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
        remedy = "merge or drop some" if names else f"add an {what} node"
        raise SpecError("NIR graph", f"it has {len(names)} {what}s, not 1", remedy)
    return names[0]


def _input_shape(node: nir.Input) -> Shape:
    """The shape that samples have: what an export noted, as it may have written the input flat."""
    shape = tuple(int(n) for n in node.input_type["input"])
    noted = np.ravel(node.metadata.get("shape", shape))
    if (
        noted.dtype.kind in "iu"
        and noted.size
        and noted.min() > 0
        and noted.prod() == np.prod(shape)
    ):
        shape = tuple(map(int, noted))
    return shape if 1 <= len(shape) <= 3 else (int(np.prod(shape)),)


def _noted_shape(neuron: nir.NIRNode) -> Shape:
    """The planes that neurons lie on, by an export's note or their node; else flat."""
    shape = _input_shape(neuron)
    return shape if len(shape) == 3 and shape[1:] != PIXEL else (math.prod(shape),)


def _legal(name: str) -> str:
    """`name` as a spec may have it: letters, digits and underscores, a letter first."""
    legal = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return legal if legal[:1].isalpha() else f"n{legal}"
