"""Hand a trained network to other tools as a NIR file, and take one from them.

    python examples/05_exchange_by_nir.py [DIRECTORY]

Writes a model of the hub as spiking neurons without a synaptic filter, the form that most readers
of NIR know. Then reads the file back in both ways: exactly, by the metadata that ep-neuro leaves in
it, and from its nodes alone, as if another tool had written it. Writes to DIRECTORY (runs/examples
by default).
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import nir

import compilers
import ep_neuro as ep
import targets
from ep_neuro.data import datasets
from targets.nir.files import load_nir, save_nir
from targets.nir.importer import import_nir

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")


def main() -> None:
    network = ep.load_model("hub:digits_resnet").network
    test = datasets.load("digits").test.head(50)

    spikes = compilers.compile(network, target="nir", code="spike", leak=1.0)
    save_nir(spikes.graph, OUT / "spikes.nir")
    kinds = Counter(type(node).__name__ for node in nir.read(OUT / "spikes.nir").nodes.values())
    print("spikes.nir:", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    same = load_nir(OUT / "spikes.nir").digest() == spikes.graph.digest()
    print(f"read back: {'the same graph' if same else 'another graph'}")
    with targets.open(spikes) as session:
        print(f"its nodes get {(session.settle(test.x).predictions == test.y).mean():.1%} right")

    graded = compilers.compile(network, target="nir", code="graded")
    save_nir(graded.graph, OUT / "integrators.nir")
    imported = import_nir(OUT / "integrators.nir")
    accuracy = ep.evaluate(imported.network, test, ep.Schedule()).accuracy
    print(f"from its leaky integrators alone, a network that gets {accuracy:.1%} right:")
    print(imported.network.spec.to_yaml(), end="")


if __name__ == "__main__":
    main()
