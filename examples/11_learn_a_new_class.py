"""On Lava, a network that was trained without nines learns them, and keeps the others.

    python examples/11_learn_a_new_class.py [DIRECTORY] [SAMPLES] [SEEDS] [JOBS]

Forty nines are mixed with ten of each old digit, so that the old ones are not forgotten; the output
neuron for nines was there, and unused. Without Lava, the reference learns the same. Draws a figure
into DIRECTORY (runs/examples by default); with more SEEDS than one,
tells the means, so many JOBS at a time.
"""

from __future__ import annotations

from dataclasses import replace

import ep_neuro as ep
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset
from targets import Plan, Recovery, StorySetting, tell_story
from targets.experiments.onchip.recovery import without
from targets.experiments.onchip.seeds import over_seeds

NEW = 9
HOW = StorySetting(rate=0.1, output_rate=0.4, images=130)


def tell(digits: Dataset, target: str, samples: int, seed: int) -> dict[str, Recovery]:
    """The story, with a network and an order of the samples of this seed."""
    old = {name: without(digits.split(name), NEW) for name in datasets.SPLITS}
    config = ep.read_config("zoo:digits_dense", ["epochs=10", f"seed={seed}"])
    model = ep.train(config, dataset=replace(digits, **old)).model
    plan = Plan(samples, batch=10, anneal=0.1, seed=seed)
    kind, change = "new-class", {"label": NEW}
    story = tell_story(kind, model, digits, plan, HOW, target=target, change=change, seed=seed)
    return {"new_class": story.recovery}


if __name__ == "__main__":
    over_seeds(tell)
