"""Residual against plain Hopfield networks by depth, by equilibrium propagation and by backprop.

    python examples/paper/depth_ablation.py [--out DIR] [--depths 5 9 17 33] [--seeds 3]
        [--jobs N | --dask ADDRESS]

Each pair of networks differs in its skip couplings alone: same widths, same units, same gains, same
optimiser, same images. Backprop trains the feed-forward twin. Each training is a job, whose result
is kept in DIR/jobs as soon as it is there, and is not run again. Writes all to DIR/depth.jsonl,
behind what that file holds of earlier calls, and draws DIR/depth.svg.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ep_neuro.cli.ending import exit_code
from ep_neuro.data.datasets import Dataset, load
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import ConfigError
from ep_neuro.network.architectures import resnet_in_units, without_skips
from ep_neuro.report import save_figure
from ep_neuro.report.plots.palette import LIGHT, series_style
from ep_neuro.storage.atomic import write_file
from ep_neuro.training.config import TrainConfig, build_config
from ep_neuro.training.loop import train
from targets.experiments.studies.jobs import Job, Kept, Workers, refuse_lost, run_shown

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
        problem = "two hidden populations and an output make 3 or more"
        raise ConfigError(f"--depths {depth}", problem, "give 3 or more")
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


def work(
    shared: tuple[Dataset, argparse.Namespace], job: Job, tell: Callable[[Any], None]
) -> list[dict[str, Any]]:
    """Train what `job` says; its facts with the results."""
    (dataset, options), facts = shared, job.facts
    started = time.monotonic()
    spec = network(facts["depth"], facts["wiring"], dataset)
    config = configuration(spec, facts["method"], options, facts["seed"])
    result = train(config, dataset=dataset)
    last = result.history[-1]
    row = {
        **facts,
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
    tell(row)
    return [row]


def study(options: argparse.Namespace, workers: Workers, lost: list[str]) -> list[dict[str, Any]]:
    """The results of all jobs that are not `lost`, and ``depth.jsonl``."""
    dataset = load(options.data, options.data_root)
    for depth in options.depths:
        network(depth, "residual", dataset)
    keys = ("depth", "wiring", "method", "seed", "epochs")
    facts = [
        dict(zip(keys, (depth, wiring, method, seed, options.epochs), strict=True))
        for wiring, depth, seed, method in itertools.product(
            options.wirings, options.depths, range(options.seeds), METHODS
        )
    ]
    jobs = [Job(" ".join(f"{key} {one[key]}" for key in keys[:4]), one) for one in facts]
    kept = Kept(options.out / "jobs", "depth study", {"data": dataset.digest})

    def said(row: dict[str, Any]) -> str:
        results = {key: value for key, value in row.items() if key not in keys}
        return str({k: round(v, 3) if isinstance(v, float) else v for k, v in results.items()})

    shared = (dataset, options)
    found = run_shown(
        "training", work, shared, jobs, workers=workers, kept=kept, said=said, lost=lost
    )
    rows: list[dict[str, Any]] = [row for some in found for row in some or ()]
    place = options.out / "depth.jsonl"
    before = (
        [json.loads(line) for line in place.read_text().splitlines()] if place.is_file() else []
    )
    every = {tuple(row[key] for key in keys): row for row in (*before, *rows)}
    text = "".join(json.dumps(row) + "\n" for row in every.values())
    write_file(place, text.encode(), ConfigError, marker=b'"wiring"')
    return rows


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
    Workers.add_options(parser)
    options, lost = parser.parse_args(), list[str]()
    rows = study(options, Workers(options.jobs, options.dask), lost)
    save_figure(draw(rows), options.out / "depth.svg")
    refuse_lost(lost, options.out / "jobs")


if __name__ == "__main__":
    sys.exit(exit_code(main, debug=False))
