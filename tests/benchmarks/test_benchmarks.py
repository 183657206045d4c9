"""Claims about the benchmarks: they run, and measure what their table says."""

from __future__ import annotations

import pytest

from tests.benchmarks import bench_settle


def test_each_schedule_is_measured() -> None:
    rows = bench_settle.measure(images=4, repeats=1)
    assert [r.schedule for r in rows] == list(bench_settle.SCHEDULES)
    assert all(r.settled == (r.residual <= bench_settle.TOLERANCE) for r in rows)
    assert all(r.ms > 0 for r in rows)


def test_the_table_has_a_line_a_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    bench_settle.main(["--images", "2", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(bench_settle.SCHEDULES)
