"""A network that was trained without nines learns them on the chip, and keeps the other digits.

    python examples/11_learn_a_new_class.py [DIRECTORY] [SAMPLES]

Forty nines are mixed with ten of each old digit, so that the old ones are not forgotten; the output
neuron for nines was there, and unused. Draws a figure into DIRECTORY (runs/examples by default).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import compilers
import ep_neuro as ep
from ep_neuro import data
from ep_neuro.config import read_config
from targets.workflows.learning import plastic
from targets.workflows.plan import Plan
from targets.workflows.recovery import accuracy, mixed, only, recover, without

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
SAMPLES = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
NEW = 9


def main() -> None:
    digits = data.load("digits")
    old = {name: without(digits.split(name), NEW) for name in data.SPLITS}
    config = read_config("zoo:digits_dense", ["epochs=10"])
    network = ep.train(config, dataset=replace(digits, **old)).model.network
    program = plastic(compilers.compile(network, bits=8, headroom=1), rate=0.1)
    print(f"old digits before: {accuracy(program, old['test']):.1%}")

    few = [only(old["train"], label).head(10) for label in range(NEW)]
    seen = mixed(only(digits.train, NEW).head(40), *few)
    found = recover(
        "Nines are new: forty of them, and ten of each old digit",
        accuracy(program, old["test"]),
        program,
        replace(digits, train=seen),
        Plan(samples=SAMPLES, batch=10, anneal=0.1),
        also={"nines": only(digits.test, NEW), "old digits": old["test"]},
    )
    print("\n".join(found.in_words()))
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"  figure: {found.draw(OUT / 'recovery_new_class.svg')}")


if __name__ == "__main__":
    main()
