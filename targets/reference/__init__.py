"""The reference target: the oracle that executes a graph as `compilers.ir.graph` defines it."""

from __future__ import annotations

from targets.reference.backend import ReferenceBackend

__all__ = ["BACKEND"]

BACKEND = ReferenceBackend()
