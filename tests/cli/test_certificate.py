"""Claims about `ep-neuro check PROGRAM`: what it answers, when it fails, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Cli
from tests.cli.test_learn import FRESH, compiled


def test_a_program_is_certified_at_the_start_and_late_in_learning(cli: Cli) -> None:
    compiled(cli, "--bits", 8, "--learn", "contrastive")
    cli("learn", "p", "--samples", 40, "--batch", 10, "--limit", 20)
    for place, learnt in (("p", 0), ("p-learnt", 40)):
        found = cli("check", place, "--samples", 8, "--json")
        assert (found.code, found.answer["holds"]) == (0, True)
        assert (found.answer["learnt_samples"], found.answer["samples"]) == (learnt, 8)
        first = found.answer["couplings"][0]
        assert (first["population"], first["depth"]) == ("output", 0)
        assert first["lifted"].keys() == {"steps", "beta", "messages", "numbers", "all"}
        assert {e["quantity"] for e in found.answer["engine"]} > {"weights", "tags", "traces"}


def test_updates_that_are_not_the_gradient_exit_1_with_the_limit_and_a_remedy(cli: Cli) -> None:
    words = ("compile", "zoo:digits_residual", "--target", "reference", "--steps", 4)
    cli(*words, "--out", "p")
    cli(*words, "--out", "q", "--learn", "contrastive")
    found = cli("check", "q", "--batch", 2, "--json")
    assert (found.code, found.answer["holds"]) == (1, False)
    assert "is not above 0.7; steps limit it: compile with more --steps" in found.err
    said = cli("check", "q", "--batch", 2).out
    assert "steps (" in said
    silent = cli("check", "p")
    assert silent.code == 2
    assert "nothing in it learns" in silent.err
    assert "compile with --learn" in silent.err


def test_what_is_no_program_is_refused_in_one_line(cli: Cli) -> None:
    Path("empty").mkdir()
    for words, said in (
        (("empty",), "there is no spec.yaml"),
        ((FRESH, "--data", "digits"), "a model is checked on random inputs; drop --data"),
        ((FRESH, "--data-root", "."), "drop --data-root"),
        (("missing", "--data", "digits"), "missing: is no program directory; give what `compile`"),
    ):
        found = cli("check", *words)
        assert found.code == 2
        assert said in found.err
        assert found.err.count("\n") == 1
