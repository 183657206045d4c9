"""Claims about files for one reader: its nodes alone, its step that is ours, and what is lost."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import targets
from compilers import compile_network
from compilers.ir.graph import Spiking
from ep_neuro.errors import ConfigError, EPNeuroError, GraphError, ProgramError, TargetError
from ep_neuro.network.network import Network
from targets.nir.backend import BACKEND
from targets.nir.readers import READERS, Reader
from tests.helpers.graphs import (
    digits_like_dense,
    digits_like_residual,
    graph_of,
    random_residual_spec,
    samples,
    standardised_in_units,
)

nir = pytest.importorskip("nir", reason=BACKEND.available().reason)

from targets.nir.files import load_nir, nodes_of  # noqa: E402
from targets.nir.for_reader import ReaderWarning, fitting, written_for  # noqa: E402
from targets.nir.samples import graph_data  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning"),
    pytest.mark.filterwarnings("ignore::targets.nir.for_reader.ReaderWarning"),
]

NAMES = sorted(READERS)


def program_for(reader: Reader, spec: Any, leak: float = 0.5) -> Any:
    code: Any = "graded" if reader.neuron == "LI" else "spike"
    options = {"reader": reader.name}
    return compile_network(Network(spec, 3), BACKEND, code=code, leak=leak, options=options)


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 50), leak=st.sampled_from([0.25, 0.5, 1]))
def test_a_file_has_nodes_alone_that_its_reader_takes(name: str, seed: int, leak: float) -> None:
    reader = READERS[name]
    code: Any = "graded" if reader.neuron == "LI" else "spike"
    graph = compile_network(Network(random_residual_spec(seed), 3), code=code, leak=leak).graph
    if reader.filters == "decaying" and leak == 1:
        return
    net = written_for(graph, reader)
    assert {type(n).__name__ for n in net.nodes.values()} - {"Input", "Output"} <= reader.takes
    assert net.metadata["reader"] == name
    for node in net.nodes.values():
        # sinabs and snntorch refuse a resting level; a bias stands in a linear node for all.
        assert not np.any(getattr(node, "v_leak", 0))
    for pre, post in net.edges:
        assert np.prod(net.nodes[pre].output_type["output"]) == np.prod(
            net.nodes[post].input_type["input"]
        )


def stepped(reader: Reader, tau: float, drive: float) -> float:
    """A filter from 0 after one step of `reader`, as its source has it."""
    a = np.exp(-reader.dt / tau)
    return {
        "euler": reader.dt / tau * drive,
        "exponential": (1 - a) * drive,
        "decaying": a * drive,
        "unscaled": drive,
    }[reader.filters]


@pytest.mark.parametrize("name", NAMES)
@given(leak=st.floats(0.01, 0.99))
def test_time_constants_and_gains_make_its_step_ours(name: str, leak: float) -> None:
    reader = READERS[name]
    tau = reader.tau(leak)
    kept = 1 - reader.dt / tau if reader.filters == "euler" else np.exp(-reader.dt / tau)
    assert kept == pytest.approx(1 - leak)
    assert reader.leak(tau) == pytest.approx(leak)
    assert stepped(reader, tau, reader.gain(leak) * 3.0) == pytest.approx(leak * 3.0)


@pytest.mark.parametrize("make", [digits_like_dense, standardised_in_units])
@pytest.mark.parametrize("name", NAMES)
def test_our_own_reader_runs_it_as_the_reference_runs_the_network(
    name: str, make: Any, tmp_path: Path
) -> None:
    reader, spec = READERS[name], make()
    program = program_for(reader, spec)
    x, _ = samples(spec, 4)
    with targets.open(program) as session:
        here = session.settle(x).free.outputs
    own: Any = program.graph.encoding
    parameters = {"reset": reader.resets[0]} if own == "spike" else {}
    how: Any = {"code": own, "leak": 0.5, "parameters": parameters}
    same = compile_network(Network(spec, 3), "reference", **how)
    with targets.open(same) as session:
        there = session.settle(x).free.outputs
    # A weight that a gain passed through float32 may move one spike of the 32 that count.
    np.testing.assert_allclose(here, there, atol=1 / 16 if own == "spike" else 1e-5)
    BACKEND.export(program, tmp_path / "a.nir")
    assert load_nir(tmp_path / "a.nir").digest() == program.graph.digest()
    assert nir.read(tmp_path / "a.nir").metadata["reader"] == name


NEURONS = (nir.IF, nir.CubaLIF)


def files_for(name: str) -> list[Any]:
    """What is written for a reader that nothing installs: dense, residual, and without a filter."""
    cases: list[tuple[Any, float]] = [(digits_like_dense(), 0.5), (random_residual_spec(1), 0.5)]
    cases += [(digits_like_dense(), 1.0)] if READERS[name].plain else []
    return [nodes_of(program_for(READERS[name], *case).graph, name) for case in cases]


def test_a_file_for_spinnaker2_keeps_the_rules_of_its_importer() -> None:
    """As `create_populations` and `create_projections` of s2_nir.py have them."""
    for net in files_for("spinnaker2"):
        for pre, post in ((net.nodes[a], net.nodes[b]) for a, b in net.edges):
            # Weights lie between a source of spikes and neurons, one for each way.
            if isinstance(pre, (nir.Input, *NEURONS)):
                assert isinstance(post, nir.Affine | nir.Linear | nir.Output)
            else:
                assert isinstance(post, NEURONS)
        assert len(net.nodes["input"].input_type["input"]) == 1
        for name, node in net.nodes.items():
            if not isinstance(node, NEURONS):
                continue
            # It adds up the biases of all that leads here, into an array of this shape.
            before = [net.nodes[a] for a, b in net.edges if b == name]
            shapes = {n.bias.shape for n in before if isinstance(n, nir.Affine)}
            assert shapes <= {tuple(node.input_type["input"])}
            # It divides 127 by the largest weight, of which there has to be one.
            assert max(np.abs(n.weight).max() for n in before) > 0
            params = ("tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_threshold")
            assert {v.ndim for k in params if (v := getattr(node, k, None)) is not None} == {1}


def test_a_file_for_brainscales2_keeps_the_rules_of_its_importer() -> None:
    """As `_map_nir_to_hxtorch` has them, which reads no gain of the current and no bias."""
    for net in files_for("brainscales2"):
        kinds = [type(node) for node in net.nodes.values()]
        assert set(kinds) == {nir.Input, nir.Output, nir.Linear, nir.CubaLIF}
        assert kinds.count(nir.Input) == kinds.count(nir.Output) == 1
        for node in net.nodes.values():
            if isinstance(node, nir.CubaLIF):
                values = (node.tau_mem, node.tau_syn, node.r, node.v_leak, node.v_reset)
                assert all(len(np.unique(v)) == 1 for v in (*values, node.v_threshold))
                assert (node.w_in == 1).all()
        for pre, post in ((net.nodes[a], net.nodes[b]) for a, b in net.edges):
            # A module is called with the output of one other: synapses by neurons, and back.
            assert isinstance(pre, nir.Linear) is not isinstance(post, nir.Linear | nir.Output)


@pytest.mark.parametrize("name", NAMES)
def test_compiling_for_a_reader_tells_in_one_line_what_it_loses(name: str) -> None:
    reader = READERS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program_for(reader, digits_like_dense())
    (told,) = (str(w.message) for w in caught if w.category is ReaderWarning)
    assert told.startswith(f"reader '{name}' (")
    assert (reader.tested or "untested") in told
    assert reader.loses in told
    assert "\n" not in told


def for_reader(name: str, reset: str | None) -> Any:
    parameters: Any = {} if reset is None else {"reset": reset}
    how: Any = {"steps": 4, "parameters": parameters, "options": {"reader": name}}
    return compile_network(Network(digits_like_dense(), 0), "nir", code="spike", **how).graph


@pytest.mark.parametrize("name", ["norse", "snntorch", "spinnaker2"])
def test_a_reader_with_both_resets_is_loaded_for_the_one_that_the_network_has(name: str) -> None:
    for reset, call in (("soft", READERS[name].call), ("hard", READERS[name].hard)):
        with pytest.warns(ReaderWarning) as told:
            graph = for_reader(name, reset)
        (said,) = (str(w.message) for w in told if w.category is ReaderWarning)
        assert said.endswith(f"; load it by {call}")
        assert {p.dynamics.reset for p in graph.neurons} == {reset}


def test_a_reader_that_has_a_hard_reset_alone_gives_the_network_one() -> None:
    graph = for_reader("brainscales2", None)
    assert {p.dynamics.reset for p in graph.neurons} == {"hard"}
    with pytest.raises(GraphError, match=r"'reset': soft was asked for, and neurons of .* hard"):
        for_reader("brainscales2", "soft")


@pytest.mark.parametrize("name", ["sinabs", "rockpool"])
def test_a_reader_that_subtracts_alone_takes_no_hard_reset(name: str) -> None:
    with pytest.raises(TargetError, match=f"'{name}': a spike takes 1 off .*--reset soft"):
        for_reader(name, "hard")


def test_biases_that_differ_within_a_channel_are_brought_by_one_more_input() -> None:
    """Of a mean of the input at its border, or of the output's box."""
    reader, spec = READERS["norse"], standardised_in_units()
    program = program_for(reader, spec)
    net = nodes_of(program.graph, "norse")
    kinds = {type(node) for node in net.nodes.values()}
    assert kinds == {nir.Input, nir.Output, nir.Conv2d, nir.CubaLIF}
    assert list(net.nodes["input"].input_type["input"]) == [3, 6, 6]
    data = graph_data(program, np.zeros((1, *spec.input.shape)))
    sent = data.nodes["input"].observables["values"].data[0, 0]
    assert sent[-1] == 1
    assert not sent[:-1].any()
    spread, bias = net.nodes["a_bias"], program.graph.arrays["bias/a"]
    image = torch.zeros(1, 3, 6, 6)
    image[0, -1, -1, -1] = 1
    made = torch.conv2d(image, torch.tensor(spread.weight), padding=tuple(spread.padding))
    np.testing.assert_allclose(made[0], bias, atol=1e-6)


