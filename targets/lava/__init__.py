"""The Lava target: a graph as a network of Lava Processes on the CPU."""

from __future__ import annotations

from targets.lava.backend import LavaBackend

__all__ = ["BACKEND", "LavaBackend"]

BACKEND = LavaBackend()
