"""Claims about NIR files made elsewhere: a network with its fixed points, or the reason why not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import targets
from compilers import compile_network
from ep_neuro.energy.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import ProgramError, SpecError
from ep_neuro.network.network import Network
from targets.nir.backend import BACKEND
from tests.helpers.graphs import digits_like_dense, samples, standardised_in_units
from tests.helpers.problems import chain
from tests.helpers.settled import settled

nir = pytest.importorskip("nir", reason=BACKEND.available().reason)

h5py = pytest.importorskip("h5py")

from targets.nir.files import nodes_of  # noqa: E402
from targets.nir.importer import import_nir, network_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning")


def stranger(**changes: Any) -> Any:
    """A NIR graph as others write it: 3 inputs, leaky integrators of 4 and 2, symmetric weights."""
    rng = np.random.default_rng(0)
    w_in, w = rng.normal(size=(4, 3)), 0.3 * rng.normal(size=(2, 4))
    nodes: dict[str, Any] = {
        "input": nir.Input(np.array([3])),
        "up": nir.Affine(w_in, rng.normal(size=4)),
        "a.0": nir.LI(tau=np.full(4, 0.01), r=np.ones(4), v_leak=rng.normal(size=4)),
        "on": nir.Linear(w),
        "b": nir.LI(tau=np.full(2, 0.02), r=np.ones(2), v_leak=np.zeros(2)),
        "back": nir.Linear(w.T.copy()),
        "output": nir.Output(np.array([2])),
    }
    edges = [
        *(("input", "up"), ("up", "a.0"), ("a.0", "on"), ("on", "b")),
        *(("b", "back"), ("back", "a.0"), ("b", "output")),
    ]
    nodes.update(changes.get("nodes", {}))
    drop = changes.get("drop", ())
    return nir.NIRGraph(
        nodes={k: v for k, v in nodes.items() if k not in drop},
        edges=[*(e for e in edges if not set(e) & set(drop)), *changes.get("edges", ())],
        type_check=changes.get("type_check", True),
    )


def euler(net: Any, x: np.ndarray) -> np.ndarray:
    """Membrane of 'b' in `stranger` after a long time, integrated from NIR's own equations."""
    v = {"a.0": np.zeros(4), "b": np.zeros(2)}
    for _ in range(4000):
        a, b, up = net.nodes["a.0"], net.nodes["b"], net.nodes["up"]
        into_a = up.weight @ x + up.bias + net.nodes["back"].weight @ v["b"]
        v_a = v["a.0"] + 1e-3 / a.tau * (a.v_leak - v["a.0"] + a.r * into_a)
        v_b = v["b"] + 1e-3 / b.tau * (b.v_leak - v["b"] + b.r * (net.nodes["on"].weight @ v_a))
        v = {"a.0": v_a, "b": v_b}
    return v["b"]


@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.5, 2.0), (3.0, 0.1)])
def test_a_symmetric_network_of_integrators_settles_where_its_equations_do(
    gains: tuple[float, float],
) -> None:
    """Resistances make the couplings symmetric up to a unit only, which importing finds."""
    net = stranger()
    net.nodes["a.0"].r *= gains[0]
    net.nodes["b"].r *= gains[1]
    network = network_of(net)
    assert [p.name for p in network.spec.populations] == ["a_0", "b"]
    x = np.array([0.3, -0.2, 0.9])
    np.testing.assert_allclose(settled(network, x), euler(net, x), atol=1e-4)