def test_where_a_foreign_file_stands_no_samples_are_left(tmp_path: Path) -> None:
    network = Network(digits_like_dense(), 0)
    program = compile_network(
        network, "nir", steps=4, options={"samples": 2}, provenance={"data": "digits"}
    )
    (tmp_path / "net.nir").write_text("mine")
    with pytest.raises(ProgramError, match="is a file with other content"):
        BACKEND.export(program, tmp_path / "net.nir")
    assert [path.name for path in tmp_path.iterdir()] == ["net.nir"]


REFUSED: dict[str, tuple[dict[str, Any], type[EPNeuroError], str]] = {
    "unknown": ({"options": {"reader": "snntorhc"}}, ConfigError, "did you mean 'snntorch'"),
    "no name": ({"options": {"reader": 3}}, ConfigError, "reader '3': is none of sinabs, "),
    "samples": (
        {"options": {"reader": "norse", "samples": -1}},
        ConfigError,
        "is -1; give a whole number from 0",
    ),
    "graded": ({"options": {"reader": "norse"}}, TargetError, "graded; compile with --code spike"),
    "spikes": (
        {"options": {"reader": "nengo"}, "code": "spike"},
        TargetError,
        "compile with --code graded",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_reader_cannot_take_is_told_at_compile_time(case: str) -> None:
    how, error, reason = REFUSED[case]
    with pytest.raises(error) as caught:
        compile_network(Network(digits_like_dense(), 3), BACKEND, **how)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_filter_that_would_pass_nothing_on_is_told() -> None:
    graph = graph_of(digits_like_dense(), "spike")
    quick = [replace(p, dynamics=Spiking(leak=1.0)) for p in graph.neurons]
    graph = replace(graph, populations=(*graph.sources, *quick))
    with pytest.raises(TargetError, match=r"at a leak of 1; compile with --leak 0\.5"):
        fitting(graph, READERS["rockpool"])


def test_a_delay_of_more_than_a_step_is_told() -> None:
    graph = graph_of(digits_like_dense(), "spike", delays=True)
    with pytest.raises(TargetError, match="'norse': it takes no Delay, and '"):
        fitting(graph, READERS["norse"])


def test_a_chip_takes_so_many_neurons() -> None:
    with pytest.raises(TargetError, match="exceed the 512 of one chip; narrow the layers"):
        program_for(READERS["brainscales2"], digits_like_residual())


@pytest.mark.parametrize("name", ["norse", "brainscales2", "nengo"])
def test_samples_hold_inputs_by_step_and_the_outputs_that_we_send(name: str) -> None:
    reader, spec = READERS[name], digits_like_dense()
    program = program_for(reader, spec)
    x, _ = samples(spec, 2)
    data = graph_data(program, np.clip(x, 0, 1))
    data.check_nodes(nodes_of(program.graph, name))
    (inputs,) = data.nodes["input"].observables.items()
    (outputs,) = data.nodes[program.graph.output].observables.items()
    steps = program.graph.phases[0].steps
    assert inputs[1].data.shape[:2] == outputs[1].data.shape[:2] == (2, steps)
    assert inputs[1].dt == reader.dt
    assert (outputs[0] == "spikes") == (program.graph.encoding == "spike")
    rate = inputs[1].data.mean(1)
    if reader.events:
        assert inputs[1].data[..., -1].all()
        rate = rate[:, :-1]
    np.testing.assert_allclose(rate, np.clip(x, 0, 1).reshape(2, -1), atol=0.5 / steps + 1e-7)


def test_samples_of_a_model_that_notes_no_data_are_refused_before_a_file_is_written(
    tmp_path: Path,
) -> None:
    program = compile_network(Network(digits_like_dense(), 3), BACKEND, options={"samples": 2})
    with pytest.raises(ProgramError, match="option 'samples': it does not say which data"):
        BACKEND.export(program, tmp_path / "net.nir")
    assert not list(tmp_path.iterdir())
