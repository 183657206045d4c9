"""choose_leak: the largest leak that keeps synchronous steps stable, from the spectrum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from compilers.ir.graph import Graph, Source
from compilers.ir.operators import apply
from compilers.passes.spectrum import Spectrum, ends_of_spectrum
from ep_neuro.errors import GraphError


class LeakWarning(UserWarning):
    """The recurrent drive is so strong that no leak makes the network contract."""


def choose_leak(graph: Graph, maximum: float | Callable[[Spectrum], float] = 0.5) -> Graph:
    """Set the leak of every neuron; the spectrum and the leak are noted in the provenance.

    Parameters
    ----------
    graph : Graph
        With projections, before `encode`.
    maximum : float or callable
        Largest leak wanted, in (0, 1], or what says it by the spectrum.

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
    if not callable(maximum) and not 0 < maximum <= 1:
        raise GraphError("leak", f"maximum {maximum} is not in (0, 1]", "give 0.5, for instance")
    spectrum = recurrent_spectrum(graph)
    if spectrum.highest >= 1:
        warnings.warn(
            f"graph '{graph.name}': largest eigenvalue {spectrum.highest:#.4g} of the recurrent "
            "drive, no neuron clipped, is not below 1, so it may not settle to one point; "
            "`ep-neuro compare` tells where samples do settle, or train with a smaller gain",
            LeakWarning,
            stacklevel=2,
        )
    leak = spectrum.leak(maximum(spectrum) if callable(maximum) else maximum)
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


def recurrent_spectrum(graph: Graph) -> Spectrum:
    """Ends of the spectrum of the drive between neurons, by Lanczos iteration.

    The drive is taken in real units (through the readout gains), where tied weights make it
    symmetric.
    """
    return ends_of_spectrum(*_recurrent_drive(graph))


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
