"""Learn digits from scratch on Lava: spikes, 8-bit weights, nothing but local quantities.

    python examples/08_learn_on_chip.py [DIRECTORY] [SAMPLES]

Compiles fresh weights with a learning rule. A sample settles freely, then nudged towards its label,
then nudged away; each synapse changes by what its two neurons did, rounded at random to its 8 bits.
Without Lava it learns on the reference, which comes to the same weights.
Writes the learnt program, the network that came of it, and figures of the accuracy, of a few
synapses and of their agreement with the EP gradient to DIRECTORY (runs/examples by default).
"""

from __future__ import annotations

import sys
from pathlib import Path

import compilers
import ep_neuro as ep
from ep_neuro.data import datasets
from targets import Plan, or_reference, plastic, write_model
from targets.experiments.onchip import learning

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
SAMPLES = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000


def show(done: int, total: int, accuracies: str) -> None:
    """Print where it is, ten times."""
    if done % (total // 10) == 0:
        print(f"{done:6d} of {total}: {accuracies}")


def main() -> None:
    digits = datasets.load("digits")
    fresh = ep.open_model("zoo:digits_dense", seed=0)  # whose weights leave bits to learn
    target = or_reference("lava", print)
    program = compilers.compile(
        fresh, target, code="spike", bits=8, learn="spike-average", beta=0.5
    )
    learnt = learning.learn(
        plastic(program, rate=0.4, output_rate=0.64),
        digits,
        Plan(samples=SAMPLES, batch=10, points=10, anneal=0.05),
        out=OUT / "digits.run",
        force=True,  # without it, a run that stands there is not replaced
        monitor=show,
    )
    found = learning.write(learnt, OUT / "digits.program")
    print(f"before {found['accuracy_before']:.1%}, after {found['accuracy_after']:.1%}")
    print(f"{found['sign_agreement']:.1%} of the changes have the sign of the EP gradient")
    print(f"{found['events_per_sample']:.0f} events a sample, all phases")
    model = write_model(learnt.program, OUT / "digits.model", data="digits")
    settled = ep.evaluate(ep.load_model(model).network, digits.test, ep.Schedule(sweeps=100))
    print(f"as a network in floating point {settled.accuracy:.1%}")


if __name__ == "__main__":
    main()
