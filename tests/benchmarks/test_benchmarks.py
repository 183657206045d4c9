"""Claims about the benchmarks: they run, and measure what their table says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ep_neuro.data import datasets
from tests.benchmarks import bench_checks, bench_reference, bench_settle, bench_training
from tests.helpers.graphs import digits_like_dense


def test_each_schedule_is_measured() -> None:
    rows = bench_settle.measure(images=4, repeats=1)
    assert [r.schedule for r in rows] == list(bench_settle.SCHEDULES)
    assert all(r.settled == (r.residual <= bench_settle.TOLERANCE) for r in rows)
    assert all(r.ms > 0 for r in rows)


def test_the_table_has_a_line_a_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    bench_settle.main(["--images", "2", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(bench_settle.SCHEDULES)


def test_the_training_benchmark_writes_ratios_and_cosines(tmp_path: Path) -> None:
    out = tmp_path / "benchmarks.json"
    sizes = {"--batch": 2, "--repeats": 1, "--steps": 1, "--blocks": 1, "--width": 2}
    words = [str(word) for pair in sizes.items() for word in pair]
    bench_training.main([*words, "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["training_step_speedup"] > 0
    assert found["gradient_cosine"] > 0.9
    assert set(found["growth_seconds"]) == {"blocks", "width", "batch"}


def test_every_check_that_is_timed_is_there_and_is_put_back() -> None:
    names = [name for kind in bench_checks.CHECKS.values() for name in kind]
    before = [vars(owner)[name] for owner, name in map(bench_checks._owner, names)]
    clock = bench_checks.Clock()
    with bench_checks.watched(clock):
        datasets.load("digits").digest  # noqa: B018 - it is a digest that is taken
    assert clock.spent["digests"] > 0
    assert [vars(owner)[name] for owner, name in map(bench_checks._owner, names)] == before


@pytest.mark.slow
def test_checks_take_no_more_than_two_percent(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_checks.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(bench_checks.COMMANDS)


def test_the_speed_of_learning_is_found_for_each_way_to_compile() -> None:
    ways = [bench_reference.EIGHT_BITS, {"options": {"precision": "float32"}}]
    rates = bench_reference.learning(digits_like_dense(), "spike", 20, 1, *ways)
    assert len(rates) == len(ways)
    # What this process works on takes at least as long by the clock, but for the clock's grain.
    assert all(own > 0.5 * whole > 0 for own, whole in rates)
