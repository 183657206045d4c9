"""Runs an image as spikes by each kind of numbers, here and on Lava: Numba compiles for it once.

`tools/setup.sh` calls it; without it the first to learn as spikes would wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import compilers
import ep_neuro as ep
import targets

WAYS: tuple[dict[str, Any], ...] = (
    {"bits": 8},
    {"bits": 16},
    {"options": {"precision": "float32"}},
    {"bits": 8, "target": "lava"},
)
"""How a small network is compiled that learns."""


def main() -> None:
    """Learn in all of `WAYS` that are possible here; run a network of larger sums."""
    for way in WAYS:
        if targets.get(way.get("target", "reference")).available().available:
            network = ep.Network(ep.zoo("digits_dense"), 0)
            program = compilers.compile(network, code="spike", learn="spike-average", **way)
            with targets.learner(program) as session:
                session.learn(np.zeros((1, *program.graph.sources[0].shape)), np.zeros(1, int))
    trained = ep.load_model("hub:mnist_residual")
    large = compilers.compile(trained, code="spike", bits=8, steps=1)
    with targets.open(large) as session:
        session.settle(np.ones((1, *large.graph.sources[0].shape)))


if __name__ == "__main__":
    main()
