"""The main job on the bundled digits: train by EP, compile, run, compare, learn, report."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import targets
from compilers import compile_network
from compilers.ir.plasticity import CONTRASTIVE
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Dataset
from ep_neuro.errors import EPNeuroError
from ep_neuro.network.checkpoint import Model
from ep_neuro.network.network import Network
from ep_neuro.training.config import TrainConfig, read_config
from ep_neuro.training.loop import TrainResult, train
from ep_neuro.training.metrics import CONFIG, training_curve, truth_beside
from ep_neuro.training.run_directory import MARKER
from targets.experiments.comparison.choices import Choice, default_choices
from targets.experiments.comparison.compare import Compared, compare
from targets.experiments.comparison.report_page import comparison_page
from targets.experiments.onchip.faults import damage
from targets.experiments.onchip.recovery import Recovery, accuracy, recover
from targets.experiments.onchip.schedule import Plan

RECIPE = "zoo:digits_residual"

STUCK, DEAD = 0.1, 0.05
"""Shares of the synapses and of the hidden neurons that do not work where the demo learns."""

LEARNT: dict[str, Any] = {"bits": 8, "steps": 32}
"""How the program is compiled that learns there."""

SAMPLES = 800

RUN = f"model/{MARKER}"
"""File of the run in every directory that a demo made."""

Log = Callable[[str], None]
Bar = Callable[[str], AbstractContextManager[Callable[..., None]]]
"""Opens a progress bar under a title; the bar is called with (done, all, note)."""


def run_demo(out: Path, *, log: Log, progress: Bar) -> dict[str, Any]:
    """Run everything into the directory `out`; the fields of ``ep-neuro demo --json``."""
    started = time.perf_counter()
    config = read_config(RECIPE)
    dataset = datasets.load(config.data)
    log(f"training {config.spec().name} on {len(dataset.train)} digits by EP")
    trained = _train(config, out, progress)
    log(f"test accuracy of the settled network: {trained.test.accuracy:.2%}")
    choices = [Choice.parse(text) for text in default_choices(log)]
    rows = _compared(trained.model, dataset, config, choices, progress)
    log(f"learning with {STUCK:.0%} of the synapses stuck and {DEAD:.0%} of the neurons dead")
    recovery = learn_on_chip(trained.model.network, dataset, choices[-1].target, progress)
    log("\n".join(recovery.in_words()))
    log("drawing the report")
    report = comparison_page(
        trained.model,
        dataset.test,
        f"{config.data}, test split",
        rows,
        ["make demo", f"ep-neuro train {RECIPE}", "ep-neuro compare runs/demo/model/best"],
        out,
        learning=[
            training_curve("Training by equilibrium propagation", trained.history),
            recovery.curve,
        ],
        truth=truth_beside(out / "model"),
        details={
            "Training": _in_words(trained),
            "Damaged array": f"{STUCK:.0%} of the synapses stuck, {DEAD:.0%} of the neurons dead",
            "On-chip learning": recovery.summary,
        },
    )
    return {
        "test_accuracy": trained.test.accuracy,
        "rows": [c.row.to_dict() for c in rows],
        "learning": recovery.fields(),
        "report": str(report),
        "seconds": time.perf_counter() - started,
    }


def _train(config: TrainConfig, out: Path, progress: Bar) -> TrainResult:
    with progress("training") as advance:

        def monitor(done: int, total: int, latest: dict[str, float]) -> None:
            note = f"epoch {latest['epoch']:.0f}"
            if "val_accuracy" in latest:
                note += f", validation {latest['val_accuracy']:.1%}"
            advance(done, total, note)

        place = out / "model"
        return train(config, place, force=_made_before(place, config), monitor=monitor)


def _compared(
    model: Model, dataset: Dataset, config: TrainConfig, choices: Sequence[Choice], progress: Bar
) -> list[Compared]:
    count = itertools.count(1)
    with progress("comparing") as advance:
        return compare(
            model,
            dataset.test,
            choices,
            schedule=config.evaluation,
            learning=True,
            on_row=lambda one: advance(next(count), 1 + len(choices), one.row.label),
        )


def _made_before(place: Path, config: TrainConfig) -> bool:
    """Whether a demo made the run at `place`: one of its configuration, which gives it again.

    Or a run that was stopped before it wrote its configuration: there is nothing to lose.
    """
    if (place / MARKER).is_file() and not any((place / n).exists() for n in (CONFIG, "best")):
        return True
    try:
        return read_config(str(place / CONFIG)) == config
    except EPNeuroError:
        return False


def learn_on_chip(network: Network, dataset: Dataset, target: str, progress: Bar) -> Recovery:
    """What learning on `target` regains of what a damaged array took."""
    program = compile_network(network, targets.get(target), learn=CONTRASTIVE.name, **LEARNT)
    with progress("learning on chip") as advance:
        return recover(
            f"On-chip learning on a damaged array, on the target {target}",
            accuracy(program, dataset.test),
            damage(program, stuck=STUCK, dead=DEAD).program,
            dataset,
            Plan(samples=SAMPLES, batch=20, points=5, anneal=1.0),
            monitor=advance,
        )


def _in_words(trained: TrainResult) -> str:
    seconds = sum(r["seconds"] for r in trained.history)
    return f"{len(trained.history)} epochs, {seconds:.0f} s on one core"
