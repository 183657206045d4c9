"""The long profile: so many kills, over all jobs and faults in turn, at moments drawn by a seed."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections import Counter

from tests.crash.faults import FAULTS, Fault
from tests.crash.harness import Harness
from tests.crash.jobs import JOBS, QUICK

EVERY = 50
"""Kills from one line of progress to the next."""


def main() -> int:
    """Try; 1 if anything was lost, left or wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="most in all")
    parser.add_argument("--jobs", nargs="*", choices=tuple(JOBS), default=QUICK)
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=FAULTS)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, started, wrong = random.Random(asked.seed), time.monotonic(), 0
    counts: Counter[tuple[str, str]] = Counter()
    with Harness() as harness:
        print(f"disk: {'a file system of its own' if harness.disk.real else 'simulated'}")
        # Faults change fastest within a job, so that a short run meets all of them.
        turns = itertools.cycle(
            (asked.jobs[(i + j) % len(asked.jobs)], fault)
            for i in range(len(asked.jobs))
            for j, fault in enumerate(asked.faults)
        )
        for job, kind in itertools.islice(turns, asked.kills):
            if time.monotonic() - started > asked.seconds:
                break
            fault = Fault(kind, rng.random())
            said = harness.trial(job, fault)
            counts[job, kind] += 1
            if counts.total() % EVERY == 0:
                took = time.monotonic() - started
                print(f"... {counts.total()} kills in {took:.0f} s", file=sys.stderr, flush=True)
            if said is not None:
                wrong += 1
                print(f"{job}, {fault}: {said}", flush=True)
    seconds = time.monotonic() - started
    print(
        f"{counts.total()} kills in {seconds:.0f} s, {harness.stopped} of them before the end "
        f"of the run, {wrong} went wrong"
    )
    for (job, kind), count in sorted(counts.items()):
        print(f"  {job}, {kind}: {count}")
    return 1 if wrong or not counts else 0


if __name__ == "__main__":
    sys.exit(main())
