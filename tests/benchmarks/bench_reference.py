"""How long the reference takes to run a program of CIFAR-10 size, by encoding, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

import targets
from compilers import compile_network
from compilers.ir.graph import ENCODINGS, Encoding
from ep_neuro.network.architectures import cifar10_resnet
from ep_neuro.network.network import Network
from tests.benchmarks.options import sizes

STEPS = {"graded": 16, "sigma-delta": 64, "spike": 64}
"""Steps of the free phase."""


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of all encodings."""
    images, repeats = sizes(__doc__, arguments)
    for code in ENCODINGS:
        print(f"{code:12} {measure(code, images, repeats):7.3f} ms an image and step")


if __name__ == "__main__":
    main()
