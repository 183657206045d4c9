"""Measurements for `gpu.sh`: recorded sweeps against plain ones, images per second.

    python examples/paper/gpu_bench.py --out DIR [--device cpu] [--until TIME]

Each result is a line of DIR/results.jsonl as soon as it is there; what that file holds is not
measured again. On a CPU the networks and batches are small: a dry run, whose figures say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ep_neuro.data.datasets import Split
from ep_neuro.energy import operators
from ep_neuro.energy.costs import one_hot
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import EPNeuroError
from ep_neuro.estimators import FrozenMean
from ep_neuro.estimators.baselines import Backprop
from ep_neuro.estimators.gradient_check import cosine
from ep_neuro.network import cuda_graphs
from ep_neuro.network.architectures import OUTPUT_BOX, SHRINK, hopfield_resnet, zoo
from ep_neuro.network.network import Network
from ep_neuro.network.settling import PUBLISHED_FREE, PUBLISHED_NUDGED
from ep_neuro.training.config import TrainConfig
from ep_neuro.training.distributed import Ranks, choose_device
from ep_neuro.training.gradient_monitor import shortened
from ep_neuro.training.train_step import Stepper

SWEEPS = ((3, 2), (2, 1))
GRAPHS = 0.3
"""Share of the time that recorded sweeps may take."""

BASE = FrozenMean(beta=0.2, fallback=False)


@dataclass(frozen=True)
class Mode:
    """How the arithmetic is done."""

    tf32: bool
    precision: str
    layout: torch.memory_format = torch.channels_last


MODES = {
    "bf16": Mode(True, "bfloat16"),
    "fp32": Mode(False, "float32"),
    "tf32": Mode(True, "float32"),
    "bf16, contiguous": Mode(True, "bfloat16", torch.contiguous_format),
    "fp32, contiguous": Mode(False, "float32", torch.contiguous_format),
}


class HostReads(TorchDispatchMode):
    """Counts how often the host waits for a number or a set of indices from the device."""

    OPS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func` and count it."""
        self.count += func in self.OPS
        return func(*args, **(kwargs or {}))


class Results:
    """Lines of JSON on disk, each known by its stage and name."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / "results.jsonl"
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        rows = [json.loads(line) for line in lines]
        self._known = {(row["stage"], row.get("name")) for row in rows if "error" not in row}
        self.failed = False

    def has(self, stage: str, name: str) -> bool:
        """Whether this was measured before."""
        return (stage, name) in self._known

    def add(self, stage: str, name: str, **fields: Any) -> None:
        """Write and print a result."""
        line = json.dumps({"stage": stage, "name": name, **fields})
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def measure(self, stage: str, name: str, run: Callable[[], dict[str, Any]]) -> None:
        """Write what `run` finds, or why it fails: other rows are measured all the same."""
        try:
            self.add(stage, name, **run())
        except (RuntimeError, EPNeuroError) as error:
            self.failed = True
            self.add(stage, name, error=str(error).strip().partition("\n")[0])


@contextlib.contextmanager
def arithmetic(mode: Mode) -> Iterator[None]:
    """Compute as `mode` says."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = mode.tf32
    with mock.patch.object(operators, "LAYOUT", mode.layout):
        yield


@contextlib.contextmanager
def recorder(chosen: cuda_graphs.Recorder | None) -> Iterator[None]:
    """Let all that settles use `chosen`."""
    with contextlib.ExitStack() as stack:
        for name in ("ep_neuro.network.settling", "ep_neuro.estimators.frozen_mean"):
            # By the table of modules: the package shows the function `settle` under that name.
            module = sys.modules[name]
            stack.enter_context(mock.patch.object(module, "recorder_of", return_value=chosen))
        yield


def seconds(run: Callable[[], Any], device: torch.device, limit: float = 1.0) -> float:
    """Median time of `run`, once warm: one run, on a GPU as many as take `limit` seconds."""
    run()
    found: list[float] = []
    until = time.perf_counter() + (limit if device.type == "cuda" else 0.0)
    while not found or (len(found) < 50 and time.perf_counter() < until):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def networks(device: torch.device) -> dict[str, NetworkSpec]:
    """The whole Hopfield-Resnet13 and one of middle size; on a CPU a narrow one with two blocks."""
    if device.type == "cuda":
        return {name: zoo(name) for name in ("hopfield_resnet13", "cifar10_resnet")}
    gains = {"gain": 1.2, "skip_gain": 0.5, "shrink": SHRINK, "heights": (4.0,) * 4}
    shape = {"image": (3, 32, 32), "channels": (4,) * 4, "classes": 10, "output_box": OUTPUT_BOX}
    return {"narrow": hopfield_resnet("narrow", **shape, **gains)}


def batch_of(spec: NetworkSpec, size: int) -> Split:
    """Random images and classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (size, *spec.input.shape), generator=generator, dtype=torch.uint8)
    return Split(pixels.numpy(), torch.randint(10, (size,), generator=generator).numpy())


def tensors(spec: NetworkSpec, split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs and targets of `split`."""
    y = one_hot(torch.from_numpy(split.y), spec.target_shape, torch.float32)
    return torch.from_numpy(split.x).to(device), y.to(device)


