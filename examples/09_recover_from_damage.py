"""On Lava, learning gets back what two bits, or a damaged array, took from a network.

    python examples/09_recover_from_damage.py [DIRECTORY] [SAMPLES] [SEEDS] [JOBS]

Trains in floating point, compiles to integers, and lets the program learn on its target; without
Lava that is the reference, which learns the same. Weights of two bits are -1, 0 or 1; what rounding
leaves of a change stays in the synapse, in its tag. In the second story a tenth of the synapses is
stuck at random values and a twentieth of the neurons is dead: what still works learns to do without
them. Draws a figure of each into DIRECTORY (runs/examples by default); with more SEEDS than one,
tells the means,
so many JOBS at a time.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import compilers
import ep_neuro as ep
from ep_neuro.data import datasets
from targets import Plan, Recovery, damage, or_reference, plastic, recover
from targets.experiments.onchip.recovery import accuracy, told
from targets.experiments.studies.jobs import Workers, over_seeds

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
SAMPLES = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
SEEDS = int(sys.argv[3]) if len(sys.argv) > 3 else 1
JOBS = int(sys.argv[4]) if len(sys.argv) > 4 else 1


def tell(digits: datasets.Dataset, seed: int, target: str) -> dict[str, Recovery]:
    """Both stories, with a network, damage and order of the samples of this seed."""
    network = ep.train(
        ep.read_config("zoo:digits_dense", ["epochs=10", f"seed={seed}"])
    ).model.network
    coarse = plastic(
        compilers.compile(network, target, bits=2), rate=0.01, output_rate=0.04, keep=True
    )
    whole = plastic(compilers.compile(network, target, bits=8), rate=0.1, output_rate=0.4)
    broken = damage(whole, stuck=0.1, dead=0.05, seed=seed).program
    stories = {
        "two_bits": ("Two bits a weight", compilers.compile(network, target), coarse),
        "damage": ("A tenth of the synapses stuck, a twentieth of the neurons dead", whole, broken),
    }
    plan = Plan(samples=SAMPLES, batch=10, anneal=0.1, seed=seed)
    return {
        name: recover(title, accuracy(before, digits.test), program, digits, plan)
        for name, (title, before, program) in stories.items()
    }


def main() -> None:
    digits = datasets.load("digits")
    target = or_reference("lava", print)
    found = over_seeds(partial(tell, digits, target=target), SEEDS, Workers(JOBS))
    for name in found[0]:
        print("\n".join(told([by[name] for by in found], OUT / f"recovery_{name}.svg")))


if __name__ == "__main__":
    main()
