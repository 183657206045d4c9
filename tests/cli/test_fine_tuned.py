"""Claims about models that were fine-tuned: commands deploy them as they were, unless told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compilers import load_program
from compilers.passes.thresholds import PRECISION
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import Model, save_model
from ep_neuro.network.network import Network
from tests.cli.conftest import Cli

NOTES: dict[str, Any] = {"code": "sigma-delta", "bits": 3, "steps": 20, "leak": 0.25}
SAID = "as the model was fine-tuned: "


def model(**deployed: Any) -> str:
    """A directory with untrained weights that claims to have been fine-tuned like that."""
    notes = {"data": "digits", "seed": 0, "epochs": 1, "deployed": {**NOTES, **deployed}}
    return str(save_model(Model(Network(zoo("digits_dense"), 0), notes), Path("model")))


def test_compile_takes_what_is_left_out_from_the_model_and_says_so(cli: Cli) -> None:
    name = model(precision=10 * PRECISION)
    done = cli("compile", name, "--target", "reference", "--out", "p", "--json")
    assert done.answer["deployed"] == NOTES
    assert f"{SAID}code sigma-delta, bits 3, steps 20, leak 0.25" in done.err
    graph = load_program("p").graph
    assert (graph.encoding, graph.provenance["bits"]) == ("sigma-delta", "3")
    assert graph.phase("free").steps == 20
    dynamics = graph.population(graph.output).dynamics
    assert (dynamics.leak, dynamics.end) == (0.25, 10 * PRECISION)  # type: ignore[union-attr]


def test_options_of_the_command_line_go_before_the_model(cli: Cli) -> None:
    options = ("--code", "graded", "--steps", "7")
    done = cli("compile", model(), "--target", "reference", *options, "--out", "p", "--json")
    assert done.answer["deployed"] == {"bits": 3, "leak": 0.25}
    graph = load_program("p").graph
    assert (graph.encoding, graph.phase("free").steps) == ("graded", 7)


def test_a_model_of_before_there_was_a_precision_keeps_one_threshold_for_all(cli: Cli) -> None:
    cli("compile", model(), "--target", "reference", "--out", "p", "--json")
    assert {p.dynamics.end for p in load_program("p").graph.neurons} == {0.01}  # type: ignore[union-attr]


def test_a_reset_is_taken_from_the_command_line_or_else_from_the_model(cli: Cli) -> None:
    spiking = model(code="spike", bits=None, leak=None, reset="hard")
    for options, reset in (((), "hard"), (("--reset", "soft"), "soft")):
        cli("compile", spiking, "--target", "reference", *options, "--out", "p", "--json")
        dynamics = {p.dynamics for p in load_program("p").graph.neurons}
        assert {d.reset for d in dynamics} == {reset}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "code", "reset", "said"),
    [
        ("reference", "graded", "hard", "'graded' neurons have none"),
        ("reference", "spike", "half", "'reset': half is not soft or hard; choose from soft, hard"),
        ("pynn", "spike", "half", "'reset': half is not soft or hard; choose from soft, hard"),
    ],
)
def test_a_reset_that_there_is_not_is_refused(
    target: str, code: str, reset: str, said: str, cli: Cli
) -> None:
    words = ("compile", "zoo:digits_dense", "--target", target, "--code", code)
    done = cli(*words, "--reset", reset, "--out", "p")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err


def test_a_model_that_was_never_fine_tuned_compiles_to_graded_floats(cli: Cli) -> None:
    done = cli("compile", "zoo:digits_dense", "--target", "reference", "--out", "p", "--json")
    assert done.answer["deployed"] == {}
    assert SAID not in done.err
    graph = load_program("p").graph
    assert (graph.encoding, graph.quantised) == ("graded", False)


def test_compare_completes_each_choice_from_the_model(cli: Cli) -> None:
    choices = ("reference", "reference:graded", "reference:graded:float")
    options = [word for choice in choices for word in ("--with", choice)]
    done = cli("compare", model(), *options, "--limit", "4", "--json")
    rows = [(r["code"], r["bits"], r["steps"]) for r in done.answer["rows"][1:]]
    assert rows == [("sigma-delta", 3, 20), ("graded", 3, 20), ("graded", None, 20)]
    assert done.answer["deployed"] == {"code": "sigma-delta", "bits": 3, "steps": 20}
    assert done.err.count(SAID) == 1


def test_what_is_swept_is_not_taken_from_the_model(cli: Cli) -> None:
    sweeps = ("--sweep", "bits=4,float", "--sweep", "steps=5,6")
    done = cli("compare", model(), "--with", "reference", *sweeps, "--limit", "4", "--json")
    rows = [(r["code"], r["bits"], r["steps"]) for r in done.answer["rows"][1:]]
    assert sorted(rows, key=str) == sorted(
        [("sigma-delta", b, t) for b in (4, None) for t in (5, 6)], key=str
    )
    assert done.answer["deployed"] == {"code": "sigma-delta"}


@pytest.mark.parametrize("command", ["compile", "compare"])
def test_a_deployment_that_does_not_exist_is_refused_in_one_line(cli: Cli, command: str) -> None:
    name = model()
    path = Path(name) / "metadata.json"
    notes = json.loads(path.read_text())
    notes["deployed"]["code"] = "morse"
    path.write_text(json.dumps(notes))
    rest = ("--target", "reference") if command == "compile" else ("--with", "reference")
    failed = cli(command, name, *rest)
    assert failed.code == 2
    assert "metadata.json, deployed.code: 'morse'" in failed.err
