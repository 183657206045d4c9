"""From a graph back to a network: what a chip has learnt, as a model that torch can settle."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compilers.ir.graph import Graph, Population
from compilers.learning.real_units import real_bias, real_weight, spec_of
from compilers.program import Program
from ep_neuro.network.checkpoint import Model, save_model
from ep_neuro.network.network import Network, parameter_names

UNEVEN = 0.01
"""Spread of the biases within a channel, in box heights, above which a reader should know."""


class UnevenBiasWarning(UserWarning):
    """Biases differ within a channel, where a network has one; it takes their median."""


def network_of(graph: Graph) -> Network:
    """The network whose parameters are those of `graph`, in real units.

    It normalises raw pixels by one mean and one power of two for all channels, as the graph does;
    what a model's normalisation had besides, or a pool, is part of its weights.

    Parameters
    ----------
    graph : Graph
        Lowered: projections, in floating point or in integers.

    Raises
    ------
    GraphError
        If the graph has more than one input.
    """
    network = Network(spec_of(graph))
    values = {f"weight/{graph.tie(w).name}": real_weight(graph, w) for w in graph.ties}
    for p in graph.neurons:
        values[f"bias/{p.name}"] = _per_channel(p, real_bias(graph, p))
    with torch.no_grad():
        for name, parameter in parameter_names(network).items():
            parameter.copy_(torch.from_numpy(values[name]))
    return network


def _per_channel(p: Population, bias: np.ndarray) -> np.ndarray:
    """One bias a channel; warns where the neurons of a channel differ."""
    channels = bias.reshape(len(bias), -1)
    spread = float(np.ptp(channels, axis=1).max()) / abs(p.readout.gain)
    if spread > UNEVEN:
        warnings.warn(
            f"population '{p.name}': biases within a channel differ by up to {spread:.2g} box "
            f"heights, and the network takes their median; a normalised input, coarse weights or "
            f"dead neurons cause this",
            UnevenBiasWarning,
            stacklevel=3,
        )
    return np.median(channels, axis=1)


def write_model(program: Program, path: str | Path, **notes: Any) -> Path:
    """Write the network of `program` as a model directory, with `notes` as its metadata.

    Raises
    ------
    ModelError
        If `path` holds something else, or the disk refuses.
    GraphError
        See `network_of`.
    """
    metadata = {"target": program.target, "code": program.graph.encoding, **notes}
    return save_model(Model(network_of(program.graph), metadata), path)
