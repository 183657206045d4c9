"""The crossbar target: memristor arrays on aihwkit that compute every drive, in both directions."""

from __future__ import annotations

from targets.crossbar.backend import BACKEND, CrossbarBackend

__all__ = ["BACKEND", "CrossbarBackend"]
