"""Train a 64-128-10 network on handwritten digits by equilibrium propagation.

    python examples/01_train.py [DIRECTORY]

Centered EP settles every batch three times: freely, then nudged towards the labels and away from
them. The difference of the two nudged equilibria is the gradient; nothing is backpropagated.
Writes the run to DIRECTORY/digits (runs/examples/digits by default); its `best` is the model that
did best on validation.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ep_neuro as ep

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples") / "digits"


def main() -> None:
    config = ep.TrainConfig(
        network="zoo:digits_dense",
        data="digits",
        estimator=ep.Centered(
            beta=0.2,
            free=ep.Schedule(sweeps=30, relaxation=1.3, tolerance=1e-3),
            nudged=ep.Schedule(sweeps=12, relaxation=1.3, tolerance=2e-4),
        ),
        optimiser=ep.Optimiser(lr=0.005, weight_decay=0.1),
        epochs=6,
        batch=32,
    )

    def monitor(done: int, total: int, latest: dict[str, float]) -> None:
        if done % (total // config.epochs) == 0 and "val_accuracy" in latest:
            print(f"step {done} of {total}: validation {latest['val_accuracy']:.1%} an epoch ago")

    # Without force, a run that stands there is not replaced.
    result = ep.train(config, OUT, force=True, monitor=monitor)
    print(f"test accuracy {result.test.accuracy:.1%}")
    print(f"{result.test.unsettled:.1%} unsettled, largest residual {result.test.residual:.1e}")
    print(f"model: {OUT / 'best'}")


if __name__ == "__main__":
    main()
