"""What is interrupted: commands over small inputs, and what must be equal when they are done."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tests.fuzz import bases

ON_DATA = ("--data", "npz:d.npz", "--limit", "2")

VARYING = ("seconds", "images_per_second", "ms_per_sample")
"""Measurements of time, which no two runs share."""


@dataclass(frozen=True)
class Job:
    """A command that writes."""

    words: tuple[str, ...]
    """What is typed."""
    again: tuple[str, ...] = ()
    """What is typed behind them to go on after an interruption."""
    prepared: tuple[tuple[str, ...], ...] = ()
    """Commands to do first."""


def _made(target: str) -> tuple[str, ...]:
    return ("compile", "m", "--target", target, "--steps", "4", "--out", "q")


def _on(target: str) -> Job:
    return Job(("run", "q", *ON_DATA, "--trace", "t.npz"), prepared=(_made(target),))


def _learning_on(target: str) -> Job:
    words = ("learn", "q", *ON_DATA, "--samples", "12", "--batch", "2", "--out", "learnt")
    return Job(words, ("--resume",), prepared=((*_made(target), "--learn", "contrastive"),))


_COMPARE = ("compare", "m", *ON_DATA, "--out", "page", "--with")

JOBS: Mapping[str, Job] = {
    "train": Job(("train", "c.yaml", "--out", "run"), ("--resume",)),
    "learn": Job(
        ("learn", "p", *ON_DATA, "--samples", "24", "--batch", "2", "--out", "learnt"),
        ("--resume",),
    ),
    "compile": Job(("compile", "m", "--target", "reference", "--steps", "4", "--out", "q")),
    "compare": Job((*_COMPARE, "reference:graded:8", "--steps", "4")),
    "compare again": Job(
        (*_COMPARE, "reference:graded:8", "--steps", "4"),
        prepared=((*_COMPARE, "reference", "--sweep", "steps=2,4"),),
    ),
    "demo": Job(("demo", "--out", "demo")),
    **{target: _on(target) for target in ("nir", "crossbar", "brian2", "lava")},
    **{f"learn on {name}": _learning_on(name) for name in ("crossbar", "brian2", "lava")},
}

QUICK = ("train", "learn", "compile", "compare", "demo")
"""Jobs that need no process of their own."""

CONFIG: dict[str, Any] = {
    "network": bases.SPECS[0],
    "estimator": bases.CONFIG["estimator"],
    "optimiser": {"lr": 0.01},
    "epochs": 2,
    "batch": 4,
    "average": 0.5,
    "truth": None,
    # After every step.
    "save_minutes": 1e-9,
}


def lay_out(place: Path) -> None:
    """Write the inputs of every job into `place`."""
    files = {
        "d.npz": bases.data(),
        # A run notes the place of its data in full, and a demo looks whether it made the run.
        "c.yaml": bases.spec_bytes({**CONFIG, "data": f"npz:{place}/d.npz"}),
        **bases.model(),
        **bases.whole_program(1),
    }
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def shrink_demo() -> None:
    """Let the demo work on the small configuration, on the reference alone."""
    from targets.experiments import demo

    changes = {
        "RECIPE": "c.yaml",
        "SAMPLES": 4,
        "LEARNT": {"bits": 8, "steps": 4},
        "default_choices": lambda _: ["reference"],
    }
    for name, value in changes.items():
        setattr(demo, name, value)


def empty_figures() -> None:
    """Let every figure be an empty one: to draw them takes most of a run, and writes no file."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("ep_neuro", "targets"):
            for key in [key for key in vars(module) if key.startswith("plot_")]:
                setattr(module, key, lambda *_, **__: Figure(figsize=(1, 1)))


def results(place: Path) -> dict[str, Any]:
    """Everything that a command left in `place`, each thing read as its readers do.

    Raises
    ------
    Exception
        If anything that stands under its final name is not whole.
    """
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        inside = path.relative_to(place)
        if not path.is_file() or any(part.endswith(".tmp") for part in inside.parts):
            continue
        value = _read(path)
        if value is not None:
            found[str(inside)] = value
    return found


def _read(path: Path) -> Any:
    from compilers import load_program
    from ep_neuro.network.checkpoint import STATE_TENSORS, load_model, load_state
    from ep_neuro.storage.yaml_io import load_yaml
    from targets.experiments.onchip import run_state

    folder = path.parent
    if path.name == "spec.yaml":
        if (folder / STATE_TENSORS).is_file():
            assert load_state(folder)
        return load_model(folder).digest
    if path.name == "program.json":
        return load_program(folder).digest()
    if path.name == run_state.MEMORY:
        saved = run_state.load_state(folder)
        assert saved is not None
        return {name: array.tobytes() for name, array in saved.memory.items()}
    if path.name == "metrics.jsonl":
        text = path.read_text()
        assert text.endswith("\n"), f"{path} is cut"
        return [_timeless(json.loads(line)) for line in text.splitlines()]
    if path.suffix == ".yaml":
        return bool(load_yaml(path))
    ends = {".svg": "</svg>", ".html": "</html>"}.get(path.suffix)
    if ends is not None:
        assert path.read_text().rstrip().endswith(ends), f"{path} is cut"
        return True
    return None


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in VARYING}
