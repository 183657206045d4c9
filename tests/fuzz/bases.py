"""What is right, and small: specs, a configuration, data, a model, programs and NIR files."""

from __future__ import annotations

import functools
import io
import os
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

INPUT = {"shape": [1, 4, 4]}
OUTPUT = {"name": "output", "shape": [3], "box": [-0.5, 1.5]}

SPECS: tuple[dict[str, Any], ...] = (
    {
        "name": "dense",
        "input": {**INPUT, "mean": [0.5], "std": [0.3]},
        "populations": [{"name": "h", "shape": [5], "box": [0.0, 1.0], "unit": 0.5}, OUTPUT],
        "couplings": [
            {"pre": "input", "post": "h", "gain": 0.5},
            {"pre": "h", "post": "output", "gain": 0.5},
        ],
        "output": "output",
    },
    {
        "name": "images",
        "input": INPUT,
        "populations": [
            {"name": "a", "shape": [2, 4, 4], "activation": "sigmoid"},
            {"name": "b", "shape": [2, 2, 2], "box": None},
            OUTPUT,
        ],
        "couplings": [
            {"pre": "input", "post": "a", "kind": "conv", "kernel": 3, "padding": 1},
            {"pre": "a", "post": "b", "kind": "conv", "kernel": 1, "pool": "avg", "gain": 0.2},
            {"pre": "input", "post": "b", "kind": "conv", "kernel": 2, "stride": 2},
            {"pre": "b", "post": "output", "gain": 0.2},
        ],
        "cost": "cross-entropy",
    },
    {
        "name": "readout",
        "input": INPUT,
        "populations": [{"name": "a", "shape": [2, 4, 4]}, {"name": "b", "shape": [4]}],
        "couplings": [
            {
                **{"pre": "input", "post": "a", "kind": "conv", "kernel": 3, "padding": 1},
                "standardise": True,
            },
            {"pre": "a", "post": "b", "untied": True, "gain": 0.2},
        ],
        "readout": {"kind": "softmax", "classes": 3, "gain": 1.0},
    },
)

PHASE = {"method": "sequential", "sweeps": 6, "relaxation": 1.0, "tolerance": 0.001}

CONFIG: dict[str, Any] = {
    "network": "s.yaml",
    "data": "npz:d.npz",
    "estimator": {"kind": "centered", "beta": 0.5, "free": PHASE, "nudged": PHASE},
    "optimiser": {"kind": "adam", "lr": 0.01, "relative": True, "rates": {"output": 0.5}},
    "evaluation": PHASE,
    "epochs": 1,
    "batch": 4,
    "average": 0.5,
    "augment": [{"kind": "flip"}, {"kind": "crop", "padding": 1}],
    "truth": None,
}


def spec_bytes(spec: dict[str, Any]) -> bytes:
    """A spec as a file."""
    import yaml

    return yaml.safe_dump(spec, sort_keys=False).encode()


@functools.cache
def texts() -> dict[str, bytes]:
    """The first of `SPECS` and `CONFIG` as files."""
    return {"s.yaml": spec_bytes(SPECS[0]), "c.yaml": spec_bytes(CONFIG)}


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    """Twelve images of 4 x 4 pixels in three classes."""
    rng = np.random.default_rng(0)
    return {"x": rng.random((12, 1, 4, 4), np.float32), "y": np.arange(12) % 3}


def npz(content: dict[str, Any]) -> bytes:
    """Arrays as a file."""
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


@functools.cache
def data() -> bytes:
    """`arrays` as a file."""
    return npz(arrays())


def memory() -> str | None:
    """A folder in memory, where a sync waits for no disk; None without one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def files_in(folder: Path, under: str) -> dict[str, bytes]:
    """Everything in `folder`, by path below `under`."""
    return {
        f"{under}/{p.relative_to(folder)}": p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@functools.cache
def model(number: int = 0) -> dict[str, bytes]:
    """A model directory ``m`` of one of `SPECS`, trained on ``npz:d.npz``."""
    from ep_neuro.energy.spec import NetworkSpec
    from ep_neuro.network.checkpoint import Model, save_model
    from ep_neuro.network.network import Network

    network = Network(NetworkSpec.from_dict(SPECS[number]), 0)
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        notes = {"data": "npz:d.npz", "epochs": 1, "val_accuracy": 0.5, "estimator": "centered"}
        save_model(Model(network, notes), Path(folder) / "m")
        return files_in(Path(folder) / "m", "m")


PROGRAMS: tuple[dict[str, Any], ...] = (
    {"target": "reference", "steps": 4},
    {"target": "reference", "steps": 4, "bits": 8, "learn": "contrastive"},
    {"target": "reference", "steps": 8, "code": "spike"},
    {"target": "reference", "steps": 4, "code": "sigma-delta", "bits": 6},
    {"target": "nir", "steps": 4},
    {"target": "loihi2", "steps": 4, "bits": 8},
)
"""How programs are compiled."""


@functools.cache
def program(number: int = 0) -> Any:
    """A compiled program of the dense network."""
    import warnings

    import compilers
    from ep_neuro.energy.spec import NetworkSpec
    from ep_neuro.network.network import Network

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = {**PROGRAMS[number], "provenance": {"data": "npz:d.npz"}, "check": False}
        return compilers.compile(Network(NetworkSpec.from_dict(SPECS[0]), 0), **asked)


@functools.cache
def whole_program(number: int = 0) -> dict[str, bytes]:
    """`program` as the directory ``p``."""
    return program_files(program(number))


def program_files(made: Any) -> dict[str, bytes]:
    """A program as the directory ``p``."""
    from compilers import save_program

    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        save_program(made, Path(folder) / "p")
        return files_in(Path(folder) / "p", "p")


@functools.cache
def nir_file(number: int = 0) -> bytes:
    """A NIR file: one of another tool, one of ours, or one with a convolution and a pool."""
    import nir

    from targets.nir.files import nir_bytes

    if number == 0:
        return nir_bytes(program(4).graph)
    rng = np.random.default_rng(0)
    w = 0.3 * rng.normal(size=(3, 4)).astype(np.float32)
    into: dict[str, Any] = {"up": nir.Affine(rng.normal(size=(4, 16)), np.zeros(4))}
    shape = np.array([16])
    if number == 2:
        shape = np.array([1, 4, 4])
        kernel = rng.normal(size=(1, 1, 1, 1)).astype(np.float32)
        into = {
            "conv": nir.Conv2d((4, 4), kernel, 1, 0, 1, 1, np.zeros(1, np.float32)),
            "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
            "flat": nir.Flatten({"input": np.array([1, 2, 2])}),
        }
    nodes = {
        "input": nir.Input(shape),
        **into,
        "a": nir.LI(tau=np.full(4, 0.01), r=np.ones(4), v_leak=np.zeros(4)),
        "on": nir.Linear(w),
        "b": nir.LI(tau=np.full(3, 0.02), r=np.ones(3), v_leak=np.zeros(3)),
        "back": nir.Linear(w.T.copy()),
        "output": nir.Output(np.array([3])),
    }
    chain = ["input", *into, "a", "on", "b"]
    edges = [*pairwise(chain), ("b", "back"), ("back", "a"), ("b", "output")]
    buffer = io.BytesIO()
    nir.write(buffer, nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))
    return buffer.getvalue()
