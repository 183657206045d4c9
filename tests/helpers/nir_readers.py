"""Runs NIR files in tools that are not ours, and prints one JSON row per tool and file.

    python tests/helpers/nir_readers.py DIRECTORY

Needs no part of ep-neuro, so that it runs in an environment of the tools: nir, nirtorch, norse,
sinabs, snntorch. DIRECTORY holds ``graded.nir``, ``spike.nir`` and ``spike1.nir`` (leak 1), and
``data.npz`` with inputs ``x``, labels ``y``, and by file name what it should give, (N, classes).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch

STEPS = 64
Reader = Callable[[nir.NIRGraph, int], torch.nn.Module]


class LeakyIntegrator(torch.nn.Module):
    """What a user of nirtorch writes for ``LI``: forward Euler, and the box from the metadata."""

    def __init__(self, node: nir.LI, clip: bool) -> None:
        super().__init__()
        box = node.metadata.get("box") if clip else None
        self.box = (-np.inf, np.inf) if box is None else tuple(map(float, box))
        self.tau, self.r, self.v_leak = map(torch.tensor, (node.tau, node.r, node.v_leak))

    def forward(
        self, x: torch.Tensor, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        v = torch.zeros_like(self.tau) if state is None else state
        v = v + (self.v_leak - v + self.r * x) / self.tau
        return v.clamp(*self.box), v


def affine(node: nir.Affine) -> torch.nn.Linear:
    """The default map of nirtorch 2.6 leaves the bias at its random start."""
    layer = torch.nn.Linear(*node.weight.shape[::-1])
    layer.weight.data, layer.bias.data = torch.tensor(node.weight), torch.tensor(node.bias)
    return layer


def by_nirtorch(clip: bool) -> Reader:
    def read(graph: nir.NIRGraph, _: int) -> torch.nn.Module:
        import nirtorch

        known = {nir.LI: lambda node: LeakyIntegrator(node, clip), nir.Affine: affine}
        return nirtorch.nir_to_torch(graph, known)

    return read


def by_sinabs(norm: bool) -> Reader:
    def read(graph: nir.NIRGraph, samples: int) -> torch.nn.Module:
        import sinabs.layers
        import sinabs.nir

        model = sinabs.nir.from_nir(graph, batch_size=samples)
        for layer in model.modules():
            if norm and isinstance(layer, sinabs.layers.ExpLeak):
                layer.norm_input = True
        return model

    return read


def by_norse(graph: nir.NIRGraph, _: int) -> torch.nn.Module:
    import norse.torch

    return norse.torch.from_nir(graph, dt=1.0)


def by_snntorch(hidden: bool) -> Reader:
    def read(graph: nir.NIRGraph, _: int) -> torch.nn.Module:
        import snntorch
        from snntorch.import_nir import import_from_nir

        model = import_from_nir(graph)
        for layer in model.modules():
            if hidden and isinstance(layer, snntorch.Leaky):
                layer.init_hidden = True
                layer.beta = torch.tensor(1.0)
        return model

    return read


READERS: tuple[tuple[str, str, Reader], ...] = (
    ("nirtorch", "with LI and its box", by_nirtorch(clip=True)),
    ("nirtorch", "with LI, no box", by_nirtorch(clip=False)),
    ("sinabs", "as it is", by_sinabs(norm=False)),
    ("sinabs", "norm_input=True", by_sinabs(norm=True)),
    ("norse", "as it is", by_norse),
    ("snntorch", "as it is", by_snntorch(hidden=False)),
    ("snntorch", "init_hidden, beta=1", by_snntorch(hidden=True)),
)


def outputs(model: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """Output after each step, (T, N, classes), with the same input at every step."""
    state, steps = None, []
    with torch.no_grad():
        for _ in range(STEPS):
            out, state = model(x, state)[:2]
            steps.append(out.numpy().copy())
    return np.stack(steps)


def attempt(read: Reader, path: Path, data: Any) -> dict[str, Any]:
    """What happens when a tool loads and runs `path`: measurements, or the failure in one line."""
    x, wanted = torch.tensor(data["x"]).float().flatten(1), data[path.stem]
    row: dict[str, Any] = {"loads": False, "runs": False}
    # Any failure of a stranger's tool is a finding here.
    try:
        model = read(nir.read(path), len(x))
        row["loads"] = True
        steps = outputs(model, x)
    except Exception as error:
        return {**row, "problem": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    shown = steps[STEPS // 2 :].mean(0) if path.stem.startswith("spike") else steps[-1]
    return {
        **row,
        "runs": True,
        "accuracy": float((shown.argmax(1) == data["y"]).mean()),
        "agreement": float((shown.argmax(1) == wanted.argmax(1)).mean()),
        "difference": float(np.abs(shown - wanted).max()),
    }


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = np.load(folder / "data.npz")
    for tool, how, read in READERS:
        for name in ("graded", "spike", "spike1"):
            with contextlib.redirect_stdout(io.StringIO()):
                row = attempt(read, folder / f"{name}.nir", data)
            version = importlib.metadata.version(tool)
            print(json.dumps({"tool": tool, "version": version, "how": how, "file": name, **row}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