def measure_graphs(results: Results, device: torch.device, until: float) -> None:
    """One gradient by the published schedule, recorded as CUDA graphs and launched plainly.

    Without a GPU a recording is played by the function itself, which is what a graph does.
    """
    small = device.type == "cpu"
    phases = (PUBLISHED_FREE, PUBLISHED_NUDGED)
    free, nudged = (p.model_copy(update={"sweeps": 9}) if small else p for p in phases)
    for spec, size, precision in itertools.product(
        networks(device).values(), (2,) if small else (16, 128), ("float32", "bfloat16")
    ):
        name = f"{spec.name}, batch {size}, {precision}"
        if results.has("graphs", name) or time.time() > until:
            continue
        phases = {"free": free, "nudged": nudged, "precision": precision}
        estimator = BASE.model_copy(update=phases)
        results.measure("graphs", name, partial(_recorded, spec, size, estimator, device))


def _recorded(
    spec: NetworkSpec, size: int, estimator: FrozenMean, device: torch.device
) -> dict[str, Any]:
    """How long `estimator` takes recorded and not, and how far the states and gradients differ."""
    network = Network(spec, seed=0).to(device)
    x, y = tensors(spec, batch_of(spec, size), device)
    played = cuda_graphs.CudaGraph if device.type == "cuda" else _again
    took, found = {}, {}
    for way, chosen in (("plain", None), ("recorded", played)):
        with arithmetic(MODES["fp32"]), recorder(chosen):
            took[way] = seconds(lambda: estimator(network, x, y), device)
            estimate = estimator(network, x, y)
            found[way] = {**estimate.free.state, **estimate.gradient}
    pairs = [(found["recorded"][k], v) for k, v in found["plain"].items()]
    return {
        "seconds": took,
        "ratio": took["plain"] / took["recorded"],
        "same_bits": all(torch.equal(a, b) for a, b in pairs),
        "difference": max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs),
        "refused": cuda_graphs._failed[-1:],
    }


def _again(function: Callable[[], None]) -> cuda_graphs.Replay:
    """Plays a recording where there is no GPU."""
    return function


def measure_speed(results: Results, device: torch.device, until: float) -> None:
    """Training steps and gradients in each `Mode`, by few sweeps and by backprop."""
    small = device.type == "cpu"
    engines = {f"{f} + {n} sweeps": (f, n) for f, n in SWEEPS} | {"backprop": None}
    for size, spec, mode, engine in itertools.product(
        (2,) if small else (128, 512), networks(device).values(), MODES, engines
    ):
        name = f"{spec.name}, batch {size}, {mode}, {engine}"
        if results.has("speed", name) or time.time() > until:
            continue
        sweeps = engines[engine]
        estimator = Backprop() if sweeps is None else shortened(BASE, *sweeps)
        results.measure("speed", name, partial(_speed, spec, size, estimator, MODES[mode], device))


def _speed(
    spec: NetworkSpec, size: int, estimator: Any, mode: Mode, device: torch.device
) -> dict[str, Any]:
    """Images per second of whole training steps and of gradients alone, and how true those are."""
    split, network = batch_of(spec, size), Network(spec, seed=0).to(device)
    x, y = tensors(spec, split, device)
    with arithmetic(MODES["fp32"]):
        exact = estimator(network, x, y).gradient
    if isinstance(estimator, FrozenMean):
        estimator = estimator.model_copy(update={"precision": mode.precision})
        cast: Any = contextlib.nullcontext()
    else:  # The twin has no precision of its own.
        short = mode.precision == "bfloat16"
        # Weights change from step to step: none is kept cast.
        cast = torch.autocast(device.type, torch.bfloat16, enabled=short, cache_enabled=False)
    chosen = {"estimator": estimator, "optimiser": {"kind": "sgd", "lr": 1e-6}}
    config = TrainConfig(network=spec.to_dict(), truth=None, batch=size, **chosen)
    step = Stepper(config, split, network, 10_000, Ranks(device))
    index = torch.arange(size)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with arithmetic(mode), cast:
        gradient = estimator(network, x, y).gradient
        alone = seconds(lambda: estimator(network, x, y), device, 0.5)
        whole = seconds(lambda: step(index, 0, "benchmark"), device, 0.5)
        with HostReads() as reads:
            step(index, 0, "benchmark")
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {
        "images_per_second": size / whole,
        "gradient_images_per_second": size / alone,
        "cosine_to_fp32": cosine(gradient, exact),
        "host_reads_a_step": reads.count,
        "peak_memory_mb": peak,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description="Measurements on a GPU.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--until", type=float, default=float("inf"), help="Unix time of the end")
    options = parser.parse_args(arguments)
    results, now = Results(options.out), time.time()
    try:
        device = choose_device(options.device)
        measure_graphs(results, device, now + GRAPHS * (options.until - now))
        measure_speed(results, device, options.until)
    except EPNeuroError as error:
        raise SystemExit(f"error: {error}") from None
    if results.failed:
        raise SystemExit("error: not everything could be measured; see the lines with an error")
    if time.time() < options.until:
        results.add("measured", "all")


if __name__ == "__main__":
    main()
