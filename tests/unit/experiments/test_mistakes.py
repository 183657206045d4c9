"""Claims about learning from mistakes: what teaches, and that a run goes on with what waited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ep_neuro.data.datasets import Dataset
from ep_neuro.errors import ConfigError
from targets.experiments.onchip.learning import learn
from targets.experiments.onchip.mistakes import is_behind
from targets.experiments.onchip.schedule import Plan
from tests.unit.experiments.test_learning import facts_of_stopped, program


@given(seed=st.integers(0, 99), margin=st.floats(0, 2))
def test_behind_is_what_is_wrong_or_ahead_by_less_than_the_margin(seed: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    outputs, labels = rng.normal(size=(9, 4)), rng.integers(0, 4, 9)
    wanted = [
        row[y] - max(np.delete(row, y)) < margin for row, y in zip(outputs, labels, strict=True)
    ]
    np.testing.assert_array_equal(is_behind(outputs, labels, margin), wanted)
    assert is_behind(outputs, labels, margin)[outputs.argmax(1) != labels].all()


def test_with_a_margin_only_mistakes_are_learnt_in_whole_batches(digits: Dataset) -> None:
    made = program("spike", 8)
    taught = [learn(made, digits, Plan(200, 10, margin=m)).fields()["taught"] for m in (0.0, 0.2)]
    assert 0 < taught[0] < taught[1] < 200
    assert not any(count % 10 for count in taught)
    everything = learn(made, digits, Plan(200, 10, margin=9.0))
    assert everything.fields()["taught"] == learn(made, digits, Plan(200, 10)).fields()["taught"]


def test_mistakes_that_waited_for_a_batch_go_on_to_the_same_weights(
    digits: Dataset, tmp_path: Path
) -> None:
    plan, made = Plan(samples=90, batch=15, points=3, margin=0.1), program("spike", 8)
    whole = learn(made, digits, plan)

    assert facts_of_stopped(90, made, digits, plan, tmp_path)["waiting"]
    again = learn(made, digits, plan, out=tmp_path, resume=True)
    assert again.program.digest() == whole.program.digest()
    assert again.fields()["taught"] == whole.fields()["taught"]


@pytest.mark.parametrize("margin", [-0.1, float("inf"), float("nan")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match=r"learning, margin: .* from 0 on; give 0\.4"):
        Plan(margin=margin)
