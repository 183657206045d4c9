"""Lets one image be learnt as spikes, here and on Lava, so that Numba compiles its loops once.

`tools/setup.sh` calls it; without it the first to learn as spikes would wait.
"""

from __future__ import annotations

import numpy as np

import compilers
import targets
from ep_neuro.network.architectures import digits_dense
from ep_neuro.network.network import Network

WAYS = (
    {"bits": 8},
    {"bits": 16},
    {"options": {"precision": "float32"}},
    {"bits": 8, "target": "lava"},
)
"""Each has numbers of its own."""


def main() -> None:
    """Compile for all of `WAYS` that are possible here."""
    for way in WAYS:
        if targets.get(str(way.get("target", "reference"))).available().available:
            program = compilers.compile(
                Network(digits_dense(), seed=0), code="spike", learn="spike-average", **way
            )
            with targets.learner(program) as session:
                session.learn(np.zeros((1, *program.graph.sources[0].shape)), np.zeros(1, int))


if __name__ == "__main__":
    main()
