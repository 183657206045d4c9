"""The job of tools/machines.sh: train, compile, run and evaluate here; prints what came of it.

Usage: machine_job.py [TARGET...]. A target that is called ``-NAME`` has to say in one line that it
cannot run.
"""

from __future__ import annotations

import sys

from ep_neuro.cli import main
from ep_neuro.network.checkpoint import load_model


def ep_neuro(*words: str) -> int:
    """The exit code of a command."""
    sys.argv = ["ep-neuro", *words, "--json"]
    try:
        main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 98
    return 0


def do(*words: str) -> None:
    """Carry out a command, or leave with its exit code."""
    if code := ep_neuro(*words):
        sys.exit(code)


targets = sys.argv[1:]
do("train", "zoo:digits_dense", "--set", "epochs=1", "--out", "run")
for target in targets:
    name = target.removeprefix("-")
    do("compile", "run", "--target", name, "--steps", "8", "--out", name)
    code = ep_neuro("run", name, "--limit", "4")
    if code not in ((0,) if name == target else (1, 2)):
        sys.exit(f"{name}: exit code {code}")
do("evaluate", "run", "--limit", "8")
print(f"weights {load_model('run/best').digest}")
