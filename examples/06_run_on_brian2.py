"""Write a trained network as a Brian2 script, run it, and draw what its neurons spike.

    python examples/06_run_on_brian2.py [DIRECTORY]

Trains for a few seconds and compiles for Brian2 with binary spikes. The script and its weights go
to DIRECTORY (runs/examples by default), where they run without ep-neuro; here they settle test
digits, in C++ where there is a compiler. Draws the spikes of one digit as DIRECTORY/spikes.svg.
"""

from __future__ import annotations

import sys
from pathlib import Path

import compilers
import ep_neuro as ep
import targets
from ep_neuro.data import datasets
from ep_neuro.report import EncodingActivity, plot_raster

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")


def main() -> None:
    network = ep.train(ep.read_config("zoo:digits_dense", ["epochs=3"])).model.network
    test = datasets.load("digits").test.head(100)
    program = compilers.compile(network, target="brian2", code="spike")

    targets.get("brian2").export(program, OUT / "digits_brian2.py")  # type: ignore[attr-defined]
    print(f"a script that needs brian2 only: {OUT / 'digits_brian2.py'}")

    neurons = program.graph.neurons
    with targets.open(program) as session:
        result = session.settle(test.x, probes=[f"{p.name}.message" for p in neurons])
    print(f"Brian2 gets {(result.predictions == test.y).mean():.1%} of {len(test)} digits right")
    same = compilers.compile(network, target="reference", code="spike")
    with targets.open(same) as session:
        reference = session.settle(test.x)
    for name, events in result.free.events.items():
        spikes, expected = events.sum(), reference.free.events[name].sum()
        print(f"{name:>8}: {spikes} events, {expected} on the reference")

    spikes = {p.name: result.free.probes[f"{p.name}.message"][:, 0] for p in neurons}
    means = {name: events.mean(1) for name, events in result.free.events.items()}
    plot_raster(EncodingActivity("spike", means, spikes)).savefig(OUT / "spikes.svg")
    print(f"spikes of the first digit: {OUT / 'spikes.svg'}")


if __name__ == "__main__":
    main()