@pytest.mark.parametrize("make", [digits_like_dense, standardised_in_units])
def test_an_exported_network_comes_back_with_its_boxes_from_the_nodes_alone(
    make: Callable[[], NetworkSpec], tmp_path: Path
) -> None:
    """Convolutions as such, strided feedback included, and the input's mean from the biases."""
    spec = make()
    program = compile_network(Network(spec, 3), BACKEND, leak=0.5, steps=400)
    BACKEND.export(program, tmp_path / "a.nir")
    model = import_nir(tmp_path / "a.nir")
    assert model.network.spec.input.shape == spec.input.shape
    found = model.network.spec
    parts = ("pre", "post", "kind", "kernel", "stride", "padding")
    couplings = [{tuple(getattr(c, k) for k in parts) for c in s.couplings} for s in (found, spec)]
    assert couplings[0] == couplings[1]
    for new, old in zip(found.populations, spec.populations, strict=True):
        assert new.shape == old.shape
        assert new.bounds == pytest.approx(old.bounds, rel=1e-5)
    assert found.input.mean == pytest.approx(spec.input.mean, abs=1e-4)
    x, _ = samples(spec, 1)
    with targets.open(program) as session:
        z = session.settle(x).free.outputs[0]
    np.testing.assert_allclose(settled(model.network, x[0].astype(np.float32)), z, atol=1e-4)


def test_units_come_back_exactly_and_outputs_to_float32(tmp_path: Path) -> None:
    """As deep networks have them: nine digits of 2**37 are another number."""
    spec = standardised_in_units(ratio=2.0**18)
    network = Network(spec, 3)
    BACKEND.export(compile_network(network, BACKEND), tmp_path / "a.nir")
    x, _ = samples(spec, 3)
    there, back = (
        compile_network(n, "reference") for n in (network, import_nir(tmp_path / "a.nir").network)
    )
    gains = [[p.readout.gain for p in program.graph.neurons] for program in (there, back)]
    assert gains[0][0] == 2.0**36
    assert gains[0][:-1] == gains[1][:-1]
    outputs = []
    for program in (there, back):
        with targets.open(program) as session:
            outputs.append(session.settle(x).free.outputs)
    np.testing.assert_allclose(*outputs, atol=1e-6 * np.abs(outputs[0]).max())


def test_a_layer_of_more_neurons_than_a_matrix_takes_is_convolved_both_ways() -> None:
    conv: dict[str, Any] = {"kind": "conv", "kernel": 3, "stride": 2, "padding": 1}
    spec = NetworkSpec(
        name="wide",
        input=InputSpec(shape=(1, 96, 96)),
        populations=(
            PopulationSpec(name="a", shape=(8, 48, 48)),
            PopulationSpec(name="b", shape=(8, 24, 24)),
            PopulationSpec(name="out", shape=(4,), box=(-1, 2)),
        ),
        couplings=(
            CouplingSpec(pre="input", post="a", **conv),
            CouplingSpec(pre="a", post="b", **conv),
            CouplingSpec(pre="b", post="out"),
        ),
    )
    network = Network(spec, 2)
    found = network_of(nodes_of(compile_network(network, BACKEND, leak=0.5).graph))
    assert found.spec.couplings == spec.couplings
    for name, weight in network.weights.items():
        torch.testing.assert_close(found.weights[name], weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("joined", [True, False])
def test_a_convolution_and_a_pool_are_one_convolution_unless_a_border_parts_them(
    joined: bool,
) -> None:
    rng = np.random.default_rng(5)
    kernel, sides = rng.normal(size=(2, 1, 3, 2)), np.full(2, 0 if joined else 1)
    shape = (2, 3, 3) if joined else (2, 4, 4)
    nodes = {
        "input": nir.Input(np.array([1, 8, 8])),
        "conv": nir.Conv2d(None, kernel, 1, 0, 1, 1, np.zeros(2)),
        "pool": nir.AvgPool2d(np.full(2, 2), np.full(2, 2), sides),
        "v": nir.LI(np.ones(shape), np.ones(shape), np.zeros(shape)),
        "output": nir.Output(np.array(shape)),
    }
    network = network_of(nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False))
    (coupling,) = network.spec.couplings
    assert (coupling.kind == "conv") == joined
    assert not joined or (coupling.kernel, coupling.stride, coupling.padding) == (4, 2, 0)
    x = rng.normal(size=(1, 8, 8)).astype(np.float32)
    found = torch.conv2d(torch.tensor(x[None]).double(), torch.tensor(kernel))
    expected = torch.nn.functional.avg_pool2d(found, 2, 2, int(sides[0]))
    np.testing.assert_allclose(settled(network, x).ravel(), expected.ravel(), atol=1e-5)


