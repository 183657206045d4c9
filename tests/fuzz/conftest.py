"""One child for all inputs of a test session: it starts in seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.supervisor import Supervisor


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """Tries cases, within limits of time and memory."""
    with Supervisor() as found:
        yield found
