"""How long the reference takes to run a program of CIFAR-10 size and to learn MNIST, in 8 bits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import compilers
import targets
from compilers import compile_network
from compilers.ir.graph import ENCODINGS, Encoding
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.network.architectures import cifar10_resnet
from ep_neuro.network.network import Network
from tests.benchmarks.options import sizes

STEPS = {"graded": 16, "sigma-delta": 64, "spike": 64}
"""Steps of the free phase."""

EXAMPLE = Path(__file__).parents[2] / "examples/spiking/mnist_conv.yaml"

LEARNT: dict[Encoding, str] = {"graded": "contrastive", "spike": "spike-average"}

BATCH = 20


def measure(code: Encoding, images: int, repeats: int, bits: int | None = 8) -> float:
    """Median processor time of an image and step, in milliseconds; fresh weights."""
    network, reference = Network(cifar10_resnet(), seed=0), targets.get("reference")
    program = compile_network(network, reference, code=code, bits=bits, steps=STEPS[code])
    x = np.random.default_rng(0).random((images, *program.graph.sources[0].shape))
    times = []
    with targets.open(program) as session:
        for _ in range(repeats):
            start = time.process_time()
            session.settle(x)
            times.append(1e3 * (time.process_time() - start) / images / STEPS[code])
    return statistics.median(times)


def learning(code: Encoding, images: int, repeats: int) -> float:
    """Images a second of processor time that `examples/spiking/mnist_conv.yaml` learns, median."""
    program = compilers.compile(
        Network(NetworkSpec.from_yaml(EXAMPLE), seed=0),
        code=code,
        bits=8,
        beta=0.5,
        steps=48,
        learn=LEARNT[code],
    )
    dice = np.random.default_rng(0)
    x, y = dice.random((images, *program.graph.sources[0].shape)), dice.integers(0, 10, images)
    # As much of an image as a digit covers.
    x *= dice.random(x.shape) < 0.2
    found = []
    with targets.learner(program) as session:
        for _ in range(1 + repeats):
            start = time.process_time()
            session.learn(x, y, batch=BATCH)
            found.append(images / (time.process_time() - start))
    return statistics.median(found[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of all encodings."""
    images, repeats = sizes(__doc__, arguments)
    for code in ENCODINGS:
        print(f"{code:12} {measure(code, images, repeats):7.3f} ms an image and step")
    for code in LEARNT:
        print(f"{code:12} {learning(code, images, repeats):7.0f} images a second learnt")


if __name__ == "__main__":
    main()
