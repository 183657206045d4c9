"""How fast and how true a training step is: the default engine against the published schedule."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ep_neuro.data.datasets import load
from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.estimators import Centered, Estimate, FrozenMean, Gradient
from ep_neuro.estimators.baselines import Backprop, implicit_gradient
from ep_neuro.estimators.gradient_check import cosine, in_units
from ep_neuro.network.architectures import OUTPUT_BOX, hopfield_resnet
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.network.settling import PUBLISHED_FREE, PUBLISHED_NUDGED, Schedule
from ep_neuro.storage.atomic import write_atomic
from ep_neuro.training.config import Optimiser
from ep_neuro.training.distributed import Ranks
from ep_neuro.training.gradient_monitor import LADDER, Truth, TruthControl, shortened
from ep_neuro.training.optimizer import make_optimiser

PUBLISHED = Centered(beta=0.2, free=PUBLISHED_FREE, nudged=PUBLISHED_NUDGED)
LADDER_TOP = FrozenMean(beta=0.2, free=Schedule(sweeps=40), nudged=Schedule(sweeps=30))
"""The default engine: it does as few sweeps as a `Truth` allows, and these at most."""

STRONG, WEAK = 0.99, 0.998
"""Cosine to the implicit gradient that is asked of the strongly and the weakly coupled network."""

SHRINK = 8.0
"""Ratio of neighbouring units of the weakly coupled network."""

EXACT = Schedule(sweeps=5000, relaxation=1.6, tolerance=1e-9)


def mid_size(
    blocks: int = 3, width: int = 16, image: int = 32, shrink: float | None = None
) -> NetworkSpec:
    """A Hopfield-ResNet of `blocks` blocks whose channels double with each, in units if asked."""
    pairs = [width << block for block in range(blocks) for _ in (0, 1)]
    shared: dict[str, Any] = dict(
        image=(1, image, image), channels=tuple(pairs), classes=10, output_box=OUTPUT_BOX
    )
    if shrink is not None:
        heights = (4.0,) * len(pairs)
        gains = dict(gain=1.2, skip_gain=0.5, head_gain=0.3, input_gain=1.2)
        name = f"units_{blocks}x{width}"
        return hopfield_resnet(name, heights=heights, shrink=shrink, **gains, **shared)
    heights = tuple(64.0 / 2 ** (6 * i / (2 * blocks)) for i in range(2 * blocks))
    name = f"resnet_{blocks}x{width}"
    return hopfield_resnet(name, heights=heights, gain=0.3, input_gain=20.0, **shared)


def digits(count: int, size: int) -> tuple[Tensor, Tensor]:
    """`count` digits enlarged to `size` x `size`, and their one-hot labels."""
    split = load("digits").train.head(count)
    x = torch.nn.functional.interpolate(torch.from_numpy(split.x), size, mode="bilinear")
    return x, one_hot(torch.from_numpy(split.y), (10,), torch.float32)


def trained(spec: NetworkSpec, steps: int, control: TruthControl, batch: int = 32) -> Network:
    """The network after `steps` steps of the engine, whose sweeps `control` chooses."""
    network = Network(spec, seed=0)
    x, y = digits(1257, spec.input.shape[-1])
    config = Optimiser(lr=0.03, relative=True)
    optimiser = make_optimiser(config, network)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        index = torch.randint(len(x), (batch,), generator=generator)
        if control.due(step):
            control.look(step, network, x[index], y[index], Ranks(torch.device("cpu")))
        apply(network, control.estimator(network, x[index], y[index]).gradient, optimiser)
    return network


def apply(network: Network, gradient: Gradient, optimiser: torch.optim.Optimizer) -> None:
    """One step of the optimiser."""
    for name, parameter in parameter_names(network).items():
        parameter.grad = gradient[name]
    optimiser.step()


def alternate(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each of `runs`, taken in turn so that a drifting machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(
    spec: NetworkSpec, cosine: float, steps: int, batch: int, repeats: int
) -> dict[str, Any]:
    """Time and truth of one gradient on a trained network, in fp32, against two others.

    ``step_vs_backprop`` is its time in gradients of the feed-forward twin by backprop,
    ``training_step_speedup`` how many of it fit into one by the published schedule.
    """
    control = TruthControl(Truth(cosine=cosine, samples=batch), LADDER_TOP)
    network = trained(spec, steps, control)
    x, y = digits(batch, spec.input.shape[-1])
    double = Network(spec).double()
    double.load_state_dict({k: v.double() for k, v in network.state_dict().items()})
    exact = implicit_gradient(double, x.double(), y.double(), EXACT)
    engine = fewest(network, x, y, exact.gradient, cosine)
    engines = {"published": PUBLISHED, "default": engine, "backprop": Backprop()}
    seconds = alternate({n: _call(e, network, x, y) for n, e in engines.items()}, repeats)
    found = {n: e(network, x, y) for n, e in engines.items()}
    return {
        "training_step_speedup": _ratio(seconds, "published", "default"),
        "step_vs_backprop": _ratio(seconds, "default", "backprop"),
        "gradient_cosine": _cosine(network, found["default"], exact.gradient),
        "gradient_cosine_published": _cosine(network, found["published"], exact.gradient),
        "gradient_cosine_backprop": _cosine(network, found["backprop"], exact.gradient),
        "sweeps": [engine.free.sweeps, engine.nudged.sweeps],
        "seconds": {n: statistics.median(s) for n, s in seconds.items()},
        "images_per_second": {n: batch / statistics.median(s) for n, s in seconds.items()},
        "work": {n: found[n].free.work for n in ("published", "default")},
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "parameters": spec.parameters,
        "batch": batch,
    }


def fewest(network: Network, x: Tensor, y: Tensor, exact: Gradient, least: float) -> FrozenMean:
    """The engine of the fewest sweeps whose cosine to the `exact` gradient is `least` or more."""
    for rung in LADDER:
        engine = shortened(LADDER_TOP, *rung)
        if _cosine(network, engine(network, x, y), exact) >= least:
            return engine
    return LADDER_TOP


def weak(found: dict[str, Any]) -> dict[str, Any]:
    """What `measure` found on the weakly coupled network, by the names of its claims."""
    names = {"training_step_speedup": "speedup_vs_published"}
    return {names.get(name, name): value for name, value in found.items()}


def growth(repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds of a step of 2 + 1 sweeps and of backprop as depth, width and batch grow."""
    two_and_one = shortened(LADDER_TOP, 2, 1)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for axis, values in (("blocks", (1, 2, 3)), ("width", (8, 16, 32)), ("batch", (8, 16, 32))):
        found[axis] = {}
        for value in values:
            shape = {"blocks": 2, "width": 8, "batch": 16} | {axis: value}
            network = Network(mid_size(shape["blocks"], shape["width"], 16, SHRINK))
            x, y = digits(shape["batch"], 16)
            engines = {"step": two_and_one, "backprop": Backprop()}
            seconds = alternate({n: _call(e, network, x, y) for n, e in engines.items()}, repeats)
            found[axis][str(value)] = {n: statistics.median(s) for n, s in seconds.items()}
    return found


def _call(engine: Any, network: Network, x: Tensor, y: Tensor) -> Any:
    return lambda: engine(network, x, y)


def _ratio(seconds: dict[str, list[float]], a: str, b: str) -> float:
    """Median of how many times longer `a` took than `b` right after it."""
    return statistics.median(p / q for p, q in zip(seconds[a], seconds[b], strict=True))


def _cosine(network: Network, estimate: Estimate, exact: Gradient) -> float:
    found = {k: v.double() for k, v in estimate.gradient.items()}
    return cosine(in_units(network, found), in_units(network, exact))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write ``benchmarks.json`` and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120, help="training steps before measuring")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shape = (options.blocks, options.width)
    size = (options.steps, options.batch, options.repeats)
    report = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
        **measure(mid_size(*shape), STRONG, *size),
        "weak": weak(measure(mid_size(*shape, shrink=SHRINK), WEAK, *size)),
        "growth_seconds": growth(options.repeats),
    }
    write_atomic(options.out, (json.dumps(report, indent=2) + "\n").encode())
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
