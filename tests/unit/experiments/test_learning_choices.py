"""Claims about the study of what matters to spikes that learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import compilers
from ep_neuro.data import datasets
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from targets.experiments.onchip.learning_choices import (
    AS_COMPILED,
    CHOICES,
    compute,
    jobs,
    main,
    table,
    with_ratio,
)
from targets.experiments.onchip.schedule import Plan

SPEC = zoo("digits_dense")


def test_what_is_compared_with_is_what_compile_does_by_default() -> None:
    settings = {k: v for k, v in AS_COMPILED.items() if k not in ("ratio", "rule", "margin")}
    asked = compilers.compile(Network(SPEC), code="spike", learn=AS_COMPILED["rule"], **settings)
    plain = compilers.compile(Network(SPEC), code="spike", learn="spike-average", bits=8)
    assert asked.digest() == plain.digest()
    assert with_ratio(SPEC, AS_COMPILED["ratio"]) == SPEC
    assert Plan().margin == AS_COMPILED["margin"]


def test_every_row_differs_from_the_first_in_one_choice() -> None:
    planned = jobs(seeds=2, samples=10)
    assert len(planned) == 2 * (1 + sum(map(len, CHOICES.values())))
    assert len({job.key for job in planned}) == len({job.name for job in planned}) == len(planned)
    for name, values in CHOICES.items():
        assert AS_COMPILED[name] not in values


def test_units_shrink_by_the_ratio_down_to_one() -> None:
    units = [p.unit for p in with_ratio(zoo("digits_residual"), 2.0).populations]
    assert units[-1] == 1.0
    np.testing.assert_array_equal(np.divide(units[:-1], units[1:]), 2.0)


def test_a_row_tells_what_its_choice_came_to() -> None:
    digits = datasets.load("digits")
    shared, told = (SPEC, replace(digits, val=digits.val.head(20))), []
    few = [job for job in jobs(1, 20) if job.facts["value"] in (None, 8)][:2]
    rows = [compute(shared, job, told.append)[0] for job in few]
    assert rows == told
    assert [(row["choice"], row["value"]) for row in rows] == [("", None), ("steps", 8)]
    assert rows[0]["cosine"] != rows[1]["cosine"]
    assert (
        table([*rows, {**rows[1], "accuracy": 1.0}])
        .splitlines()[3]
        .endswith(f"| {rows[1]['cosine']:.2f} | {rows[1]['seconds']:.0f} s |")
    )


def test_the_study_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / "study"), "--seeds", "1", "--samples", "10", "--only", "rule"]
    main(words)
    first = json.loads((tmp_path / "study" / "study.json").read_text())["rows"]
    main(words)
    assert "2 of 2 jobs are in" in capsys.readouterr().err
    assert json.loads((tmp_path / "study" / "study.json").read_text())["rows"] == first
    assert (tmp_path / "study" / "table.md").read_text().count("\n") == 4
