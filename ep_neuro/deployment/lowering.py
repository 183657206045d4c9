"""A network as its compiled graph holds it, in torch: folded, on the weight grid, with its leak."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ep_neuro.deployment.spectrum import Spectrum, ends_of_spectrum
from ep_neuro.deployment.weight_grid import integer_gain, per_channel_by_default, single, to_grid
from ep_neuro.energy.operators import Operators, adjoint, forward
from ep_neuro.energy.spec import INPUT, POOL, CouplingSpec, NetworkSpec
from ep_neuro.errors import GraphError
from ep_neuro.network.network import Network


@dataclass(frozen=True)
class Lowered:
    """What the compiler makes of a network, with every box folded to [0, 1].

    Attributes
    ----------
    couplings : tuple of CouplingSpec
        Average pools are part of the kernels.
    weights : dict of Tensor
        By coupling, float64; where they are quantised, the numbers that the integers stand for.
    held : dict of Tensor
        The same before they are quantised.
    biases : dict of Tensor, (*population shape)
        Graph units, float64.
    units : dict of (float, float)
        ``lo`` and ``h`` of each population with the input: ``real = lo + h z``.
    gains : dict of float
        What population ``post`` hears of ``pre`` is multiplied by ``gains[pre, post]``; where
        weights are quantised, by the nearest number that integers express.
    leak : float
        A multiple of ``2**-12``, stable by the spectrum of the recurrent drive.
    """

    couplings: tuple[CouplingSpec, ...]
    weights: dict[str, Tensor]
    held: dict[str, Tensor]
    biases: dict[str, Tensor]
    units: dict[str, tuple[float, float]]
    gains: dict[tuple[str, str], float]
    leak: float


def lower(
    network: Network, bits: int | None, maximum: float | Callable[[Spectrum], float]
) -> Lowered:
    """Lower `network` as `compilers` does: the same numbers, from float32 parameters.

    Parameters
    ----------
    network : Network
    bits : int, optional
        Bits of a weight; None for floating point.
    maximum : float
        Largest leak; stability may call for a smaller one.

    Raises
    ------
    GraphError
        For what a graph cannot say; see `refuse_unlowerable`.
    """
    network = network.folded()
    spec = network.spec
    refuse_unlowerable(spec)
    with torch.no_grad():
        couplings = tuple(_merged(c) for c in spec.couplings)
        weights = {c.name: _kernel(c, network.weights[c.name].float()) for c in spec.couplings}
        biases = {
            p.name: _per_channel(network.biases[p.name].float(), p.shape) for p in spec.populations
        }
        for c in couplings:
            if c.pre == INPUT:
                weights[c.name], shift = _without_normalisation(spec, c, weights[c.name])
                biases[c.post] = single(biases[c.post] + shift, torch)
        held = {k: w.float().double() for k, w in weights.items()}
        units = {INPUT: (0.0, 1.0), **{p.name: _unit(p.bounds) for p in spec.populations}}
        return Lowered(
            couplings=couplings,
            held=held,
            weights=held if bits is None else {k: quantised(w, bits) for k, w in held.items()},
            biases=_folded(spec, couplings, held, biases, units),
            units=units,
            gains=_gains(couplings, units, bits),
            leak=stable_leak(spec, couplings, held, maximum),
        )


def quantised(weight: Tensor, bits: int) -> Tensor:
    """`weight` on the grid of the compiler's `quantize`, float64."""
    q, exponents = to_grid(weight.double(), bits, per_channel_by_default(bits), torch)
    return q * (2.0**exponents).view(-1, *[1] * (q.dim() - 1))


