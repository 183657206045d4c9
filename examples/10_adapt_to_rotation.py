"""On Lava, a network that knows upright digits adapts to turned and to inverted ones.

    python examples/10_adapt_to_rotation.py [DIRECTORY] [SAMPLES] [SEEDS] [JOBS]

The camera was mounted on its side, or its polarity changed: the program learns on its target from
300 new images, over and over; without Lava that is the reference, which learns the same. Draws a
figure of each into DIRECTORY (runs/examples by default); with more SEEDS than one,
tells the means, so many JOBS at a time.
"""

from __future__ import annotations

import ep_neuro as ep
from ep_neuro.data.datasets import Dataset
from targets import Plan, Recovery, StorySetting, tell_story
from targets.experiments.onchip.seeds import over_seeds

HOW = StorySetting(rate=0.3, output_rate=1.2, steps=32, images=300)


def tell(digits: Dataset, target: str, samples: int, seed: int) -> dict[str, Recovery]:
    """Both stories, with a network and an order of the samples of this seed."""
    config = ep.read_config("zoo:digits_dense", ["epochs=10", f"seed={seed}"])
    model, plan = ep.train(config).model, Plan(samples, batch=10, anneal=0.05, seed=seed)
    return {
        kind: tell_story(kind, model, digits, plan, HOW, target=target, seed=seed).recovery
        for kind in ("rotated", "inverted")
    }


if __name__ == "__main__":
    over_seeds(tell)
