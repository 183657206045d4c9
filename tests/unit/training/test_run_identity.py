"""Claims about what a run is made of: data, network and start are known by content, not by path."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ep_neuro.data.datasets import Split, load
from ep_neuro.errors import ConfigError
from ep_neuro.network.checkpoint import load_model
from ep_neuro.training.config import located, read_config
from ep_neuro.training.loop import train
from tests.unit.training.test_loop import NETWORK, clusters, config

FLAT = {**NETWORK, "input": {"shape": [1, 1, 6]}}


def save(path: Path, shift: float = 0.0) -> str:
    data = clusters()
    np.savez(path, x=np.clip(data.train.x + shift, 0, 1), y=data.train.y)
    return f"npz:{path}"


def test_a_model_notes_the_data_that_it_was_given(tmp_path: Path) -> None:
    given = load(save(tmp_path / "a.npz"))
    noted = train(config(network=FLAT, epochs=1), dataset=given).model.metadata
    assert noted["data"] == f"npz:{tmp_path / 'a.npz'}"
    assert noted["data.sha256"] == given.digest
    in_memory = train(config(epochs=1), dataset=clusters()).model.metadata
    assert "data" not in in_memory
    assert in_memory["data.sha256"] == clusters().digest


def test_paths_of_a_run_mean_the_same_in_every_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.npz")
    monkeypatch.chdir(tmp_path)
    train(config(network=FLAT, epochs=1, data="npz:a.npz"), "run")
    absolute = f"npz:{tmp_path / 'a.npz'}"
    assert load_model("run/best").metadata["data"] == absolute
    assert read_config("run/config.yaml").data == absolute


def test_every_path_of_a_configuration_is_made_absolute() -> None:
    written = {"data": "npz:a.npz", "network": "net.yaml", "start": "run", "plugins": ["a", "b.py"]}
    here = os.getcwd()
    assert located(written) == {
        "data": f"npz:{here}/a.npz",
        "network": f"{here}/net.yaml",
        "start": f"{here}/run",
        "plugins": ["a", f"{here}/b.py"],
    }
    named = {"data": "digits", "network": "zoo:digits_dense", "start": None, "data_root": "~/data"}
    assert located(named) == named


def test_other_samples_are_refused_when_a_run_goes_on(tmp_path: Path) -> None:
    train(config(epochs=1), tmp_path, dataset=clusters())
    data = clusters()
    other = replace(data, test=Split(data.test.pixels, (data.test.y + 1) % 3))
    with pytest.raises(ConfigError, match=r"its 'data.sha256' is \w+, the configuration says \w+"):
        train(config(epochs=2), tmp_path, dataset=other, resume=True)


def test_the_same_samples_and_network_in_another_place_are_the_same(tmp_path: Path) -> None:
    first, second = (save(tmp_path / name) for name in ("a.npz", "b.npz"))
    for name in ("net.yaml", "moved.yaml"):
        (tmp_path / name).write_text(config(network=FLAT).spec().to_yaml())
    train(config(network=str(tmp_path / "net.yaml"), data=first, epochs=1), tmp_path / "run")
    moved = config(network=str(tmp_path / "moved.yaml"), data=second, epochs=2)
    assert len(train(moved, tmp_path / "run", resume=True).history) == 2
