"""The newcomer's notebook runs from its first cell to its last, without Lava, and learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import targets

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_steps.ipynb"


def test_the_first_steps_lead_from_nothing_to_neurons_that_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EP_NEURO_LAVA_PYTHON", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    assert not targets.get("lava").available().available
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs"), "a notebook is kept without outputs"
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["result"].test.accuracy > 0.97
    assert names["result"].gradient_cosine > 0.99
    assert names["losses"][-1] < names["losses"][0]
    labels = names["digits"].test.y
    for encoding, run in names["found"].items():
        assert np.mean(run.predictions == labels) > 0.96, encoding
    assert not any(tmp_path.iterdir())
