"""Brian2: readable equations, one Synapses object for each tied weight, C++ or NumPy underneath."""

from __future__ import annotations

from targets.brian2.backend import BACKEND, Brian2Backend

__all__ = ["BACKEND", "Brian2Backend"]
