"""Ends of the spectrum of a symmetric map, and the leak that it allows synchronous steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from compilers.ir.graph import LEAK_BITS

MAX_LEAKS: Mapping[str, float] = {"graded": 0.8, "sigma-delta": 0.8, "spike": 0.5}
"""Largest leak of each encoding by default.

States settle the faster the larger it is; a spike train needs the low-pass that a smaller one is.
"""

CALM = 0.99
"""Spectral radius below which whole steps (leak 1) are safe.

The ends of the drive between two populations are of about equal size, and whole steps contract the
slowest of both faster than any smaller leak does; at 1 nothing would damp a rounding error.
"""

WHOLE = ("graded", "sigma-delta")
"""Encodings that take whole steps by default where they are safe.

A weakly coupled network is then at rest as soon as the signal has passed it, and its sigma-delta
neurons say in one message what a smaller leak spreads over several.
"""

SAFETY = 0.9
"""Share of the stability limit that a leak takes."""

ITERATIONS = 60
"""Most steps of the Lanczos iteration."""

TOLERANCE = 0.01
"""Lanczos stops once both ends of the spectrum are known to this share of its width."""


@dataclass(frozen=True)
class Spectrum:
    """Ends of the spectrum of the recurrent drive ``J``, widened by what is not yet known."""

    lowest: float
    highest: float

    @property
    def radius(self) -> float:
        """Largest absolute value of an eigenvalue."""
        return max(-self.lowest, self.highest)

    @property
    def leak_limit(self) -> float:
        """``2 / (1 - lowest)``: synchronous Euler is linearly stable below it.

        The steps ``v += a (J z - v)`` have the eigenvalues ``1 - a (1 - l)``, whose magnitude is
        below 1 for every eigenvalue ``l`` of ``J`` if ``a (1 - l_min) < 2`` and ``l_max < 1``.
        A clipped neuron only removes its row and column of the symmetric ``J``, which cannot
        widen the spectrum (Cauchy interlacing).
        """
        return 2.0 / (1.0 - min(self.lowest, 0.0))

    def leak(self, maximum: float) -> float:
        """The largest multiple of ``2**-12`` up to `maximum` and to `SAFETY` times the limit.

        Whole steps are safe for a radius below `CALM`.
        """
        limit = max(SAFETY * self.leak_limit, 1.0 if self.radius < CALM else 0.0)
        steps = math.floor(min(maximum, limit) * (1 << LEAK_BITS))
        return max(1, steps) / (1 << LEAK_BITS)


def largest_leak(code: str, spectrum: Spectrum) -> float:
    """The largest leak that neurons of the encoding `code` take by default."""
    if code in WHOLE and spectrum.radius < CALM:
        return 1.0
    return MAX_LEAKS.get(code, min(MAX_LEAKS.values()))


def ends_of_spectrum(drive: Callable[[np.ndarray], np.ndarray], size: int) -> Spectrum:
    """Ends of the spectrum of the symmetric map `drive` on vectors of `size`, by Lanczos iteration.

    Ritz values lie inside the spectrum; each end is widened by the residual of its Ritz pair,
    which makes up for stopping early.

    Parameters
    ----------
    drive : callable
        ``s -> J s`` in float64; its result may be overwritten.
    size : int
    """
    vector = np.random.default_rng(0).standard_normal(size)
    basis = [vector / np.linalg.norm(vector)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(ITERATIONS, size)):
        image = drive(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        # Without reorthogonalisation rounding brings copies of the converged ends back.
        for _ in range(2):
            for known in basis:
                image -= (known @ image) * known
        norm = float(np.linalg.norm(image))
        values, residuals = _ritz(diagonal, beside, norm)
        width = max(abs(values[0]), abs(values[-1]), 1e-12)
        if max(residuals[0], residuals[-1]) <= TOLERANCE * width:
            break
        beside.append(norm)
        basis.append(image / norm)
    return Spectrum(float(values[0] - residuals[0]), float(values[-1] + residuals[-1]))


def _ritz(diagonal: list[float], beside: list[float], norm: float) -> tuple[np.ndarray, np.ndarray]:
    matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    values, vectors = np.linalg.eigh(matrix)
    return values, norm * np.abs(vectors[-1])
