"""Claims about `ep-neuro learn`: what it answers and writes, what it refuses, and a kill."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import targets
from compilers import load_program
from ep_neuro.data import datasets
from ep_neuro.network.checkpoint import load_model
from targets.experiments.onchip.learning import learn
from targets.experiments.onchip.schedule import Plan
from tests.cli.conftest import Cli
from tests.helpers.forked import fork

FRESH = "zoo:digits_dense"
FIELDS = {
    *(
        "program",
        "accuracy_before",
        "accuracy_after",
        "samples",
        "taught",
        "weight_bits",
        "sign_agreement",
    ),
    *("update_cosine", "events_per_sample", "synops_per_sample", "energy_joule", "clipped"),
    *("seconds", "figures"),
}


def compiled(cli: Cli, *words: object) -> Path:
    """A program of fresh weights for the reference, in few steps."""
    words = ("compile", FRESH, "--target", "reference", "--steps", 16, "--out", "p", *words)
    assert cli(*words, "--json").code == 0
    return Path("p")


def test_learning_from_fresh_weights_answers_and_writes_what_it_learnt(cli: Cli) -> None:
    compiled(cli, "--bits", 8, "--learn", "contrastive")
    words = ("--samples", 300, "--batch", 10, "--rate", 0.2, "--model", "m", "--limit", 100)
    found = cli("learn", "p", *words, "--json")
    assert found.answer.keys() == FIELDS | {"model"}
    answer = found.answer
    assert answer["accuracy_after"] > answer["accuracy_before"] + 0.2
    assert (answer["samples"], answer["weight_bits"]) == (300, 8)
    # The learnt program runs, and the network that came of it answers alike.
    ran = cli("run", answer["program"], "--limit", 100, "--json").answer
    assert ran["accuracy"] == answer["accuracy_after"]
    evaluated = cli("evaluate", answer["model"], "--limit", 100, "--json").answer
    assert evaluated["accuracy"] == pytest.approx(answer["accuracy_after"], abs=0.08)
    assert load_model(answer["model"]).metadata["data"] == "digits"
    assert {Path(f).name for f in answer["figures"]} == {
        *("accuracy.svg", "weights.svg", "agreement.svg")
    }
    assert "contrastive" in cli("inspect", "p-learnt", "--json").answer["graph"]


def test_a_crossbar_learns_and_its_learnt_program_runs(cli: Cli) -> None:
    state = targets.get("crossbar").available()
    if not state.available:
        pytest.skip(state.reason)
    words = ("--target", "crossbar", "--steps", 16, "--learn", "contrastive", "--out", "p")
    assert cli("compile", FRESH, *words, "--option", "fill=0.5", "--json").code == 0
    lesson = ("--samples", 300, "--batch", 10, "--rate", 0.2, "--limit", 100)
    answer = cli("learn", "p", *lesson, "--json").answer
    assert answer.keys() == FIELDS
    assert (answer["samples"], answer["weight_bits"]) == (300, None)
    assert answer["accuracy_after"] > answer["accuracy_before"] + 0.2
    assert answer["update_cosine"] > 0.5
    ran = cli("run", answer["program"], "--limit", 100, "--json").answer
    assert ran["accuracy"] == answer["accuracy_after"]


@pytest.mark.parametrize(("words", "nudged"), [((), 8), (("--nudged-steps", 5), 5)])
def test_a_nudged_phase_is_half_as_long_as_the_free_one_or_as_is_said(
    cli: Cli, words: tuple[object, ...], nudged: int
) -> None:
    phases = load_program(compiled(cli, "--learn", "contrastive", *words)).graph.phases
    assert [phase.steps for phase in phases] == [16, nudged, nudged]


def test_a_plain_program_learns_by_the_rule_of_its_encoding(cli: Cli) -> None:
    compiled(cli, "--code", "spike")
    done = cli("learn", "p", "--samples", 10, "--out", "q", "--json", "--limit", 20)
    assert "it takes 'spike-average' at rate" in done.err
    assert done.answer["program"] == "q"
    assert Path("q.run/last/state.json").is_file()


def test_the_split_that_is_named_is_the_one_that_is_tested(cli: Cli) -> None:
    compiled(cli)
    answers = [
        cli("learn", "p", "--data", name, "--samples", 2, "--force", "--json").answer
        for name in ("digits:val", "digits")
    ]
    ran = [cli("run", "p", "--data", f"digits:{part}", "--json").answer for part in ("val", "test")]
    assert [a["accuracy_before"] for a in answers] == [a["accuracy"] for a in ran]
    assert ran[0]["accuracy"] != ran[1]["accuracy"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rule", "hebbian"), "rule 'hebbian': there is none of this name"),
        (("--rate", "0"), "rate 0.0 is not above 0"),
        (("--output-rate", "0"), "plasticity of 'weight/h1->output': rate 0.0 is not above 0"),
        (("--samples", "0"), "--samples 0"),
        (("--data", "digit"), "did you mean 'digits'?"),
        (("--out", "p/program.json/q"), "is a file, not a folder"),
    ],
)
def test_what_cannot_be_learnt_is_refused_in_one_line(
    words: tuple[str, str], said: str, cli: Cli
) -> None:
    compiled(cli)
    done = cli("learn", "p", *words, "--json")
    assert done.code == 2
    assert done.out == ""
    (line,) = done.err.strip().splitlines()[-1:]
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "mine"), "mine: is a directory with other content (no program.json in it)"),
        (("--model", "mine"), "mine: is a directory with other content (no spec.yaml in it)"),
        (("--model", "p"), "p: is a directory with other content (no spec.yaml in it)"),
        (("--out", "q", "--model", "q"), "--model q: shares its place with q"),
        (("--out", "q", "--model", "q.run/m"), "--model q.run/m: shares its place with q.run"),
        (("--out", "m/q", "--model", "m"), "--model m: shares its place with m/q"),
    ],
)
def test_places_that_cannot_take_what_is_learnt_are_refused_before_the_first_sample(
    words: tuple[str, ...], said: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(cli)
    Path("mine").mkdir()
    Path("mine/letter").write_text("dear")
    monkeypatch.setattr(
        "targets.experiments.onchip.learning.learn", lambda *_, **__: pytest.fail("began")
    )
    done = cli("learn", "p", *words, "--json")
    assert (done.code, done.out) == (2, "")
    assert said in done.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        *((("/",), 2), (("..",), 2), ((".",), 0)),
        *(((".", "--out", "."), 2), ((".", "--out", ".", "--force"), 0)),
    ],
)
def test_a_program_may_be_the_folder_that_one_is_in(
    words: tuple[str, ...], code: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(cli)
    monkeypatch.chdir("p")
    done = cli("learn", *words, "--samples", 2, "--limit", 2)
    assert done.code == code
    assert "unforeseen" not in done.err
    place = "p" if "--out" in words else "p-learnt"
    assert Path(f"../{place}.run/last/state.json").is_file() == (code == 0)


def test_a_target_that_cannot_learn_says_so_before_it_compiles(cli: Cli) -> None:
    done = cli("compile", FRESH, "--target", "loihi2", "--learn", "contrastive", "--out", "q")
    assert done.code == 2
    assert "target 'loihi2': it cannot learn" in done.err
    assert not Path("q").exists()


def test_images_are_moved_on_request(cli: Cli) -> None:
    compiled(cli)
    words = ("learn", "p", "--samples", 2, "--limit", 2, "--force")
    assert cli(*words, "--augment", "flip", "--augment", "{kind: crop, padding: 1}").code == 0
    noted = load_program(Path("p-learnt")).provenance["learnt.augment"]
    assert noted == "({'kind': 'flip', 'p': 0.5}, {'kind': 'crop', 'padding': 1})"
    for step, said in {
        "{kind: crop, padding: 0}": "augment.0.padding = 0",
        "": "--augment '': is no step; give a name",
    }.items():
        done = cli(*words, "--augment", step)
        assert done.code == 2
        assert said in done.err


def test_resuming_with_another_seed_is_refused(cli: Cli) -> None:
    compiled(cli)
    cli("learn", "p", "--samples", 4)
    done = cli("learn", "p", "--samples", 4, "--seed", 1, "--resume")
    assert done.code == 2
    assert "its seed was 0, and now is 1" in done.err


def test_a_run_is_not_replaced_unasked(cli: Cli) -> None:
    compiled(cli)
    words = ("learn", "p", "--samples", 2, "--limit", 2)
    assert cli(*words).code == 0
    before = Path("p-learnt/program.json").read_bytes()
    done = cli(*words, "--seed", 1)
    assert done.code == 2
    assert "run directory 'p-learnt.run': holds a run already; go on with it" in done.err
    assert Path("p-learnt/program.json").read_bytes() == before
    assert cli(*words, "--seed", 1, "--force").code == 0
    assert Path("p-learnt/program.json").read_bytes() != before


@pytest.mark.parametrize("out", ["p", "./p", "q"])
@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_a_program_is_not_replaced_unasked(out: str, resume: tuple[str, ...], cli: Cli) -> None:
    compiled(cli)
    shutil.copytree("p", "q")
    before = Path(out, "program.json").read_bytes()
    words = ("learn", "p", "--samples", 2, "--limit", 2, "--out", out)
    done = cli(*words, *resume)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: --out {Path(out)}: holds a program already; choose another place, or replace it "
        "(--force)\n"
    )
    assert Path(out, "program.json").read_bytes() == before
    assert cli(*words, "--force").code == 0
    assert Path(out, "program.json").read_bytes() != before


def test_a_model_is_not_replaced_unasked(cli: Cli, model: Path) -> None:
    compiled(cli)
    before = (model / "weights.safetensors").read_bytes()
    words = ("learn", "p", "--samples", 2, "--limit", 2, "--model", "model")
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert "error: --model model: holds a model already; choose another place" in done.err
    assert (model / "weights.safetensors").read_bytes() == before
    assert not Path("p-learnt.run").exists()
    assert cli(*words, "--force").code == 0
    assert (model / "weights.safetensors").read_bytes() != before
    # The run that wrote it goes on.
    assert cli(*words[:3], 4, *words[4:], "--resume").code == 0


def test_a_run_that_was_killed_goes_on_to_the_same_weights(cli: Cli) -> None:
    program = compiled(cli, "--bits", 8, "--learn", "contrastive")
    words = ["learn", "p", "--samples", "100", "--batch", "2", "--limit", "10"]
    digits = datasets.load("digits")
    plan = Plan(samples=100, batch=2)
    whole = learn(load_program(program), digits, plan, test=digits.test.head(10)).program
    state = Path("killed.run/last/state.json")
    process = fork(cli, *words, "--out", "killed")
    deadline = time.monotonic() + 90
    while process.is_alive() and time.monotonic() < deadline:
        if state.is_file() and len(json.loads(state.read_text())["history"]) >= 3:
            process.kill()
            break
        time.sleep(0.01)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    done = json.loads(state.read_text())["history"][-1]["samples"]
    assert 0 < done < 100
    assert cli(*words, "--out", "killed", "--resume").code == 0
    resumed = load_program(Path("killed"))
    for name, array in whole.graph.arrays.items():
        np.testing.assert_array_equal(resumed.graph.arrays[name], array)
    assert resumed.digest() == whole.digest()
