"""Run a trained network as a graph of Lava processes, and look at what it sends.

    python examples/03_run_on_lava.py [DIRECTORY]

Compiles a model of the hub for Lava with sigma-delta neurons (they send the change of their state,
once it exceeds an annealed threshold), settles test digits and probes the output. Writes its state
by step to DIRECTORY/output.npy (runs/examples by default).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import compilers
import ep_neuro as ep
import targets
from ep_neuro.data import datasets

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")


def main() -> None:
    model = ep.load_model("hub:digits_resnet")
    program = compilers.compile(model, target="lava", code="sigma-delta")
    test = datasets.load("digits").test.head(100)

    with targets.open(program) as session:
        result = session.settle(test.x, probes=["output.z"])

    print(
        f"torch {ep.evaluate(model.network, test, ep.Schedule()).accuracy:.1%}, "
        f"Lava {(result.predictions == test.y).mean():.1%} of {len(test)}"
    )
    print(
        f"{result.events_per_sample:.0f} events and {result.synops_per_sample:.0f} synaptic "
        f"operations a digit"
    )
    for name, events in result.free.events.items():
        by_step = events.mean(axis=1)
        print(
            f"{name:>8}: {by_step[:4].sum():6.1f} events in the first 4 steps, "
            f"{by_step[-4:].sum():5.1f} in the last 4"
        )
    OUT.mkdir(parents=True, exist_ok=True)
    np.save(OUT / "output.npy", result.free.probes["output.z"])
    print(f"output by (step, digit, class): {OUT / 'output.npy'}")


if __name__ == "__main__":
    main()
