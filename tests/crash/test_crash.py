"""Claims about interruptions: nothing left running, nothing half, and the same result in the end.

The long profile is `python -m tests.crash` (`make crash`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.faults import FAULTS
from tests.crash.jobs import QUICK

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("jobs", "kills"),
    [
        (("learn", "compile"), len(FAULTS)),
        pytest.param(QUICK, len(QUICK) * len(FAULTS), marks=pytest.mark.slow),
    ],
)
def test_what_is_stopped_at_any_moment_comes_to_the_same_result(
    jobs: tuple[str, ...], kills: int
) -> None:
    # In a process of its own, which has computed nothing yet: it forks.
    command = [sys.executable, "-m", "tests.crash", "--kills", str(kills), "--jobs", *jobs]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kills} kills" in done.stdout
