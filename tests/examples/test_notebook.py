"""Notebooks run from the first cell to the last and hold what they claim, and leave nothing behind.

First steps and the tutorials are held to be so without Lava and without a kernel: a cell is a
piece of Python. What a tutorial claims it asserts itself.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import targets

ROOT = Path(__file__).resolve().parents[2]
FIRST_STEPS = ROOT / "examples" / "first_steps.ipynb"
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
QUICK = {"a_chip_in_yaml", "bring_a_published_model", "learn_on_chip", "train_your_own"}
"""Tutorials of one or two seconds, which `make test` runs."""


def cells(notebook: Path, kind: str = "code") -> list[dict[str, Any]]:
    """The cells of one kind."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def run(notebook: Path) -> dict[str, Any]:
    """Every name that the cells of `notebook` leave behind."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(notebook)):
        where = f"{notebook.name}, code cell {number}"
        exec(compile("".join(cell["source"]), where, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No Lava; files only where Python's temporary ones belong; targets and figures go again."""
    import matplotlib.pyplot as plt

    monkeypatch.setenv("EP_NEURO_LAVA_PYTHON", str(tmp_path / "none"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    before = targets.names()
    yield
    plt.close("all")
    for name in set(targets.names()) - set(before):
        targets.unregister(name)
    assert not any((tmp_path / "here").iterdir())


def test_the_first_steps_lead_from_nothing_to_neurons_that_answer() -> None:
    assert not targets.get("lava").available().available
    assert not any(cell["outputs"] for cell in cells(FIRST_STEPS)), "it is kept without outputs"
    names = run(FIRST_STEPS)
    assert names["result"].test.accuracy > 0.97
    assert names["result"].gradient_cosine > 0.99
    assert names["losses"][-1] < names["losses"][0]
    labels = names["digits"].test.y
    for encoding, found in names["found"].items():
        assert np.mean(found.predictions == labels) > 0.96, encoding


@pytest.mark.parametrize(
    "notebook",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else pytest.mark.slow)
        for path in TUTORIALS
    ],
)
def test_a_tutorial_holds_what_it_claims(notebook: Path) -> None:
    with contextlib.redirect_stdout(None):
        run(notebook)


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_short_claims_something_and_is_kept_as_it_ran(notebook: Path) -> None:
    code, said = cells(notebook), cells(notebook, "markdown")
    assert 8 <= len(code) + len(said) <= 20
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(re.search(r"^assert ", "".join(c["source"]), re.MULTILINE) for c in code)
    assert said[0]["source"][0].startswith("# ")
    assert notebook.stat().st_size < 200_000
    assert f"tutorials/{notebook.name}" in (ROOT / "mkdocs.yml").read_text()
