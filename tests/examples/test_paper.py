"""Claims about examples/paper: the configurations are the published ones, and the study runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ep_neuro.estimators import Centered, FrozenMean
from ep_neuro.network.architectures import zoo
from ep_neuro.training.config import TrainConfig, read_config
from tests.helpers.forked import run_script

ROOT = Path(__file__).resolve().parents[2]
PAPER = ROOT / "examples" / "paper"
NAMES = ("cifar10", "cifar100", "fashion_mnist")


def config(name: str) -> TrainConfig:
    return read_config(str(PAPER / f"{name}.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_published_configuration_has_the_published_schedule(name: str) -> None:
    chosen = config(name)
    assert isinstance(chosen.estimator, Centered)
    phases = (chosen.estimator.free, chosen.estimator.nudged)
    assert [(p.method, p.sweeps, p.relaxation) for p in phases] == [
        ("even-odd", 120, 1.0),
        ("even-odd", 50, 1.0),
    ]
    assert chosen.estimator.beta == {"cifar10": 0.1}.get(name, 0.15)
    assert (chosen.batch, chosen.carry_states, chosen.optimiser.clip_norm) == (128, True, 1.0)
    assert (chosen.optimiser.kind, chosen.optimiser.lr) == ("sgd", 0.03)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_hopfield_resnet13_with_the_inputs_of_the_data(name: str) -> None:
    spec, published = config(name).spec(), zoo("hopfield_resnet13")
    assert {c.name for c in spec.couplings} == {c.name for c in published.couplings}
    first = {"input->h1", "input->h2", "h8->output"}
    for coupling, shape in published.weight_shapes.items():
        assert coupling in first or spec.weight_shapes[coupling] == shape
    assert spec.input.mean is not None
    assert spec.classes == (100 if name == "cifar100" else 10)


@pytest.mark.parametrize("name", NAMES)
def test_the_fast_configuration_differs_in_the_engine_alone(name: str) -> None:
    slow, fast = config(name), config(f"{name}_fast")
    assert isinstance(fast.estimator, FrozenMean)
    assert fast.spec() == slow.spec()
    assert fast.augment == slow.augment
    same = ("data", "epochs", "batch")
    assert [getattr(fast, key) for key in same] == [getattr(slow, key) for key in same]
    assert fast.optimiser.weight_decay == slow.optimiser.weight_decay


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configuration_says_first_what_is_published_and_what_is_not(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("network:")[0]
    assert head.startswith("# Hopfield-Resnet13 on ")
    assert ("Assumed or different here" in head) != path.stem.endswith("_fast")


@pytest.mark.slow
def test_the_depth_study_goes_on_from_what_it_wrote_and_draws_it(tmp_path: Path) -> None:
    def study(*wirings: str) -> list[str]:
        command = [
            *(sys.executable, str(PAPER / "depth_ablation.py"), "--out", str(tmp_path)),
            *("--depths", "3", "--epochs", "1", "--seeds", "1", "--wirings", *wirings),
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert len(study("residual")) == 2
    first = (tmp_path / "depth.jsonl").read_text()
    assert len(study("residual", "plain")) == 2
    text = (tmp_path / "depth.jsonl").read_text()
    assert text.startswith(first)
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(r["wiring"], r["method"]) for r in rows] == [
        (wiring, method) for wiring in ("residual", "plain") for method in ("ep", "backprop")
    ]
    assert all(r["depth"] == 3 and 0 <= r["test_accuracy"] <= 1 for r in rows)
    assert "populations" in (tmp_path / "depth.svg").read_text()


# --- the run on a GPU --------------------------------------------------------------------------


def packed(path: Path) -> Path:
    """Forty random 32x32 images to train on and ten to test, as JPEG files in one npz."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 40), ("test", 10)):
        files = []
        for pixels in rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG")
            files.append(buffer.getvalue())
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(files), dtype=np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"] = np.arange(count) % 10
    np.savez(path, **arrays)
    return path


def gpu(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What ``gpu.sh`` answers; its folders are those of the test.

    Its Python passes the tests unseen: they are those that run beside this one. Of a stage it notes
    how it is called in the file ``asked``.
    """
    python = tmp_path / "python"
    files = "tests/unit/network/test_cuda_graphs.py"
    unseen = f"""*"-m pytest"*{files}) echo passed; exit;;"""
    noted = f"""examples/paper/*) echo "$*" >>'{tmp_path}/asked'; exit;;"""
    cases = f"""case "$*" in {unseen} {noted} esac"""
    python.write_text(f'#!/bin/sh\n{cases}\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    folders = {"RUN": str(tmp_path / "run"), "OUT": str(tmp_path / "out")}
    return subprocess.run(
        ["sh", str(PAPER / "gpu.sh"), *map(str, arguments)],
        env={**os.environ, **folders, "PYTHON": str(python), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_the_run_on_a_gpu_goes_through_every_stage_on_a_cpu(tmp_path: Path) -> None:
    """What the script calls is done in forks: fresh Pythons would import torch for seconds."""
    done = gpu(tmp_path, packed(tmp_path / "cifar10.npz"), "--device", "cpu")
    assert done.returncode == 0, done.stderr + done.stdout
    for line in (tmp_path / "asked").read_text().splitlines():
        script, *words = line.split()
        stage = run_script(ROOT / script, *words, cwd=ROOT, limit=250)
        assert stage.code == 0, stage.err
    results = tmp_path / "run" / "results.jsonl"
    lines = results.read_text().splitlines()
    rows = {row["stage"]: row for row in map(json.loads, lines)}
    assert list(rows) == ["tests", "graphs", "speed", "measured", "epoch", "train"]
    assert rows["tests"]["code"] == 0
    assert rows["graphs"]["same_bits"]
    assert rows["speed"]["images_per_second"] > 0
    again = gpu(tmp_path, tmp_path / "cifar10.npz", "--device", "cpu")
    assert again.returncode == 0
    assert results.read_text().splitlines() == lines
    for name in ("results.jsonl", "metrics.jsonl"):
        assert (tmp_path / "out" / name).is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_run_on_a_gpu_says_in_one_line_that_there_is_none(tmp_path: Path) -> None:
    done = gpu(tmp_path, packed(tmp_path / "cifar10.npz"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gpu: torch sees no CUDA GPU; run on a machine that has one, or try out with --device cpu"
    ]