def test_a_readout_that_is_none_is_told() -> None:
    net = stranger()
    net.nodes["output"].metadata["readout"] = np.array([0.0, -1.0])
    with pytest.raises(SpecError, match=r"'output': its readout has .* gain -1; note a finite"):
        network_of(net)


def test_an_exported_network_keeps_its_cost(tmp_path: Path) -> None:
    network = Network(chain(cost="cross-entropy"))
    BACKEND.export(compile_network(network, BACKEND), tmp_path / "net.nir")
    assert import_nir(tmp_path / "net.nir").network.cost == network.cost


def test_convolutions_scales_and_parallel_edges_add_up() -> None:
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(2, 1, 2, 2)), rng.normal(size=2)
    net = nir.NIRGraph(
        {
            "input": nir.Input(np.array([1, 3, 3])),
            "conv": nir.Conv2d((3, 3), kernel, 1, 0, 1, 1, bias),
            "flat": nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
            "scale": nir.Scale(np.full(8, 0.5)),
            "v": nir.LI(np.ones(8), np.ones(8), np.zeros(8)),
            "output": nir.Output(np.array([8])),
        },
        [
            *(("input", "conv"), ("conv", "flat"), ("flat", "scale"), ("flat", "v")),
            *(("scale", "v"), ("v", "output")),
        ],
    )
    x = rng.normal(size=(1, 3, 3))
    layer = torch.nn.functional.conv2d
    image = layer(torch.tensor(x[None]), torch.tensor(kernel), torch.tensor(bias))
    np.testing.assert_allclose(settled(network_of(net), x), 1.5 * image.flatten(), atol=1e-5)


def test_a_graph_in_a_graph_of_two_inputs_is_told() -> None:
    inner = stranger(
        nodes={"more": nir.Input(np.array([4]))}, edges=[("more", "a.0")], type_check=False
    )
    ends = {"input": nir.Input(np.array([3])), "part": inner, "output": nir.Output(np.array([2]))}
    net = nir.NIRGraph(ends, list(pairwise(ends)), type_check=False)
    with pytest.raises(SpecError, match="node 'part': the graph in it has 2 nodes of type Input"):
        network_of(net)


def test_nodes_of_an_inner_graph_do_not_take_the_place_of_others() -> None:
    part = nir.NIRGraph(
        {"in": nir.Input(np.array([3])), "0": nir.Scale(np.ones(3)), "out": nir.Output([3])},
        [("in", "0"), ("0", "out")],
        type_check=False,
    )
    net = stranger(nodes={"a": part}, edges=[("input", "a")], type_check=False)
    with pytest.raises(SpecError, match=r"^node 'a': the node '0' .*; rename the node 'a\.0'$"):
        network_of(net)


def test_a_shape_without_values_is_told() -> None:
    nodes = {"input": nir.Input(np.array([0])), "up": nir.Affine(np.zeros((4, 0)), np.zeros(4))}
    with pytest.raises(SpecError, match=r"^node 'input': the shape \(0,\) holds no values; give"):
        network_of(stranger(nodes=nodes))


def test_shapes_that_do_not_meet_are_told_by_node() -> None:
    net = stranger(nodes={"on": nir.Linear(np.ones((2, 5)))}, type_check=False)
    with pytest.raises(SpecError, match=r"'on': it takes the shape \(5,\), and 'a.0' gives"):
        network_of(net)


def test_neurons_without_an_energy_are_told_before_what_could_be_rewritten() -> None:
    nodes = {"b": nir.LIF(*np.ones((4, 2))), "step": nir.Threshold(np.ones(2))}
    net = stranger(nodes=nodes, edges=[("b", "step"), ("step", "b")])
    with pytest.raises(SpecError, match="'b': LIF: it fires and resets"):
        network_of(net)


