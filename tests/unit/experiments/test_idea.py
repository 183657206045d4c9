"""Claims about the pictures of *The idea*: they show what the page says, and are drawn anew."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from targets.experiments.idea import PICTURES, drawn, messages, paths, responses, two_neurons

DOCS = Path(__file__).resolve().parents[3] / "docs"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def test_states_go_downhill_to_rest_and_a_nudge_takes_them_nearer_to_the_target() -> None:
    free, nudged = paths(two_neurons())
    energy = [h * h / 2 + o * o / 2 - 0.5 * h - 0.05 * o - 0.6 * h * o for h, o in free]
    assert all(after < before for before, after in pairwise(energy))
    assert np.allclose(free[-1], np.linalg.solve([[1, -0.6], [-0.6, 1]], [0.5, 0.05]), atol=0.02)
    assert (nudged[-1] > nudged[0] + 0.1).all()


def test_a_response_shrinks_by_the_square_of_the_ratio_of_units() -> None:
    # Among weaker ratios the loops of feedback add to it.
    by_coupling = np.exp(np.diff(np.log(responses(4) / responses(8))))
    assert np.allclose(by_coupling, (8 / 4) ** 2, rtol=0.1)


def test_spikes_and_changes_tell_what_graded_messages_say() -> None:
    graded, _ = messages("graded")
    changes, _ = messages("sigma-delta")
    _, rate = messages("spike")
    assert np.allclose(changes.sum(0), graded[-1], atol=0.05)
    assert np.allclose(rate[-1], graded[-1], atol=0.1)
    assert (graded != 0).sum() > 10 * (changes != 0).sum()


@pytest.mark.parametrize("name", PICTURES)
def test_the_page_has_the_picture_that_is_drawn_today(name: str) -> None:
    kept, now = (DOCS / "idea" / f"{name}.svg").read_text(), drawn(name)
    assert f"](idea/{name}.svg)" in (DOCS / "idea.md").read_text()
    # Strokes follow the last bits of a processor, and which strokes there are does not.
    assert re.findall(r">([^<>]+)</text>", kept) == re.findall(r">([^<>]+)</text>", now)
    assert NUMBER.sub("", kept) == NUMBER.sub("", now)
    before, after = (np.array(NUMBER.findall(text), float) for text in (kept, now))
    assert np.allclose(before, after, atol=1.0, rtol=0.02)
