"""Claims about the way from a network to a graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compilers.frontend import lower
from compilers.ir.graph import Graph, Source
from compilers.ir.operators import apply
from compilers.passes.expand_couplings import expand_couplings
from compilers.passes.validate import validate
from ep_neuro.energy.spec import INPUT, NetworkSpec
from ep_neuro.errors import GraphError
from ep_neuro.network.network import Landscape, Network
from tests.helpers.graphs import digits_like_dense, digits_like_residual, random_residual_spec
from tests.helpers.problems import chain, pooled, smooth_chain

SPECS = [
    digits_like_dense(),
    digits_like_residual(),
    pooled("avg"),
    *map(random_residual_spec, range(4)),
]


def network_of(spec: NetworkSpec) -> Network:
    """A network whose biases and input statistics are not zero."""
    channels = spec.input.shape[0]
    clamped = spec.input.model_copy(
        update={"mean": (0.3, 0.1, 0.7)[:channels], "std": (0.35, 0.2, 0.5)[:channels]}
    )
    network = Network(spec.model_copy(update={"input": clamped}), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for bias in network.biases.values():
            bias += torch.randn(bias.shape, generator=generator)
    return network


def drive(graph: Graph, states: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Drive of a population by the text of `compilers.ir.graph`, all states given."""
    post = graph.population(name)
    total = np.zeros((1, *post.shape)) if post.bias is None else graph.arrays[post.bias][None]
    for p in graph.into(name):
        weight = graph.arrays[p.weight]
        total = total + p.scale * apply(p.operator, weight, states[p.pre], post.shape)
    return total


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_the_graph_of_raw_pixels_has_the_drive_of_the_normalised_network(
    spec: NetworkSpec,
) -> None:
    network = network_of(spec)
    graph = validate(expand_couplings(lower(network)))
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(2, *spec.input.shape))
    states = {p.name: rng.uniform(size=(2, *p.shape)) for p in spec.populations}
    with torch.no_grad():
        landscape = Landscape(network.double(), torch.from_numpy(x))
        torch_states = {k: torch.from_numpy(v) for k, v in states.items()}
        for p in spec.populations:
            expected = landscape.drive(torch_states, p.name).numpy()
            found = drive(graph, {INPUT: x, **states}, p.name)
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_graph_keeps_the_spec_and_names_its_model() -> None:
    network = network_of(digits_like_residual())
    graph = lower(network, {"data": "digits"})
    assert [p.name for p in graph.sources] == [INPUT]
    assert {p.name: p.box for p in graph.neurons} == network.spec.boxes
    assert len(graph.couplings) == len(network.spec.couplings)
    assert isinstance(graph.population(INPUT).dynamics, Source)
    assert [(p.name, p.start, p.sign) for p in graph.phases] == [
        ("free", None, 0),
        ("nudged+", "free", 1),
        ("nudged-", "free", -1),
    ]
    assert graph.provenance["data"] == "digits"
    assert all(a.dtype == np.float32 for a in graph.arrays.values())


def test_the_models_hash_follows_its_parameters() -> None:
    network = network_of(digits_like_dense())
    before = lower(network).provenance["model.sha256"]
    assert lower(network).provenance["model.sha256"] == before
    with torch.no_grad():
        network.biases["h1"][0] += 1
    assert lower(network).provenance["model.sha256"] != before


def test_later_training_does_not_reach_into_a_graph() -> None:
    network = network_of(digits_like_dense())
    graph = lower(network)
    before = graph.digest()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert graph.digest() == before


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (smooth_chain(), ["population 'h'", "activation sigmoid", "train with activation: clip"]),
        (pooled("max"), ["coupling 'input->a'", "max-pool", "train with pool: avg"]),
        (chain(untied=True), ["coupling 'h->g'", "train without untied"]),
        (chain(readout=True), ["readout of 'chain'", "train with the squared error"]),
    ],
    ids=["sigmoid", "max-pool", "untied", "readout"],
)
def test_what_a_graph_cannot_say_is_refused_in_one_line(
    spec: NetworkSpec, parts: list[str]
) -> None:
    with pytest.raises(GraphError) as caught:
        lower(Network(spec))
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts)