def test_a_box_for_what_has_none_is_an_argument() -> None:
    assert all(p.box is None for p in network_of(stranger()).spec.populations)
    assert all(p.box == (0, 1) for p in network_of(stranger(), box=(0, 1)).spec.populations)


def retyped(file: Any) -> None:
    del file["node/nodes/b/type"]
    file["node/nodes/b/type"] = "ALIF"


def redirected(file: Any) -> None:
    edges = file["node/edges"][()]
    edges[0, 0] = b"nobody"
    file["node/edges"][...] = edges


UNREADABLE: dict[str, tuple[Callable[[Any], None], str]] = {
    "unknown type": (retyped, "node 'b' has the type 'ALIF', which nir"),
    "no type": (lambda f: f.__delitem__("node/nodes/b/type"), "node 'b' has no type"),
    "root without type": (lambda f: f.__delitem__("node/type"), "its root has no type: it was not"),
    "no weight": (
        lambda f: f.__delitem__("node/nodes/on/weight"),
        "'on', of type Linear, has no w",
    ),
    "no shape": (lambda f: f.__delitem__("node/nodes/input/shape"), "of type Input, has no shape"),
    "no edges": (lambda f: f.__delitem__("node/edges"), "its root, of type NIRGraph, has no edges"),
    "edge from nowhere": (redirected, "edge from 'nobody' to 'up' in its root joins no node"),
    "no network": (lambda f: f.__delitem__("node"), "it has no group 'node'"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_nir_cannot_read_is_told_by_node(case: str, tmp_path: Path) -> None:
    change, reason = UNREADABLE[case]
    nir.write(tmp_path / "a.nir", stranger())
    with h5py.File(tmp_path / "a.nir", "r+") as file:
        change(file)
    with pytest.raises(ProgramError) as caught:
        import_nir(tmp_path / "a.nir")
    assert "is no readable NIR file (" in str(caught.value)
    assert reason in str(caught.value)
    assert "with the nodes of nir" in caught.value.remedy
    assert "\n" not in str(caught.value)


ones = np.ones(2)
LOOP = ("Linear", {"weight": np.eye(2)})
LIF = {"tau": ones, "r": ones, "v_leak": ones, "v_threshold": ones}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "spikes": ({"nodes": {"b": ("LIF", LIF)}}, "'b': LIF: it fires and resets"),
    "no leak": ({"nodes": {"b": ("I", {"r": ones})}}, "'b': I: it integrates without a leak"),
    "one way": ({"drop": ["back"]}, "nothing leads back"),
    "asymmetric": (
        {"nodes": {"back": ("Linear", {"weight": np.arange(8.0).reshape(4, 2)})}},
        "'a.0' and 'b': weights differ from their transpose",
    ),
    "against each other": (
        {"nodes": {"on": ("Linear", {"weight": -stranger().nodes["back"].weight.T})}},
        "differ from their transpose",
    ),
    "itself": (
        {"nodes": {"loop": LOOP}, "edges": [("b", "loop"), ("loop", "b")]},
        "'b': it feeds itself",
    ),
    "not linear": (
        {
            "nodes": {"step": ("Threshold", {"threshold": ones})},
            "edges": [("b", "step"), ("step", "b")],
        },
        "'step': Threshold is neither a neuron nor linear",
    ),
    "linear loop": (
        {"nodes": {"loop": LOOP}, "edges": [("loop", "b"), ("loop", "loop")]},
        "without a neuron",
    ),
    "two inputs": (
        {"nodes": {"more": ("Input", {"input_type": np.array([4])})}, "edges": [("more", "a.0")]},
        "2 inputs, not 1",
    ),
    "mixed output": ({"edges": [("on", "output")]}, "'output': it reads b, on"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_without_an_energy_is_refused_with_its_reason(case: str) -> None:
    changes, reason = REFUSED[case]
    nodes = {
        k: getattr(nir, kind)(**fields) for k, (kind, fields) in changes.get("nodes", {}).items()
    }
    with pytest.raises(SpecError) as caught:
        network_of(stranger(**{**changes, "nodes": nodes}))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
