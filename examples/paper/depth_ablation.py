"""Residual against plain Hopfield networks by depth, by equilibrium propagation and by backprop.

    python examples/paper/depth_ablation.py [--out DIR] [--depths 5 9 17 33] [--seeds 3]

Each pair of networks differs in its skip couplings alone: same widths, same units, same gains, same
optimiser, same images. Backprop trains the feed-forward twin. Writes each result to
DIR/depth.jsonl as soon as it is there, goes on from what that file holds, and draws DIR/depth.svg.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ep_neuro.data.datasets import Dataset, load
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.network.architectures import resnet_in_units, without_skips
from ep_neuro.report import save_figure
from ep_neuro.report.plots.palette import LIGHT, series_style
from ep_neuro.training.config import TrainConfig, build_config
from ep_neuro.training.loop import train

WIRINGS, METHODS = ("residual", "plain"), ("ep", "backprop")

SHRINK = 3.0
"""Ratio of neighbouring units. At 33 populations the first unit is 1.9e15, and float32 bears 1e16
(`ep_neuro.energy.spec.LARGEST_UNIT`)."""


def network(depth: int, wiring: str, dataset: Dataset, width: int = 16) -> NetworkSpec:
    """A network of `depth` populations, the output among them, on images of 4x4 from the second on.

    The branches are weak and the skips strong enough to keep the signal: a loop through weak
    branches dies in a few sweeps.
    """
    if depth < 3:
        raise SystemExit(f"depth {depth}: two hidden populations and an output make 3 or more")
    spec = resnet_in_units(
        f"{wiring}{depth}",
        image=(dataset.shape[0], dataset.shape[1], dataset.shape[2]),
        channels=(width,) * (depth - 1),
        strides=(1, 2, *(1,) * (depth - 3)),
        kernel=3,
        shrink=SHRINK,
        gain=0.5,
        skip_gain=1.7,
        classes=len(dataset.classes),
    )
    return spec if wiring == "residual" else without_skips(spec, spec.name)


def configuration(
    spec: NetworkSpec, method: str, options: argparse.Namespace, seed: int
) -> TrainConfig:
    """The same training for all but the estimator, whose sweeps are the fewest that keep it true.

    Steps are whole: what over-relaxation overshoots would grow from population to population.
    """
    ep = {
        "kind": "frozen-mean",
        "free": {"sweeps": 30, "relaxation": 1.0},
        "nudged": {"sweeps": 20, "relaxation": 1.0},
        "fallback": False,
    }
    return build_config(
        {
            "network": spec.to_dict(),
            "data": options.data,
            "estimator": ep if method == "ep" else {"kind": "backprop"},
            "truth": {"every": 60},
            "optimiser": {"lr": 0.02, "relative": True, "weight_decay": 0.02, "warmup": 0.1},
            "evaluation": {"sweeps": 50, "relaxation": 1.0, "tolerance": 1e-3},
            "epochs": options.epochs,
            "batch": 64,
            "average": 0.95,
            "seed": seed,
        }
    )


def run(job: Mapping[str, Any], dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Train what `job` says; the job with its results."""
    started = time.monotonic()
    spec = network(job["depth"], job["wiring"], dataset)
    config = configuration(spec, job["method"], options, job["seed"])
    result = train(config, dataset=dataset)
    last = result.history[-1]
    return {
        **job,
        "test_accuracy": result.test.accuracy,
        "loss": last["loss"],
        "unsettled": result.test.unsettled,
        "gradient_cosine": min(r.get("gradient_cosine", 1.0) for r in result.history),
        "worst_cosine": min(r.get("worst_cosine", 1.0) for r in result.history),
        "sweeps_free": last.get("sweeps_free"),
        "sweeps_nudged": last.get("sweeps_nudged"),
        "parameters": spec.parameters,
        "seconds": time.monotonic() - started,
    }


def study(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every job that is not yet in ``depth.jsonl``; the results of all."""
    place = options.out / "depth.jsonl"
    rows = [json.loads(line) for line in place.read_text().splitlines()] if place.is_file() else []
    dataset = load(options.data, options.data_root)
    keys = ("depth", "wiring", "method", "seed", "epochs")
    jobs = [
        dict(zip(keys, (depth, wiring, method, seed, options.epochs), strict=True))
        for wiring, depth, seed, method in itertools.product(
            options.wirings, options.depths, range(options.seeds), METHODS
        )
    ]
    known = {tuple(row[key] for key in keys): row for row in rows}
    for number, job in enumerate(jobs, 1):
        if (key := tuple(job.values())) in known:
            continue
        known[key] = run(job, dataset, options)
        with place.open("a") as lines:
            lines.write(json.dumps(known[key]) + "\n")
        short = {k: round(v, 3) if isinstance(v, float) else v for k, v in known[key].items()}
        print(f"{number} of {len(jobs)}: {short}", flush=True)
    return [known[tuple(job.values())] for job in jobs]


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Test accuracy by depth: mean and range over seeds, a line for each wiring and method."""
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for index, (wiring, method) in enumerate(itertools.product(WIRINGS, METHODS)):
        found: dict[int, list[float]] = {}
        for r in rows:
            if (r["wiring"], r["method"]) == (wiring, method):
                found.setdefault(r["depth"], []).append(100 * r["test_accuracy"])
        means = {depth: sum(values) / len(values) for depth, values in sorted(found.items())}
        below = [means[depth] - min(found[depth]) for depth in means]
        above = [max(found[depth]) - means[depth] for depth in means]
        style = series_style(index)
        axes.errorbar(
            list(means), list(means.values()), yerr=[below, above], capsize=3,
            color=LIGHT[style.colour], linestyle=style.dash, marker=style.marker,
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
    parser.add_argument("--depths", type=int, nargs="+", default=[5, 9, 17, 33])
    parser.add_argument("--wirings", nargs="+", choices=WIRINGS, default=WIRINGS)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    save_figure(draw(study(options)), options.out / "depth.svg")


if __name__ == "__main__":
    main()
