"""Claims about what the command line says of what is here: models, doctor, version, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import ep_neuro
from ep_neuro.cli import installation
from ep_neuro.network.hub import cards
from ep_neuro.storage.yaml_io import load_yaml
from tests.cli.conftest import Cli

ROOT = Path(__file__).resolve().parents[2]


def test_models_lists_what_came_along_with_its_card(cli: Cli) -> None:
    found = {model["name"]: model for model in cli("models", "--json").answer["models"]}
    assert found.keys() == {"hub:digits_resnet", "hub:mnist_residual", "hub:cifar10_resnet"}
    digits = found["hub:digits_resnet"]
    assert (digits["parameters"], digits["test_accuracy"]) == (37194, 0.9917)
    assert digits["card"]["recipe"] == "ep-neuro train zoo:digits_resnet"
    assert digits["bytes"] < 3 * digits["parameters"]
    assert "hub:digits_resnet" in cli("models").out


def test_a_model_of_the_hub_stands_where_a_model_stands(cli: Cli) -> None:
    found = cli("evaluate", "hub:digits_resnet", "--limit", 20, "--json").answer
    assert found["accuracy"] >= 0.9
    assert cli("inspect", "hub:digits_resnet", "--json").answer["kind"] == "model"
    assert cli("compile", "hub:digits_resnet", "--target", "reference").code == 0
    missed = cli("evaluate", "hub:digits")
    assert missed.code == 2
    assert missed.err.count("\n") == 1
    assert "did you mean 'digits_resnet'?" in missed.err


def test_doctor_says_what_is_here_in_one_object(cli: Cli) -> None:
    found = cli("doctor", "--json")
    assert found.code == 0, found.err
    answer = found.answer
    assert {t["name"]: t["available"] for t in answer["targets"]}["reference"] is True
    assert not [m for m in answer["models"] if m["remedy"]]
    assert answer["settings"]["threads"] >= 1
    torch = next(p for p in answer["packages"] if p["name"] == "torch" and not p["extra"])
    assert (torch["found"], torch["remedy"]) == (metadata.version("torch"), "")


def test_doctor_fails_and_says_how_to_get_what_is_missing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = ["pydantic>=99", "no-such-thing>=1", "aihwkit>=99; extra == 'crossbar'"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    (tmp_path / "hub" / "damaged").mkdir(parents=True)
    (tmp_path / "hub" / "damaged" / "card.yaml").write_text("a: b")
    monkeypatch.setattr(cards, "HUB", tmp_path / "hub")
    found = cli("doctor", "--json")
    assert found.code == 1
    assert "pydantic, no-such-thing, hub:damaged is missing or does not fit" in found.err
    remedies = [p["remedy"] for p in found.answer["packages"]]
    assert remedies[:2] == ["pip install 'pydantic>=99'", "pip install 'no-such-thing>=1'"]
    assert remedies[2] == "pip install 'ep-neuro[crossbar]'"
    assert "unknown key 'a'" in found.answer["models"][0]["remedy"]


def test_doctor_of_a_mere_checkout_says_that_it_knows_no_requirements(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    monkeypatch.setattr(installation, "target_states", list)
    found = cli("doctor")
    assert found.code == 0
    assert "ep-neuro is not installed" in found.err


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli("--version").out == "ep-neuro 0.1.0\n"


def start(*words: str, **variables: str) -> tuple[str, float]:
    """What a fresh ``ep-neuro`` prints, and its processor time in seconds."""
    code = (
        "import atexit, resource, sys; atexit.register(lambda: print(sum(resource.getrusage("
        "resource.RUSAGE_SELF)[:2]), file=sys.stderr)); from ep_neuro.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout, float(done.stderr.split()[-1])


def test_help_takes_less_than_a_second() -> None:
    out, seconds = start("--help")
    assert "doctor" in out
    assert seconds < 1


def test_a_shell_completes_commands() -> None:
    asked = {"_EP_NEURO_COMPLETE": "complete_bash", "COMP_WORDS": "ep-neuro eva", "COMP_CWORD": "1"}
    assert start(**asked)[0].split() == ["evaluate"]
    assert "complete_zsh" in start(_EP_NEURO_COMPLETE="source_zsh")[0]


def test_the_citation_names_this_version() -> None:
    cited = load_yaml(ROOT / "CITATION.cff")
    assert cited["version"] == ep_neuro.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= cited.keys()
