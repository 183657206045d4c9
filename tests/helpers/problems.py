"""Small float64 learning problems: a network, inputs and targets, from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec, ReadoutSpec
from ep_neuro.estimators import Gradient
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.network.settling import Schedule
from tests.helpers.graphs import random_residual_spec

Problem = tuple[Network, Tensor, Tensor]

TIGHT = Schedule(sweeps=3000, relaxation=1.3, tolerance=1e-12)
WIDE = (-9.0, 9.0)


def random_network(spec: NetworkSpec, seed: int) -> Network:
    """`spec` with random weights and biases."""
    network = Network(spec, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for bias in network.biases.values():
            bias.copy_(0.1 + 0.2 * torch.randn(bias.shape, generator=generator))
    return network


def problem(seed: int, spec: NetworkSpec | None = None, samples: int = 4) -> Problem:
    """A network with positive biases, so that most neurons are inside their box."""
    spec = spec or random_residual_spec(seed)
    network = Network(spec, seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (*network.weights.values(), *network.feedback.values()):
            weight *= 0.7
        for bias in network.biases.values():
            bias.uniform_(0.1, 0.5, generator=generator)
    x = torch.rand(samples, *spec.input.shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(spec.classes, (samples,), generator=generator)
    return network, x, one_hot(labels, spec.target_shape, torch.float64)


def aligned(found: Gradient, exact: Gradient) -> float:
    """Cosine of two gradients; 1 if both vanish: every neuron may be at an end of its box."""
    if not any(bool(g.any()) for gradient in (found, exact) for g in gradient.values()):
        return 1.0
    return cosine(found, exact)


def slopes(
    network: Network, gradient: Gradient, loss: Callable[[], float], step: float
) -> tuple[float, float]:
    """Slope of `loss` along a random direction: by a central difference, and by `gradient`."""
    parameters = parameter_names(network)
    generator = torch.Generator().manual_seed(0)
    direction = {
        k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in parameters.items()
    }
    losses = []
    with torch.no_grad():
        for move in (step, -2 * step):
            for name, parameter in parameters.items():
                parameter.add_(direction[name], alpha=move)
            losses.append(loss())
    predicted = sum(float((gradient[k] * direction[k]).sum()) for k in gradient)
    return (losses[0] - losses[1]) / (2 * step), predicted


def chain(
    *,
    readout: bool = False,
    untied: bool = False,
    cost: Literal["squared-error", "cross-entropy"] = "squared-error",
    **population: Any,
) -> NetworkSpec:
    """5-6-4-3; hidden populations with the fields `population`, by default in `WIDE` boxes."""
    fields = {"box": WIDE, **population}
    return NetworkSpec(
        name="chain",
        input=InputSpec(shape=(5,)),
        populations=(
            PopulationSpec(name="h", shape=(6,), **fields),
            PopulationSpec(name="g", shape=(4,), **fields),
            PopulationSpec(name="out", shape=(3,), box=None),
        ),
        couplings=(
            CouplingSpec(pre="input", post="h", gain=0.5),
            CouplingSpec(pre="h", post="g", gain=0.5, untied=untied),
            CouplingSpec(pre="g", post="out", gain=0.5, untied=untied),
        ),
        readout=ReadoutSpec(classes=5) if readout else None,
        cost=cost,
    )


def pooled(pool: Literal["max", "avg"], gain: float = 0.5) -> NetworkSpec:
    """9x9 images, two pooled couplings (the first leaves a row and column over), a skip, a head."""
    shapes = {"a": (3, 4, 4), "b": (4, 2, 2)}
    fields: dict[str, Any] = {"kind": "conv", "pool": pool, "gain": gain}
    return NetworkSpec(
        name=f"pooled_{pool}",
        input=InputSpec(shape=(2, 9, 9)),
        populations=(
            *(PopulationSpec(name=n, shape=s, box=(0.0, 2.0)) for n, s in shapes.items()),
            PopulationSpec(name="out", shape=(3,), box=(0.0, 3.0)),
        ),
        couplings=(
            CouplingSpec(pre="input", post="a", kernel=3, padding=1, **fields),
            CouplingSpec(pre="a", post="b", kernel=3, padding=1, **fields),
            CouplingSpec(pre="input", post="b", kernel=3, stride=2, padding=1, **fields),
            CouplingSpec(pre="b", post="out", gain=gain),
        ),
    )


def smooth_chain() -> NetworkSpec:
    """The chain with sigmoids in [0, 1]: holomorphic, and truly curved."""
    return chain(box=(0.0, 1.0), activation="sigmoid")


def smooth(spec: NetworkSpec) -> NetworkSpec:
    """`spec` with the smooth twin of every box."""
    data = spec.to_dict()
    for p in data["populations"]:
        p["activation"] = "sigmoid" if p.get("box", True) is not None else "clip"
    return NetworkSpec.from_dict(data)


def difference(a: Gradient, b: Gradient) -> float:
    """Largest deviation of `a` from `b`, relative to the largest entry of `b`."""
    assert a.keys() == b.keys()
    scale = max(float(v.abs().max()) for v in b.values())
    return max(float((a[k] - b[k]).abs().max()) for k in b) / scale


def residual() -> NetworkSpec:
    """A convolution, a skip around it, and a head whose box is not [0, 1]."""
    conv = {"kind": "conv", "kernel": 3, "stride": 2, "padding": 1, "gain": 0.4}
    return NetworkSpec.from_dict(
        {
            "name": "small",
            "input": {"shape": [1, 6, 6]},
            "populations": [
                {"name": "a", "shape": [3, 3, 3]},
                {"name": "b", "shape": [4, 2, 2]},
                {"name": "out", "shape": [4], "box": [-0.5, 1.5]},
            ],
            "couplings": [
                {"pre": "input", "post": "a", **conv},
                {"pre": "a", "post": "b", **conv},
                {"pre": "input", "post": "b", "gain": 0.4},
                {"pre": "b", "post": "out", "gain": 0.5},
            ],
        }
    )


def interrupt_at(step: int) -> Callable[[int, int, Any], None]:
    """What stops a run, as Ctrl-C does, when so much is done."""

    def monitor(done: int, total: int, latest: Any) -> None:
        if done == step:
            raise KeyboardInterrupt

    return monitor
