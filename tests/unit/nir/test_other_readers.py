"""Claims about other tools: what they compute from our NIR files, each where it is installed.

Beside nengo 4.1.0 pytest 9 starts with ``-p no:nengo`` alone, whose plugin is of before it.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ep_neuro as ep
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Split
from targets.nir.backend import BACKEND

pytest.importorskip("nir", reason=BACKEND.available().reason)

pytestmark = pytest.mark.slow

LEAST = {
    ("nirtorch", "graded, with `LI` and its box mapped by hand"): 1.0,
    ("nirtorch", "graded, without the box"): 0.8,
    ("nengo", "graded, with its box in a node by hand"): 1.0,
    ("nengo", "graded, without the box"): 0.0,
    ("sinabs", "as it is"): 0.97,
    ("rockpool", "as it is"): 0.97,
    ("norse", "`reset_method=reset_subtract`"): 0.99,
    ("norse", "as it is"): 0.9,
    ("snntorch", "`reset_mechanism = 'subtract'`"): 0.97,
    ("snntorch", "as it is"): 0.9,
}
"""Least share of our answers, by tool and how it loads."""


@cache
def script() -> ModuleType:
    """`examples/nir_readers.py`, which makes the table of docs/targets.md; loaded once."""
    path = Path(__file__).parents[3] / "examples" / "nir_readers.py"
    spec = importlib.util.spec_from_file_location("nir_readers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Split]:
    model = ep.train(ep.read_config("zoo:digits_dense", ["epochs=4"])).model
    return model, datasets.load("digits").test.head(60)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", script().ROWS, ids=lambda row: f"{row[0]}, {row[1]}")
def test_a_tool_answers_as_we_do(row: Any, trained: tuple[Any, Split]) -> None:
    tool, how, load, reset = row
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"no {tool}; `pip install --no-deps {tool}`")
    model, test = trained
    test = test.head(10 if tool == "rockpool" else None)
    found, ours = script().measured(model, tool, load, reset, test.x, leak=0.5)
    assert (found.argmax(1) == ours.argmax(1)).mean() >= LEAST[tool, how]
    if reset is None:
        assert (abs(found - ours).max() < 1e-5) == ("with " in how)
