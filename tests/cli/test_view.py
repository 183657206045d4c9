"""Claims about `view`: a model or a program becomes one page, told in one object."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli


def facts_of(page: Path) -> dict[str, object]:
    text = page.read_text().split('<script type="application/json" id="data">')[1]
    found = json.loads(text.split("</script>")[0])
    assert isinstance(found, dict)
    return found


def test_a_model_is_viewed_on_the_reference(cli: Cli, model: Path) -> None:
    done = cli("view", model, "--limit", 2, "--steps", 6, "--code", "spike", "--json")
    page = Path("runs/view/digits_dense-spike.html")
    assert done.answer == {
        "page": str(page),
        "bytes": page.stat().st_size,
        "samples": 2,
        "steps": {"Free": 6, "Nudged": 3, "Nudged away": 3, "Difference": 3},
    }
    assert len(facts_of(page)["labels"]) == 2  # type: ignore[arg-type]
    assert "digits:val" in page.read_text()


def test_a_program_is_viewed_on_its_own_target_for_its_own_steps(cli: Cli, program: Path) -> None:
    done = cli("view", program, "--limit", 1, "--out", "a/page.html", "--json")
    assert done.answer["steps"]["Free"] == 8
    assert "<dd>reference</dd>" in Path("a/page.html").read_text()


def test_a_program_has_a_code_of_its_own(cli: Cli, program: Path) -> None:
    done = cli("view", program, "--code", "spike")
    assert (done.code, done.out) == (2, "")
    assert "error: --code spike: the program" in done.err
    assert done.err.count("\n") == 1


def test_a_target_that_cannot_run_says_so(cli: Cli, model: Path) -> None:
    assert cli("compile", model, "--target", "loihi2", "--steps", 4, "--out", "chip").code == 0
    done = cli("view", "chip", "--limit", 1)
    assert (done.code, done.out) == (2, "")
    assert "loihi2" in done.err.splitlines()[-1]
