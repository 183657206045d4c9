"""A stranger's first ten minutes: from the installed package to a network in another simulator.

    pip install ep-neuro && pip install --no-deps nirtorch sinabs pbr
    python ten_minutes.py [--data-root DIR] [--limit N] [--out DIR]

Nothing is trained, and this file is all that a clone is needed for. Lists the models that came
along, compiles that of MNIST to spikes for sinabs (a simulator of SynSense's chips) as a NIR file,
steps the file there, and compares with our own answers. The images are those of MNIST below DIR, as
torchvision leaves them; without a DIR, digits of scikit-learn, drawn at the size of MNIST's.
Without sinabs our own interpreter runs the nodes of the file.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import nir
import numpy as np
import torch
from torch.nn.functional import interpolate, pad

import compilers
import ep_neuro as ep
import targets
from compilers.learning.traces import spike_weights
from targets.nir.backend import BACKEND

STEPS = 32


def images(root: Path | None, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, 28, 28) and labels (N,): a box of 20x20 in a margin of 4, as MNIST has."""
    if root is not None:
        test = ep.data.load("mnist", root, download=False).test.head(limit)
        return test.x, test.y
    test = ep.data.load("digits").test.head(limit)
    drawn = interpolate(torch.from_numpy(test.x), size=(20, 20), mode="bicubic").clamp(0, 1)
    return pad(drawn, (4, 4, 4, 4)).numpy(), test.y


def in_sinabs(file: Path, x: np.ndarray) -> np.ndarray:
    """Spikes of each class, those of each step by their weight in a readout, (N, classes)."""
    graph = nir.read(file)
    (output,) = (pre for pre, post in graph.edges if isinstance(graph.nodes[post], nir.Output))
    model = importlib.import_module("sinabs.nir").from_nir(graph, batch_size=len(x))
    inputs, state, sent = torch.from_numpy(x).flatten(1), None, []
    with torch.no_grad():
        for _ in range(STEPS):
            _, state = model(inputs, state)
            sent.append(state.cache[output].numpy().copy())
    return np.average(np.stack(sent), 0, spike_weights(STEPS, from_rest=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("runs/ten_minutes"))
    args = parser.parse_args()
    subprocess.run([sys.executable, "-m", "ep_neuro", "models"], check=True)
    model, file = ep.load_model("hub:mnist_residual"), args.out / "mnist_residual.nir"
    x, y = images(args.data_root, args.limit)

    def compiled(target: str, **options: str) -> compilers.Program:
        return compilers.compile(model, target, code="spike", steps=STEPS, options=options)

    def answers(program: compilers.Program) -> np.ndarray:
        with targets.open(program) as session:
            return session.settle(x).predictions

    for_sinabs = compiled("nir", reader="sinabs")
    BACKEND.export(for_sinabs, file)
    if importlib.util.find_spec("sinabs") is None:
        tool, found = "our interpreter (no sinabs here)", answers(for_sinabs)
    else:
        tool = f"sinabs {importlib.metadata.version('sinabs')}"
        found = in_sinabs(file, x).argmax(1)
    ours = answers(compiled("reference"))
    source = "digits of scikit-learn" if args.data_root is None else "MNIST"
    print(f"{file}: {file.stat().st_size:,} bytes; {len(x)} images: {source}; {STEPS} steps")
    print(f"{tool}: {(found == y).mean():.1%} right, {(found == ours).mean():.1%} as ours")
    print(f"reference: {(ours == y).mean():.1%} right")


if __name__ == "__main__":
    main()
