"""NEST: built-in rate neurons and soft-reset neurons, one synapse for each use of a weight."""

from __future__ import annotations

from targets.nest.backend import BACKEND, NestBackend

__all__ = ["BACKEND", "NestBackend"]
