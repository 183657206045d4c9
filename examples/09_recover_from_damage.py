"""On Lava, learning gets back what two bits, or a damaged array, took from a network.

    python examples/09_recover_from_damage.py [DIRECTORY] [SAMPLES] [SEEDS] [JOBS]

Trains in floating point, compiles to integers, and lets the program learn on its target; without
Lava that is the reference, which learns the same. Weights of two bits are -1, 0 or 1; what rounding
leaves of a change stays in the synapse, in its tag. In the second story a tenth of the synapses is
stuck at random values and a twentieth of the neurons is dead: what still works learns to do without
them. Draws a figure of each into DIRECTORY (runs/examples by default); with more SEEDS than one,
tells the means, so many JOBS at a time.
"""

from __future__ import annotations

import ep_neuro as ep
from ep_neuro.data.datasets import Dataset
from targets import Plan, Recovery, StorySetting, tell_story
from targets.experiments.onchip.seeds import over_seeds

HOW = {
    "coarse": StorySetting(rate=0.01, output_rate=0.04, keep=True, headroom=0),
    "damaged": StorySetting(rate=0.1, output_rate=0.4, headroom=0),
}


def tell(digits: Dataset, target: str, samples: int, seed: int) -> dict[str, Recovery]:
    """Both stories, with a network, damage and order of the samples of this seed."""
    config = ep.read_config("zoo:digits_dense", ["epochs=10", f"seed={seed}"])
    model, plan = ep.train(config).model, Plan(samples, batch=10, anneal=0.1, seed=seed)
    return {
        kind: tell_story(kind, model, digits, plan, how, target=target, seed=seed).recovery
        for kind, how in HOW.items()
    }


if __name__ == "__main__":
    over_seeds(tell)
