"""Claims about interruptions: nothing left running, nothing half, and the same result in the end.

The long profile is `python -m tests.crash` (`make crash`).
"""

from __future__ import annotations

import sys

import pytest

from tests.crash.__main__ import main
from tests.crash.faults import FAULTS
from tests.crash.jobs import QUICK
from tests.helpers.forked import called


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
    done = called(_tried, "--kills", str(kills), "--jobs", *jobs, limit=800)
    assert done.code == 0, done.out + done.err
    assert f"{kills} kills" in done.out


def _tried(*words: str) -> None:
    sys.argv = ["tests.crash", *words]
    sys.exit(main())
