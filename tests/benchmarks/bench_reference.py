"""How long the reference takes to run a program of CIFAR-10 size in 8 bits, and to learn digits.

Lava's time is compared with the reference's where it is here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import compilers
import targets
from compilers import compile_network
from compilers.ir.graph import ENCODINGS, Encoding
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.network.architectures import cifar10_resnet, digits_dense
from ep_neuro.network.network import Network
from tests.benchmarks.options import sizes

STEPS = {"graded": 16, "sigma-delta": 64, "spike": 64}
"""Steps of the free phase."""

EXAMPLE = Path(__file__).parents[2] / "examples/spiking/mnist_conv.yaml"

LEARNT: dict[Encoding, str] = {"graded": "contrastive", "spike": "spike-average"}

BATCH, EIGHT_BITS = 20, {"bits": 8}


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


def learning(
    spec: NetworkSpec, code: Encoding, images: int, repeats: int, *ways: dict[str, Any]
) -> list[tuple[float, float]]:
    """Images a second that fresh weights of `spec` learn, medians, for each of `ways` to compile.

    Of this process's time, and of all time. The ways take turns.
    """
    dice = np.random.default_rng(0)
    y, times = dice.integers(0, 10, images), [[] for _ in ways]
    with ExitStack() as stack:
        sessions = []
        for way in ways:
            program = compilers.compile(
                Network(spec, seed=0), code=code, beta=0.5, steps=48, learn=LEARNT[code], **way
            )
            sessions.append(stack.enter_context(targets.learner(program)))
        x = dice.random((images, *program.graph.sources[0].shape))
        # As much of an image as a digit covers.
        x *= dice.random(x.shape) < 0.2
        for _ in range(1 + repeats):
            for session, found in zip(sessions, times, strict=True):
                start = time.process_time(), time.perf_counter()
                session.learn(x, y, batch=BATCH)
                found.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    medians = [np.median(found[1:], axis=0) for found in times]
    return [(images / own, images / whole) for own, whole in medians]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of all encodings."""
    images, repeats = sizes(__doc__, arguments)
    for code in ENCODINGS:
        print(f"{code:12} {measure(code, images, repeats):7.3f} ms an image and step")
    lava = targets.get("lava").available().available
    for spec in (NetworkSpec.from_yaml(EXAMPLE), digits_dense()):
        for code in LEARNT:
            size = (spec, code, images, repeats)
            ways = [EIGHT_BITS, {"options": {"precision": "float32"}}]
            whole, single = (own for own, _ in learning(*size, *ways))
            text = f"{spec.name:16} {code:7} {whole:6.0f} images a second learnt in 8 bits"
            print(f"{text}, {single:6.0f} in float32", end="")
            if lava:
                (_, here), (_, there) = learning(
                    *size, EIGHT_BITS, {"target": "lava", **EIGHT_BITS}
                )
                print(f"; Lava takes {here / there:.1f} times as long", end="")
            print(flush=True)


if __name__ == "__main__":
    main()
