"""The command line in-process, and a model and a program of fresh weights to use it on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compilers import compile as compile_program
from compilers import save_program
from ep_neuro.cli import main
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import Model, save_model
from ep_neuro.network.network import Network


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        assert self.out.count("\n") == 1, self.out + self.err
        answer = json.loads(self.out)
        assert isinstance(answer, dict)
        return answer


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Call ``ep-neuro`` with the given words, in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ep-neuro", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Outcome(left.value.code, captured.out, captured.err)

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory: the dense digits network with fresh weights."""
    path = tmp_path / "model"
    save_model(Model(Network(zoo("digits_dense"), 0), {"data": "digits:val"}), path)
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The same network, compiled for the reference in 8 steps."""
    path = tmp_path / "program"
    save_program(compile_program(Network(zoo("digits_dense"), 0), "reference", steps=8), path)
    return path