def stable_leak(
    spec: NetworkSpec,
    couplings: tuple[CouplingSpec, ...],
    weights: Mapping[str, Tensor],
    maximum: float | Callable[[Spectrum], float],
) -> float:
    """The leak that the compiler's `choose_leak` takes, from the same Lanczos iteration."""
    shapes, inner = spec.shapes, [c for c in couplings if c.pre != INPUT]
    operators = Operators(weights, shapes)
    sizes = [p.size for p in spec.populations]
    device = next(iter(weights.values())).device

    def drive(state: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(state).to(device).split(sizes)
        z = {
            p.name: part.view(1, *p.shape) for p, part in zip(spec.populations, parts, strict=True)
        }
        total = {name: torch.zeros_like(value) for name, value in z.items()}
        for c in inner:
            total[c.post] = total[c.post] + operators.forward(c, z[c.pre])
            total[c.pre] = total[c.pre] + operators.adjoint(c, z[c.post])
        return torch.cat([v.reshape(-1) for v in total.values()]).cpu().numpy()

    spectrum = ends_of_spectrum(drive, sum(sizes))
    return spectrum.leak(maximum(spectrum) if callable(maximum) else maximum)


def refuse_unlowerable(spec: NetworkSpec) -> None:
    """Raise `GraphError` for the first thing in `spec` that a graph cannot say."""
    for p in spec.populations:
        if p.activation != "clip":
            raise GraphError(
                f"population '{p.name}'",
                f"activation {p.activation} has no neuron on hardware, which clips",
                "train with activation: clip",
            )
    for c in spec.couplings:
        if c.pool == "max":
            raise GraphError(
                f"coupling '{c.name}'",
                "a max-pool is not linear, and synapses are",
                "train with pool: avg, or with a stride in place of the pool",
            )
        if c.untied:
            raise GraphError(
                f"coupling '{c.name}'",
                "its way back has a weight of its own, and a graph has one for both ways",
                "train without untied",
            )
    if spec.readout is not None:
        raise GraphError(
            f"readout of '{spec.name}'",
            "a softmax layer outside the dynamics does not run on hardware",
            "train with the squared error on an output population",
        )


def _unit(box: tuple[float, float] | None) -> tuple[float, float]:
    return (0.0, 1.0) if box is None else (box[0], box[1] - box[0])


def _gains(
    couplings: tuple[CouplingSpec, ...], units: Mapping[str, tuple[float, float]], bits: int | None
) -> dict[tuple[str, str], float]:
    """``h_pre / h_post`` of both ways of every coupling."""
    gains = {}
    for c in couplings:
        for pre, post in ((c.pre, c.post), (c.post, c.pre)):
            gain = units[pre][1] / units[post][1]
            if bits is not None:
                multiplier, shift = integer_gain(gain)
                gain = multiplier * 2.0**shift
            gains[pre, post] = gain
    return gains


def _per_channel(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One value a channel as float64 of the full `shape`."""
    return values.double().view(-1, *[1] * (len(shape) - 1)).expand(shape)


def _merged(c: CouplingSpec) -> CouplingSpec:
    """A coupling whose pool has become part of its kernel."""
    if c.pool is None:
        return c
    assert c.kernel is not None
    wide = {"kernel": c.kernel + c.stride, "stride": c.stride * POOL, "pool": None}
    return c.model_copy(update=wide)


def _kernel(c: CouplingSpec, weight: Tensor) -> Tensor:
    """The weight of `_merged`: a mean of shifted kernels."""
    if c.pool is None:
        return weight
    rows, cols = weight.shape[2:]
    wide = weight.new_zeros(*weight.shape[:2], rows + c.stride, cols + c.stride)
    for i, j in itertools.product(range(POOL), repeat=2):
        down, right = i * c.stride, j * c.stride
        wide[:, :, down : down + rows, right : right + cols] += weight / POOL**2
    return wide


def _without_normalisation(
    spec: NetworkSpec, c: CouplingSpec, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight for raw pixels, and what the mean adds to the bias: (W / std, - W * (mean / std))."""
    channels, shape = spec.input.shape[0], spec.input.shape
    w = weight.double()
    mean = w.new_tensor(spec.input.mean or [0.0] * channels)
    std = w.new_tensor(spec.input.std or [1.0] * channels)
    shift = -forward(c, w, _per_channel(mean / std, shape)[None], spec.shapes[c.post])[0]
    if c.kind == "dense":
        return w / _per_channel(std, shape).reshape(1, -1), shift
    return w / std.view(1, -1, 1, 1), shift


def _folded(
    spec: NetworkSpec,
    couplings: tuple[CouplingSpec, ...],
    weights: Mapping[str, Tensor],
    biases: Mapping[str, Tensor],
    units: Mapping[str, tuple[float, float]],
) -> dict[str, Tensor]:
    """Biases in graph units: ``(b + sum op(W, lo_pre) - lo_post) / h_post``."""
    shapes, total = spec.shapes, dict(biases)
    low = {p: biases[p].new_full((1, *shapes[p]), units[p][0]) for p in biases if units[p][0]}
    for c in couplings:
        if c.pre in low:
            there = forward(c, weights[c.name], low[c.pre], shapes[c.post])[0]
            total[c.post] = total[c.post] + there
        if c.post in low and c.pre != INPUT:
            back = adjoint(c, weights[c.name], low[c.post], shapes[c.pre])[0]
            total[c.pre] = total[c.pre] + back
    return {p: single((b - units[p][0]) / units[p][1], torch) for p, b in total.items()}
