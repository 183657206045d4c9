"""PyNN: a readable script of spiking neurons with a hard reset, for SpiNNaker and for NEST."""

from __future__ import annotations

from targets.pynn.backend import BACKEND, PynnBackend

__all__ = ["BACKEND", "PynnBackend"]
