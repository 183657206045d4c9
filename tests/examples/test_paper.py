"""Claims about examples/paper: the configurations are the published ones, and the study runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ep_neuro.config import TrainConfig, read_config
from ep_neuro.estimators import Centered, FrozenMean
from ep_neuro.zoo import zoo

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
