"""Our own model of a weight as a pair of conductances: dead simple, to check aihwkit's against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ConductancePair:
    """``W = (G+ - G-) / G``: one device holds the weight, the other of the pair stands at zero.

    Programming: ``G <- max(G + programming * noise, 0)``. Drift: ``G(t) = G ((t + t0) / t0)^-nu``,
    each device with ``nu = max(nu_mean + nu_spread * noise, 0)``. Conductances are relative to the
    largest one, so that a weight of 1 is ``G+ = 1, G- = 0``.

    Notes
    -----
    Power law and t0 as in Joshi et al. 2020 (Nature Communications 11, 2473). The defaults are
    about the mean of what aihwkit's PCM model, fitted on devices, does over its range.
    """

    programming: float = 0.03
    """Standard deviation of the error of a written conductance."""
    nu_mean: float = 0.055
    """Mean of the drift exponent over devices."""
    nu_spread: float = 0.015
    """Standard deviation of the drift exponent over devices."""
    t0: float = 20.0
    """Time from programming to the first read, seconds."""

    def program(self, weights: np.ndarray, rng: np.random.Generator) -> Programmed:
        """Write `weights`, of any shape and at most 1 in absolute value."""
        pair = np.stack([np.maximum(weights, 0), np.maximum(-weights, 0)])
        written = np.maximum(pair + self.programming * rng.standard_normal(pair.shape), 0)
        nu = np.maximum(self.nu_mean + self.nu_spread * rng.standard_normal(pair.shape), 0)
        return Programmed(written, nu, self.t0)


@dataclass(frozen=True)
class Programmed:
    """Written conductances and drift exponents of both devices, each (2, *shape of the weights)."""

    written: np.ndarray
    nu: np.ndarray
    t0: float

    def at(self, seconds: float) -> np.ndarray:
        """The weights that long after programming, uncompensated."""
        drifted = self.written * ((seconds + self.t0) / self.t0) ** -self.nu
        return drifted[0] - drifted[1]

    def compensation(self, seconds: float) -> float:
        """Factor that gives the array back the mean absolute weight that it was written with."""
        return float(np.abs(self.at(0.0)).mean() / max(np.abs(self.at(seconds)).mean(), 1e-12))
