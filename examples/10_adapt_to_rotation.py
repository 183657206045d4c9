"""On Lava, a network that knows upright digits adapts to turned and to inverted ones.

    python examples/10_adapt_to_rotation.py [DIRECTORY] [SAMPLES] [SEEDS] [JOBS]

The camera was mounted on its side, or its polarity changed: the program learns on its target from
300 new images, over and over; without Lava that is the reference, which learns the same. Draws a
figure of each into DIRECTORY (runs/examples by default); with more SEEDS than one, tells the means,
so many JOBS at a time.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import compilers
import ep_neuro as ep
from ep_neuro.data import datasets
from targets import Plan, Recovery, or_reference, plastic, recover
from targets.experiments.onchip.recovery import accuracy, few, inverted, rotated, told
from targets.experiments.studies.jobs import Workers, over_seeds

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
SAMPLES = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
SEEDS = int(sys.argv[3]) if len(sys.argv) > 3 else 1
JOBS = int(sys.argv[4]) if len(sys.argv) > 4 else 1
IMAGES = 300


def tell(digits: datasets.Dataset, seed: int, target: str) -> dict[str, Recovery]:
    """Both stories, with a network and an order of the samples of this seed."""
    network = ep.train(
        ep.read_config("zoo:digits_dense", ["epochs=10", f"seed={seed}"])
    ).model.network
    program = plastic(
        compilers.compile(network, target, bits=8, headroom=1, steps=32),
        rate=0.3,
        output_rate=1.2,
    )
    before = accuracy(program, digits.test)
    plan = Plan(samples=SAMPLES, batch=10, anneal=0.05, seed=seed)
    found = {}
    for name, change in (("rotated", rotated), ("inverted", inverted)):
        title = f"Upright digits, then {name} ones: {IMAGES} images"
        found[name] = recover(title, before, program, few(change(digits), IMAGES), plan)
    return found


def main() -> None:
    digits = datasets.load("digits")
    target = or_reference("lava", print)
    found = over_seeds(partial(tell, digits, target=target), SEEDS, Workers(JOBS))
    for name in found[0]:
        print("\n".join(told([by[name] for by in found], OUT / f"recovery_{name}.svg")))


if __name__ == "__main__":
    main()
