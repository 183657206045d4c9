"""Run a trained network on memristor arrays: errors, drift, and learning on the devices.

    python examples/07_run_on_a_crossbar.py [DIRECTORY]

Trains for a few seconds and settles test digits on arrays whose devices err and drift. Both
directions of a coupling read the same array. Then lets an array with 10 % programming error learn
by EP on its own devices. Writes accuracy against programming error to DIRECTORY/error.svg
(runs/examples by default). Needs aihwkit: pip install 'ep-neuro[crossbar]'.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ep_neuro as ep
import targets
from ep_neuro.data import datasets
from ep_neuro.report import save_figure
from targets.crossbar.arrays.options import YEAR
from targets.crossbar.study import draw, program_for, recover, sweep

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")


def main() -> None:
    network = ep.train(ep.read_config("zoo:digits_dense", ["epochs=10"])).model.network
    digits = datasets.load("digits")
    test = digits.test.head(200)

    arrays = {
        "exact": {},
        "PCM, one year old": {"preset": "pcm", "seconds": YEAR},
        "not compensated": {"preset": "pcm", "seconds": YEAR, "compensation": False},
    }
    for name, options in arrays.items():
        program = program_for(network, options)
        with targets.open(program) as session:
            result = session.settle(test.x)
        accuracy = (result.predictions == test.y).mean()
        cost = targets.get("crossbar").estimate(program, result)
        print(f"{name}: {accuracy:.1%}, about {cost.energy_joule * 1e9:.0f} nJ a digit")
    print(program.files["tiles.txt"], end="")

    found = recover(network, digits, {"programming_error": 0.1}, epochs=1)
    print(f"10 % programming error: {found.erroneous:.1%}, learnt: {found.learnt[-1]:.1%}")

    OUT.mkdir(parents=True, exist_ok=True)
    save_figure(draw(sweep(network, test.head(100), "error", seeds=1)), OUT / "error.svg")
    print(f"accuracy against programming error: {OUT / 'error.svg'}")


if __name__ == "__main__":
    main()
