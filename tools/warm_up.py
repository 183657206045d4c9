"""Learns an image by each kind of numbers, here and on Lava: Numba compiles for it once.

`tools/setup.sh` calls it; without it the first to learn would wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import compilers
import ep_neuro as ep
import targets

SPIKES = {"code": "spike", "learn": "spike-average"}

GRADED = {"code": "graded", "learn": "contrastive", "bits": 8}

WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("digits_dense", {**SPIKES, "bits": 8}),
    ("digits_dense", {**SPIKES, "bits": 16}),
    ("digits_dense", {**SPIKES, "options": {"precision": "float32"}}),
    ("digits_dense", {**SPIKES, "bits": 8, "target": "lava"}),
    ("digits_dense", GRADED),
    ("digits_residual", GRADED),
)
"""Small networks that learn, and how they are compiled; the sums of the last one are long."""


def main() -> None:
    """Learn in all of `WAYS` that are possible here; run a network of larger sums."""
    for name, way in WAYS:
        if targets.get(way.get("target", "reference")).available().available:
            program = compilers.compile(ep.Network(ep.zoo(name), 0), **way)
            with targets.learner(program) as session:
                session.learn(np.zeros((1, *program.graph.sources[0].shape)), np.zeros(1, int))
    trained = ep.load_model("hub:mnist_residual")
    large = compilers.compile(trained, code="spike", bits=8, steps=1)
    with targets.open(large) as session:
        session.settle(np.ones((1, *large.graph.sources[0].shape)))


if __name__ == "__main__":
    main()
