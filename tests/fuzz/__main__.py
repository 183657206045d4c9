"""The long profile: so many inputs of each class; faults are kept with the files that show them."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from tests.fuzz.case import Case
from tests.fuzz.classes import CLASSES, Search, search
from tests.fuzz.supervisor import Supervisor

EVERY = 30.0
"""Seconds from one line of progress to the next."""


def main() -> int:
    """Try inputs of every class that is asked for; 1 if any was taken badly."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs of each class")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="most for each class")
    parser.add_argument("--only", nargs="*", choices=sorted(CLASSES), help="classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="where faults are kept")
    asked = parser.parse_args()
    bad = 0
    with Supervisor() as supervisor:
        for name in asked.only or CLASSES:
            found = search(
                name,
                asked.inputs,
                supervisor,
                seconds=asked.seconds,
                seed=asked.seed,
                told=_teller(name),
            )
            print(_line(name, found), flush=True)
            for number, (fault, (count, case)) in enumerate(found.faults.items()):
                place = asked.out / f"{name}-{number}"
                _keep(case, fault, place)
                print(f"  {count} times: {fault}\n    {case}\n    kept in {place}", flush=True)
            bad += len(found.faults)
    return 1 if bad else 0


def _line(name: str, found: Search) -> str:
    return (
        f"{name}: {found.tried} inputs in {found.seconds:.0f} s, {found.answered} answers, "
        f"{found.tried - found.answered} errors of one line, {len(found.faults)} faults"
    )


def _teller(name: str):  # type: ignore[no-untyped-def]
    latest = time.monotonic()

    def tell(found: Search) -> None:
        nonlocal latest
        if time.monotonic() - latest > EVERY:
            latest = time.monotonic()
            print(f"... {_line(name, found)}", file=sys.stderr, flush=True)

    return tell


def _keep(case: Case, fault: str, place: Path) -> None:
    """Write the files of `case`, and the command that reads them."""
    for name, content in case.files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    words = shlex.join(case.words).encode("utf-8", "surrogatepass")
    place.mkdir(parents=True, exist_ok=True)
    (place / "run.txt").write_bytes(b"# " + fault.encode() + b"\nep-neuro " + words + b"\n")


if __name__ == "__main__":
    sys.exit(main())
