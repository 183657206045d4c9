"""Training for `gpu.sh`: as many epochs of CIFAR-10 as end in time, or what is left of them.

    python examples/paper/gpu_train.py DATA --out DIR --until TIME [--device cpu]

DATA is a file of packed images (`ep_neuro.data.packed_images`), TIME the Unix time of the end.
Steps, a look at the gradient and a validation are clocked first, and the epochs chosen so that the
cosine of the rate comes to its end. A second call goes on with what has begun. On a CPU it is a dry
run: one epoch of a narrow network.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from gpu_bench import Results, networks, seconds, tensors

from ep_neuro.data.datasets import Dataset, fitted, load
from ep_neuro.errors import EPNeuroError
from ep_neuro.network.network import Network
from ep_neuro.network.stability import spectral_radius
from ep_neuro.training.config import TrainConfig, build_config, read_config
from ep_neuro.training.distributed import Ranks, choose_device
from ep_neuro.training.loop import RADIUS_SAMPLES, evaluate, train
from ep_neuro.training.metrics import Record
from ep_neuro.training.train_step import Stepper

CONFIG = Path(__file__).with_name("cifar10_gpu.yaml")
MARGIN = 0.85
"""Share of the time left that epochs are planned for: the clock of some steps is not exact."""

CLOCKED = 720
"""Validation images by which a validation is clocked."""


def configured(data: Path, device: str) -> TrainConfig:
    """`CONFIG` on `data`; a narrow network on a CPU."""
    given = [f"data=npz:{data}", f"device={device}"]
    if device == "cpu":
        (narrow,) = networks(torch.device(device)).values()
        given += [f"network={json.dumps(narrow.to_dict())}", "batch=16", "threads=1"]
    return read_config(str(CONFIG), given)


def seconds_an_epoch(config: TrainConfig, dataset: Dataset, device: torch.device) -> float:
    """An epoch of `config` by the clock of some steps, a look at the truth, and a validation."""
    network = Network(config.spec(), seed=0).to(device)
    stepper = Stepper(config, dataset.train, network, 10_000, Ranks(device))
    index = torch.arange(min(config.batch, len(dataset.train)))
    part = dataset.val.head(CLOCKED)
    few = torch.from_numpy(dataset.val.head(RADIUS_SAMPLES).x).to(device)
    steps = -(-len(dataset.train) // config.batch)
    validation = seconds(lambda: evaluate(network, part, config.evaluation), device, 0.0)
    total = validation * len(dataset.val) / len(part)
    total += seconds(lambda: spectral_radius(network, few, config.evaluation), device, 0.0)
    total += steps * seconds(lambda: stepper(index, 0, "the clock"), device, 3.0)
    control = stepper.control
    if control is not None:
        x, y = tensors(config.spec(), dataset.train.head(control.truth.samples), device)
        look = seconds(lambda: control.look(0, network, x, y, stepper.ranks), device, 0.0)
        total += look * steps / control.truth.every
    return total


def planned(config: TrainConfig, dataset: Dataset, results: Results, until: float) -> int:
    """Epochs of `config` that end before `until`."""
    torch.set_num_threads(config.threads)
    epoch = seconds_an_epoch(config, dataset, choose_device(config.device))
    fitting = int(MARGIN * (until - time.time()) / epoch)
    epochs = 1 if config.device == "cpu" else max(1, fitting)
    results.add("epoch", config.spec().name, seconds=epoch, epochs=epochs)
    return epochs


def progress(done: int, total: int, latest: Record) -> None:
    """Say something every 200 steps."""
    if done % 200 == 0 or done == total:
        said = {k: round(latest[k], 4) for k in ("epoch", "loss", "val_accuracy") if k in latest}
        print(f"step {done} of {total}", said, file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> None:
    """Train, and write the test accuracy."""
    results, out = Results(options.out), options.out / "train"
    config = configured(options.data, options.device)
    dataset = fitted(load(config.data), config.spec())
    begun = out / "config.yaml"
    epochs = (
        read_config(str(begun)).epochs
        if begun.is_file()
        else planned(config, dataset, results, options.until)
    )
    config = build_config({**config.model_dump(mode="json"), "epochs": epochs})
    result = train(config, out, dataset=dataset, resume=True, monitor=progress)
    results.add(
        "train", config.spec().name,
        test_accuracy=result.test.accuracy,
        epochs=epochs,
        images_per_second=result.images_per_second,
    )  # fmt: skip


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description="Training on a GPU within a given time.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    try:
        run(parser.parse_args())
    except EPNeuroError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
