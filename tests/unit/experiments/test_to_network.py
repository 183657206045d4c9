"""Claims about reading back: what was lowered comes back as the network that it was."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import compilers
from ep_neuro.energy.spec import InputSpec, NetworkSpec
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import load_model
from ep_neuro.network.network import Network, parameter_names
from targets.experiments.onchip.to_network import UnevenBiasWarning, network_of, write_model


def fresh(name: str, seed: int, spec: NetworkSpec | None = None) -> Network:
    """A network with weights and biases from `seed`."""
    network = Network(spec or zoo(name), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for bias in network.biases.values():
            bias.copy_(0.1 * torch.randn(bias.shape, generator=generator))
    return network


@settings(max_examples=4)
@given(
    st.sampled_from(["digits_dense", "digits_residual"]),
    st.sampled_from(["graded", "sigma-delta", "spike"]),
    st.integers(0, 100),
)
def test_a_lowered_network_comes_back_with_its_parameters(name: str, code: str, seed: int) -> None:
    network = fresh(name, seed)
    back = network_of(compilers.compile(network, code=code).graph)
    assert back.spec.boxes == network.spec.boxes
    assert [c.name for c in back.spec.couplings] == [c.name for c in network.spec.couplings]
    before, after = parameter_names(network), parameter_names(back)
    for key, value in before.items():
        # Folding the boxes passes the biases through float32 at other scales.
        torch.testing.assert_close(after[key], value, rtol=1e-5, atol=2e-5)


@settings(max_examples=6)
@given(st.integers(3, 8), st.integers(0, 100))
def test_integers_come_back_as_what_they_stand_for(bits: int, seed: int) -> None:
    network = fresh("digits_dense", seed)
    back = network_of(compilers.compile(network, bits=bits).graph)
    for name, weight in network.weights.items():
        found = back.weights[name].detach().numpy().astype(np.float64)
        # Integers of so many bits times a power of two, each within half a unit of the weight.
        unit = np.abs(found[found != 0]).min()
        steps = found / unit
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
        inside = np.abs(weight.detach().numpy()) <= np.abs(found).max()
        distance = np.abs(found - weight.detach().numpy())[inside]
        # Below 5 bits each channel has a unit of its own, at most 256 times the finest.
        assert distance.max() <= (0.5 if bits >= 5 else 128) * unit * (1 + 1e-6)


@given(mean=st.floats(0, 1), octaves=st.integers(-2, 3), seed=st.integers(0, 99))
def test_a_normalised_input_comes_back_as_it_was(mean: float, octaves: int, seed: int) -> None:
    seen = InputSpec(shape=(1, 8, 8), mean=(mean,), std=(2.0**-octaves,))
    network = fresh("", seed, zoo("digits_residual").model_copy(update={"input": seen}))
    back = network_of(compilers.compile(network).graph)
    assert np.allclose(back.spec.input.mean or 0, mean)
    assert (back.spec.input.std or (1.0,)) == seen.std
    after = parameter_names(back)
    for key, value in parameter_names(network).items():
        torch.testing.assert_close(after[key], value, rtol=1e-5, atol=1e-4)


def test_a_bias_that_differs_within_a_channel_is_told_of() -> None:
    spec = zoo("digits_residual")
    graph = compilers.compile(fresh("", 1, spec)).graph
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network_of(graph)
    name = graph.neurons[0].bias or ""
    uneven = graph.arrays[name].copy()
    uneven[0, 0, 0] += 0.1
    with pytest.warns(UnevenBiasWarning, match="differ by up to"):
        network_of(graph.with_arrays(arrays={**graph.arrays, name: uneven}))


def test_a_program_becomes_a_model_on_disk(tmp_path: Path) -> None:
    network = fresh("digits_dense", 4)
    program = compilers.compile(network, code="spike")
    written = write_model(program, tmp_path / "model", data="digits")
    model = load_model(written)
    assert model.metadata["code"] == "spike"
    assert model.metadata["data"] == "digits"
    torch.testing.assert_close(
        model.network.weights["h1->output"], network.weights["h1->output"], rtol=1e-6, atol=1e-6
    )
