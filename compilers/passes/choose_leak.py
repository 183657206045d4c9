"""choose_leak: the largest leak that keeps synchronous steps stable, from the spectrum."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from compilers.ir import LEAK_BITS, Graph, Source
from compilers.operators import apply
from ep_neuro.errors import GraphError

TOLERANCE = 0.01
"""Lanczos stops once both ends of the spectrum are known to this share of its width."""


class LeakWarning(UserWarning):
    """The recurrent drive is so strong that no leak makes the network contract."""


@dataclass(frozen=True)
class Spectrum:
    """Ends of the spectrum of the recurrent drive ``J``, widened by what is not yet known."""

    lowest: float
    highest: float

    @property
    def leak_limit(self) -> float:
        """``2 / (1 - lowest)``: synchronous Euler is linearly stable below it.

        The steps ``v += a (J z - v)`` have the eigenvalues ``1 - a (1 - l)``, whose magnitude is
        below 1 for every eigenvalue ``l`` of ``J`` if ``a (1 - l_min) < 2`` and ``l_max < 1``.
        A clipped neuron only removes its row and column of the symmetric ``J``, which cannot
        widen the spectrum (Cauchy interlacing).
        """
        return 2.0 / (1.0 - min(self.lowest, 0.0))


def choose_leak(
    graph: Graph, maximum: float = 0.5, safety: float = 0.9, iterations: int = 60, seed: int = 0
) -> Graph:
    """Set the leak of every neuron; the spectrum and the leak are noted in the provenance.

    Parameters
    ----------
    graph : Graph
        With projections, before `encode`.
    maximum : float
        Largest leak wanted, in (0, 1].
    safety : float
        Share of the stability limit that is used.
    iterations, seed : int
        Most steps of the Lanczos iteration, and the seed of its start.

    Returns
    -------
    Graph
        All neurons have one leak, a multiple of ``2**-12`` so that integers express it exactly.

    Raises
    ------
    GraphError
        If `maximum` is not in (0, 1].

    Warns
    -----
    LeakWarning
        If an eigenvalue reaches 1: steps stay bounded by the boxes, but may not settle.
    """
    if not 0 < maximum <= 1:
        raise GraphError("leak", f"maximum {maximum} is not in (0, 1]", "give 0.5, for instance")
    spectrum = recurrent_spectrum(graph, iterations, seed)
    if spectrum.highest >= 1:
        warnings.warn(
            f"graph '{graph.name}': largest eigenvalue {spectrum.highest:.3f} of the recurrent "
            "drive is not below 1, so it may not settle to one point; train with a smaller gain "
            "or watch the residual",
            LeakWarning,
            stacklevel=2,
        )
    steps = math.floor(min(maximum, safety * spectrum.leak_limit) * (1 << LEAK_BITS))
    leak = max(1, steps) / (1 << LEAK_BITS)
    populations = tuple(
        p if isinstance(p.dynamics, Source) else replace(p, dynamics=replace(p.dynamics, leak=leak))
        for p in graph.populations
    )
    notes = {
        "leak": f"{leak:.6g}",
        "spectrum.lowest": f"{spectrum.lowest:.4g}",
        "spectrum.highest": f"{spectrum.highest:.4g}",
    }
    return replace(graph, populations=populations, provenance={**graph.provenance, **notes})


def recurrent_spectrum(graph: Graph, iterations: int = 60, seed: int = 0) -> Spectrum:
    """Ends of the spectrum of the drive between neurons, by Lanczos iteration.

    The drive is taken in real units (through the readout gains), where tied weights make it
    symmetric. Ritz values lie inside the spectrum; each end is widened by the residual of its
    Ritz pair, which makes up for stopping early.
    """
    drive, size = _recurrent_drive(graph)
    vector = np.random.default_rng(seed).standard_normal(size)
    basis = [vector / np.linalg.norm(vector)]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(iterations, size)):
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


def _recurrent_drive(graph: Graph) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """The map ``s -> J s`` on the flattened states of all neurons, and its size."""
    neurons = {p.name: p for p in graph.neurons}
    ends = np.cumsum([0, *(p.size for p in neurons.values())])
    places = {n: slice(a, b) for n, a, b in zip(neurons, ends, ends[1:], strict=False)}
    inner = [p for p in graph.projections if p.pre in neurons]
    weights = {p.weight: graph.arrays[p.weight].astype(np.float64) for p in inner}

    def drive(state: np.ndarray) -> np.ndarray:
        total = np.zeros_like(state)
        for p in inner:
            pre, post = neurons[p.pre], neurons[p.post]
            gain = p.scale * post.readout.gain / pre.readout.gain
            x = state[places[p.pre]].reshape(1, *pre.shape)
            y = apply(p.operator, weights[p.weight], x, post.shape)
            total[places[p.post]] += gain * y.ravel()
        return total

    return drive, int(ends[-1])
