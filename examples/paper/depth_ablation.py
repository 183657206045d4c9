"""Residual against plain Hopfield networks by depth, by equilibrium propagation and by backprop.

    python examples/paper/depth_ablation.py [--out DIR] [--depths 5 9 13 17] [--epochs 12]

Each pair of networks differs in its skip couplings alone: same widths, same way to start (gains
and boxes from `keep_alive`, measured on 64 training images), same optimiser, same images. Backprop
trains the feed-forward twin. Writes each result to DIRECTORY/depth.json as soon as it is there,
goes on from what that file holds, and draws DIRECTORY/depth.svg.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ep_neuro.config import TrainConfig, build_config
from ep_neuro.data import Dataset, load
from ep_neuro.files import write_atomic
from ep_neuro.initialisation import keep_alive
from ep_neuro.report import save_figure
from ep_neuro.report.palette import LIGHT, series_style
from ep_neuro.spec import NetworkSpec
from ep_neuro.training import train
from ep_neuro.zoo import OUTPUT_BOX, hopfield_resnet, without_skips

WIRINGS, METHODS = ("residual", "plain"), ("ep", "backprop")


def network(depth: int, wiring: str, dataset: Dataset) -> NetworkSpec:
    """A network of `depth` populations, the output among them: two for each block."""
    blocks, rest = divmod(depth - 1, 2)
    if rest or blocks < 1:
        raise SystemExit(f"depth {depth}: blocks of two and an output make an odd number from 3 on")
    spec = hopfield_resnet(
        f"{wiring}{depth}",
        image=(dataset.shape[0], dataset.shape[1], dataset.shape[2]),
        channels=(16, 16, *(32,) * (2 * blocks - 2)),
        classes=len(dataset.classes),
        heights=(6.0,) * (2 * blocks),
        output_box=OUTPUT_BOX,
        gain=0.3,
        input_gain=1.0,
    )
    spec = spec if wiring == "residual" else without_skips(spec, spec.name)
    return keep_alive(spec, torch.from_numpy(dataset.train.head(64).x))


def configuration(
    spec: NetworkSpec, method: str, options: argparse.Namespace, seed: int
) -> TrainConfig:
    """The same training for all but the estimator.

    Seen from the input, the response to a nudge is many orders smaller than a box at depth 17: two
    phases lose it in their difference, and a tolerance in heights of the box stops before it
    arrives. The frozen mean settles it as a tensor of its own, here for a fixed number of sweeps.
    """
    ep = {
        "kind": "frozen-mean",
        "free": {"method": "coloured", "sweeps": 40, "tolerance": 1e-4},
        "nudged": {"method": "coloured", "sweeps": 20, "relaxation": 1.3, "tolerance": 0.0},
        "fallback": False,
    }
    return build_config(
        {
            "network": spec.to_dict(),
            "data": options.data,
            "estimator": ep if method == "ep" else {"kind": "backprop"},
            "optimiser": {"lr": 0.05, "relative": True, "weight_decay": 0.02, "warmup": 0.1},
            "epochs": options.epochs,
            "batch": 32,
            "average": 0.98,
            "seed": seed,
        }
    )


def study(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every run that is not yet in ``depth.json``; all results."""
    place = options.out / "depth.json"
    rows: list[dict[str, Any]] = json.loads(place.read_text()) if place.is_file() else []
    known = {(r["depth"], r["wiring"], r["method"], r["seed"], r["epochs"]) for r in rows}
    dataset = load(options.data, options.data_root)
    for depth, seed, wiring, method in itertools.product(
        options.depths, range(options.seeds), WIRINGS, METHODS
    ):
        if (depth, wiring, method, seed, options.epochs) in known:
            continue
        started = time.monotonic()
        config = configuration(network(depth, wiring, dataset), method, options, seed)
        result = train(config, dataset=dataset)
        rows.append(
            {
                "depth": depth,
                "wiring": wiring,
                "method": method,
                "seed": seed,
                "epochs": options.epochs,
                "test_accuracy": result.test.accuracy,
                "unsettled": result.test.unsettled,
                "spectral_radius": result.history[-1].get("spectral_radius"),
                "parameters": config.spec().parameters,
                "seconds": time.monotonic() - started,
            }
        )
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})
        write_atomic(place, (json.dumps(rows, indent=1) + "\n").encode())
    return [r for r in rows if r["epochs"] == options.epochs and r["depth"] in options.depths]


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Test accuracy by depth, the mean over seeds, a line for each wiring and method."""
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for index, (wiring, method) in enumerate(itertools.product(WIRINGS, METHODS)):
        mine = [r for r in rows if (r["wiring"], r["method"]) == (wiring, method)]
        depths = sorted({r["depth"] for r in mine})
        means = [
            100 * np.mean([r["test_accuracy"] for r in mine if r["depth"] == d]) for d in depths
        ]
        style = series_style(index)
        axes.plot(
            depths, means, color=LIGHT[style.colour], linestyle=style.dash, marker=style.marker,
            label=f"{wiring}, {'EP' if method == 'ep' else method}",
        )  # fmt: skip
    axes.set_xticks(sorted({r["depth"] for r in rows}))
    axes.set_xlabel("populations")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Read the options, run what is missing, draw."""
    parser = argparse.ArgumentParser(description="Accuracy by depth, with and without skips.")
    parser.add_argument("--out", type=Path, default=Path("runs/depth"))
    parser.add_argument("--depths", type=int, nargs="+", default=[5, 9, 13, 17])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    save_figure(draw(study(options)), options.out / "depth.svg")


if __name__ == "__main__":
    main()
