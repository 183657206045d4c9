"""From a network to a graph: the last file of the compiler that knows torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from compilers.ir import graph as ir
from compilers.ir.operators import apply
from compilers.ir.weight_grid import single
from ep_neuro.deployment.lowering import refuse_unlowerable
from ep_neuro.deployment.nudgeable import SQUARED_ERROR
from ep_neuro.energy.spec import INPUT, POOL, CouplingSpec, InputSpec, NetworkSpec
from ep_neuro.network.network import Network

STEPS = 64
"""Steps of the free phase by default; a nudged phase takes half."""

BETA = 0.2
"""Nudging factor by default."""


def lower(network: Network, provenance: Mapping[str, str] | None = None) -> ir.Graph:
    """The graph of `network` in real units: couplings still symmetric, states graded.

    Normalisation ``(x - mean) / std`` moves into the weights and biases of the populations that
    the input reaches, so a target takes raw pixels. The bias is one per neuron for that: near a
    border a kernel covers fewer pixels, hence less of the mean. What learns sees the input in the
    real units of its readout, about normalised (`input_units`).

    A network whose cost no target nudges by (`ep_neuro.deployment.nudgeable`) gets the free phase
    alone.

    Parameters
    ----------
    network : Network
        Its parameters are copied as float32.
    provenance : mapping, optional
        Notes to keep with the graph, beside the network's name and hash.

    Raises
    ------
    GraphError
        For what a graph cannot say: smooth activations, max-pools, untied couplings, a readout.
    """
    whitened = sorted(f"weight/{c.name}" for c in network.spec.couplings if c.whiten)
    network = network.folded()
    spec = network.spec
    refuse_unlowerable(spec)
    weights = {c.name: _kernel(c, _numpy(network.weights[c.name])) for c in spec.couplings}
    biases = {p.name: _numpy(network.biases[p.name]) for p in spec.populations}
    notes = {"model": spec.name, "model.sha256": _digest(spec, weights, biases)}
    nudgeable = spec.cost == SQUARED_ERROR
    notes |= {} if nudgeable else {"cost": spec.cost}
    # The bias now takes off what this would make of every drive.
    notes |= {ir.INPUT_MEAN: json.dumps(spec.input.mean)} if spec.input.mean else {}
    notes |= {ir.WHITENED: json.dumps(whitened)} if whitened else {}
    arrays: dict[str, np.ndarray] = {}
    for p in spec.populations:
        arrays[f"bias/{p.name}"] = _expand(biases[p.name], p.shape)
    for c in spec.couplings:
        if c.pre == INPUT:
            weights[c.name], shift = _fold_normalisation(spec, c, weights[c.name])
            arrays[f"bias/{c.post}"] = single(arrays[f"bias/{c.post}"] + shift)
        arrays[f"weight/{c.name}"] = weights[c.name]
    return ir.Graph(
        name=spec.name,
        populations=_populations(spec),
        couplings=tuple(
            ir.Coupling(c.pre, c.post, _operator(c), f"weight/{c.name}") for c in spec.couplings
        ),
        phases=_phases(STEPS, STEPS // 2, BETA)[: None if nudgeable else 1],
        output=spec.output,
        provenance={**notes, **(provenance or {})},
        arrays={k: np.ascontiguousarray(a, np.float32) for k, a in arrays.items()},
    )


def _populations(spec: NetworkSpec) -> tuple[ir.Population, ...]:
    neurons = (
        ir.Population(p.name, p.shape, ir.Graded(), p.bounds, f"bias/{p.name}")
        for p in spec.populations
    )
    source = ir.Population(INPUT, spec.input.shape, ir.Source(), readout=input_units(spec.input))
    return (source, *neurons)


def input_units(spec: InputSpec) -> ir.Readout:
    """Real units of raw pixels: normalised by one mean and one power of two for all channels.

    Synapses that see centred inputs of unit size learn faster than those that see raw ones, whose
    mean drives all of them alike (LeCun et al. 1998, "Efficient BackProp", 4.3).
    """
    gain = 2.0 ** -round(np.log2(spec.std).mean()) if spec.std else 1.0
    return ir.Readout(-gain * float(np.mean(spec.mean or 0.0)), gain)


def _phases(steps: int, nudged_steps: int, beta: float) -> tuple[ir.Phase, ...]:
    return (
        ir.Phase("free", steps),
        ir.Phase("nudged+", nudged_steps, beta, "free", 1),
        ir.Phase("nudged-", nudged_steps, -beta, "free", -1),
    )


def _operator(c: CouplingSpec) -> ir.Dense | ir.Conv:
    if c.kind == "dense":
        return ir.Dense()
    return ir.Conv(c.stride * POOL if c.pool else c.stride, c.padding)


def _kernel(c: CouplingSpec, weight: np.ndarray) -> np.ndarray:
    """The weight of the operator: a mean of shifted kernels where the coupling pools.

    A 2x2 mean of a convolution of stride s is one convolution of stride 2 s, whose kernel is wider
    by s.
    """
    if c.pool is None:
        return weight
    rows, cols = weight.shape[2:]
    wide = np.zeros((*weight.shape[:2], rows + c.stride, cols + c.stride), weight.dtype)
    for i, j in np.ndindex(POOL, POOL):
        down, right = i * c.stride, j * c.stride
        wide[:, :, down : down + rows, right : right + cols] += weight / POOL**2
    return wide


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy().copy()


def _expand(per_channel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One value a channel as a float64 array of the full `shape`."""
    column = per_channel.astype(np.float64).reshape(-1, *[1] * (len(shape) - 1))
    return np.broadcast_to(column, shape)


def _fold_normalisation(
    spec: NetworkSpec, c: CouplingSpec, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weight for pixels in units of the input, and what the mean adds to the bias.

    ``(W / std, - W * (mean / std))``, the first one over the gain of `input_units`.
    """
    channels, shape = spec.input.shape[0], spec.input.shape
    mean = np.asarray(spec.input.mean or [0.0] * channels)
    std = np.asarray(spec.input.std or [1.0] * channels)
    w = weight.astype(np.float64)
    centre = _expand(mean / std, shape)[None]
    post = spec.shapes[c.post]
    shift = -apply(_operator(c), w, centre, post)[0]
    std = std * input_units(spec.input).gain
    if c.kind == "dense":
        return w / _expand(std, shape).reshape(1, -1), shift
    return w / std.reshape(1, -1, 1, 1), shift


def _digest(
    spec: NetworkSpec, weights: Mapping[str, np.ndarray], biases: Mapping[str, np.ndarray]
) -> str:
    sha = hashlib.sha256(spec.to_yaml().encode())
    for table in (weights, biases):
        for name in sorted(table):
            sha.update(name.encode() + table[name].tobytes())
    return sha.hexdigest()
