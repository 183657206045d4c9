"""How true the gradient of a configuration is, tensor by tensor, before any training.

    python examples/paper/gradient_truth.py CONFIG [CONFIG ...] [--images 2]

Fresh weights (seed 0) and random images of random classes; the estimator of each configuration
against implicit differentiation in float64 at the free equilibrium.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

import torch

from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.estimators import Gradient
from ep_neuro.estimators.baselines import implicit_gradient
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network.network import Network
from ep_neuro.network.settling import Schedule
from ep_neuro.training.config import read_config

EXACT = Schedule(sweeps=1000, tolerance=1e-8)


def problem(spec: NetworkSpec, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images in [0, 1) and random one-hot targets."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(images, *spec.input.shape, generator=generator)
    labels = torch.randint(0, spec.classes, (images,), generator=generator)
    return x, one_hot(labels, spec.target_shape, torch.float32)


def by_tensor(found: Gradient, exact: Gradient) -> list[float]:
    """Cosine of each weight's gradient to the exact one."""
    double = {k: v.double() for k, v in found.items()}
    weights = [k for k in exact if k.startswith("weight/")]
    return [cosine({k: double[k]}, {k: exact[k]}) for k in weights]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument("--images", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known: dict[NetworkSpec, Gradient] = {}
    for name in options.configs:
        config = read_config(name)
        spec = config.spec()
        x, y = problem(spec, options.images)
        if spec not in known:
            network = Network(spec, seed=0).double()
            known[spec] = implicit_gradient(network, x.double(), y.double(), EXACT).gradient
        network = Network(spec, seed=0)
        start = time.perf_counter()
        estimate = config.estimator(network, x, y)
        seconds = time.perf_counter() - start
        cosines = sorted(by_tensor(estimate.gradient, known[spec]))
        print(
            f"{name}: {seconds:.1f} s, {estimate.free.work:.0f} free sweeps, cosine of a weight's "
            f"gradient {cosines[0]:.3f} to {cosines[-1]:.3f}, median {median(cosines):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
