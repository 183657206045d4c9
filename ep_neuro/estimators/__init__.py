"""Estimators of the loss gradient from settled states: one interface, chosen by ``kind``.

Each is called as ``estimator(network, x, y)`` and returns an `Estimate`.
"""

from __future__ import annotations

from ep_neuro.estimators.base import ESTIMATORS, Estimator, register_estimator
from ep_neuro.estimators.contrast import Estimate, Gradient, contrast, readout_gradient
from ep_neuro.estimators.deployed import Deployed
from ep_neuro.estimators.frozen_mean import FrozenMean
from ep_neuro.estimators.holomorphic import Holomorphic
from ep_neuro.estimators.two_phase import Centered, OneSided, RandomSign

__all__ = [
    "ESTIMATORS",
    "Centered",
    "Deployed",
    "Estimate",
    "Estimator",
    "FrozenMean",
    "Gradient",
    "Holomorphic",
    "OneSided",
    "RandomSign",
    "contrast",
    "readout_gradient",
    "register_estimator",
]
