"""On Lava, a network that was trained without nines learns them, and keeps the others.

    python examples/11_learn_a_new_class.py [DIRECTORY] [SAMPLES] [SEEDS] [JOBS]

Forty nines are mixed with ten of each old digit, so that the old ones are not forgotten; the output
neuron for nines was there, and unused. Without Lava, the reference learns the same. Draws a figure
into DIRECTORY (runs/examples by default); with more SEEDS than one, tells the means,
so many JOBS at a time.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import compilers
import ep_neuro as ep
from ep_neuro.data import datasets
from targets import Plan, Recovery, or_reference, plastic, recover
from targets.experiments.onchip.recovery import accuracy, mixed, only, told, without
from targets.experiments.studies.jobs import Workers, over_seeds

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
SAMPLES = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
SEEDS = int(sys.argv[3]) if len(sys.argv) > 3 else 1
JOBS = int(sys.argv[4]) if len(sys.argv) > 4 else 1
NEW = 9


def tell(digits: datasets.Dataset, seed: int, target: str) -> Recovery:
    """The story, with a network and an order of the samples of this seed."""
    old = {name: without(digits.split(name), NEW) for name in datasets.SPLITS}
    config = ep.read_config("zoo:digits_dense", ["epochs=10", f"seed={seed}"])
    network = ep.train(config, dataset=replace(digits, **old)).model.network
    whole = compilers.compile(network, target, bits=8, headroom=1)
    program = plastic(whole, rate=0.1, output_rate=0.4)
    print(f"old digits before: {accuracy(program, old['test']):.1%}")

    few = [only(old["train"], label).head(10) for label in range(NEW)]
    seen = mixed(only(digits.train, NEW).head(40), *few)
    return recover(
        "Nines are new: forty of them, and ten of each old digit",
        accuracy(program, old["test"]),
        program,
        replace(digits, train=seen),
        Plan(samples=SAMPLES, batch=10, anneal=0.1, seed=seed),
        also={"nines": only(digits.test, NEW), "old digits": old["test"]},
    )


def main() -> None:
    digits = datasets.load("digits")
    target = or_reference("lava", print)
    found = over_seeds(partial(tell, digits, target=target), SEEDS, Workers(JOBS))
    print("\n".join(told(found, OUT / "recovery_new_class.svg")))


if __name__ == "__main__":
    main()
