"""The Neuromorphic Intermediate Representation: write, read, import and interpret its files."""

from __future__ import annotations

from targets.nir.backend import BACKEND, NirBackend

__all__ = ["BACKEND", "NirBackend"]
