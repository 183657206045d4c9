"""Tests of a target: where they run."""

from __future__ import annotations

import pytest

import targets


def needs(target: str) -> pytest.MarkDecorator:
    """Skip where `target` cannot run, with its own reason."""
    state = targets.get(target).available()
    return pytest.mark.skipif(not state.available, reason=state.reason)
