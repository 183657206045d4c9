"""How fast each schedule settles digits: sweeps, residual and time on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ep_neuro.data.datasets import load
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import Schedule, settle
from tests.benchmarks.options import sizes
from tests.helpers.graphs import digits_like_residual

TOLERANCE = 1e-3
"""Residual at which a sample counts as settled, in heights of the box."""

SCHEDULES = {
    f"{method}, w = {relaxation}": Schedule(
        method=method, relaxation=relaxation, sweeps=1000, tolerance=TOLERANCE
    )
    for method, relaxation in (
        ("synchronous", 0.5),
        ("even-odd", 1.0),
        ("coloured", 1.0),
        ("coloured", 1.3),
        ("sequential", 1.3),
        ("coloured", 1.6),
        ("sequential", 1.6),
    )
}


@dataclass(frozen=True)
class Measurement:
    """One schedule on one batch; `ms` is the median time of an image, in milliseconds."""

    schedule: str
    settled: bool
    sweeps: int
    residual: float
    ms: float


def measure(images: int, repeats: int) -> list[Measurement]:
    """Settle the same `images` test digits under every schedule, `repeats` times each."""
    network = Network(digits_like_residual(), seed=0)
    x = torch.from_numpy(load("digits").test.head(images).x)
    found = []
    for name, schedule in SCHEDULES.items():
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            with torch.no_grad():
                result = settle(Landscape(network, x), schedule)
            times.append(1e3 * (time.perf_counter() - start) / len(x))
        residual = float(result.residual.max())
        found.append(
            Measurement(name, result.settled, result.sweeps, residual, statistics.median(times))
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of all schedules."""
    rows = measure(*sizes(__doc__, arguments))
    print(f"{'schedule':22} {'settled':>7} {'sweeps':>6} {'residual':>9} {'ms/image':>9}")
    for r in rows:
        settled = "yes" if r.settled else "no"
        print(f"{r.schedule:22} {settled:>7} {r.sweeps:6} {r.residual:9.1e} {r.ms:9.3f}")


if __name__ == "__main__":
    main()
