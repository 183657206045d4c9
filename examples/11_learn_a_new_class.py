"""On Lava, a network that was trained without nines learns them, and keeps the others.

    python examples/11_learn_a_new_class.py [DIRECTORY] [SAMPLES] [SEEDS] [JOBS]

Forty nines are mixed with ten of each old digit, so that the old ones are not forgotten; the output
neuron for nines was there, and unused. Without Lava, the reference learns the same. Draws a figure
into DIRECTORY (runs/examples by default); with more SEEDS than one,
tells the means, so many JOBS at a time.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import ep_neuro as ep
from ep_neuro.data import datasets
from targets import Plan, Recovery, StorySetting, or_reference, tell_story
from targets.experiments.onchip.recovery import told, without
from targets.experiments.studies.jobs import Workers, over_seeds

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
SAMPLES = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
SEEDS = int(sys.argv[3]) if len(sys.argv) > 3 else 1
JOBS = int(sys.argv[4]) if len(sys.argv) > 4 else 1
NEW = 9
HOW = StorySetting(rate=0.1, output_rate=0.4, images=130)


def tell(digits: datasets.Dataset, seed: int, target: str) -> dict[str, Recovery]:
    """The story, with a network and an order of the samples of this seed."""
    old = {name: without(digits.split(name), NEW) for name in datasets.SPLITS}
    config = ep.read_config("zoo:digits_dense", ["epochs=10", f"seed={seed}"])
    model = ep.train(config, dataset=replace(digits, **old)).model
    plan = Plan(SAMPLES, batch=10, anneal=0.1, seed=seed)
    kind, change = "new-class", {"label": NEW}
    story = tell_story(kind, model, digits, plan, HOW, target=target, change=change, seed=seed)
    return {"new_class": story.recovery}


def main() -> None:
    digits = datasets.load("digits")
    target = or_reference("lava", print)
    found = over_seeds(partial(tell, digits, target=target), SEEDS, Workers(JOBS))
    for name in found[0]:
        print("\n".join(told([by[name] for by in found], OUT / f"recovery_{name}.svg")))


if __name__ == "__main__":
    main()
