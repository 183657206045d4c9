"""Claims about NIR: the nodes mean the graph, and its files come back the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import targets
from compilers import Program, compile_network
from compilers.ir.graph import ENCODINGS, Conv, Coupling, Encoding, Graph, Source, Spiking
from ep_neuro.cli import main
from ep_neuro.energy.spec import InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import ProgramError, TargetError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from targets.nir.backend import BACKEND
from tests.helpers.graphs import conv, digits_like_dense, graph_of, random_residual_spec, samples
from tests.helpers.oracle import unrolled

nir = pytest.importorskip("nir", reason=BACKEND.available().reason)

from targets.nir.export import to_nir  # noqa: E402
from targets.nir.files import load_nir, nir_bytes, read_nir, save_nir  # noqa: E402
from targets.nir.importer import import_nir  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning")


@pytest.fixture(scope="module")
def graph() -> Graph:
    """A small residual network whose input is convolved."""
    return graph_of(random_residual_spec(1), "graded")


# --- nodes -------------------------------------------------------------------------------------


def matrix_of(net: Any, name: str) -> np.ndarray:
    """Matrix of the projection `name`, composed of the nodes that it became."""
    (node,) = (n for n in net.nodes.values() if n.metadata.get("projection") == name)
    if isinstance(node, nir.Affine):
        return np.asarray(node.weight, np.float64)
    layer = torch.nn.functional.conv2d
    shape = tuple(map(int, node.input_type["input"]))
    units = torch.eye(int(np.prod(shape))).reshape(-1, *shape)
    images = layer(units, torch.tensor(node.weight), stride=node.stride, padding=node.padding)
    return images.flatten(1).T.double().numpy()


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("seed", range(3))
def test_each_projection_becomes_its_own_matrix_in_real_numbers(
    seed: int, bits: int | None
) -> None:
    graph = graph_of(random_residual_spec(seed), bits=bits, seed=seed)
    net = to_nir(graph)
    for p in graph.projections:
        wanted = unrolled(graph, p) * p.scale
        if p.rescale is not None:
            pre, post = graph.population(p.pre), graph.population(p.post)
            assert pre.message is not None
            assert post.state is not None
            shifted = graph.arrays[p.weight].astype(np.float64)
            if p.exponent is not None:
                powers = 2.0 ** graph.arrays[p.exponent]
                shifted = shifted * powers.reshape(-1, *[1] * (shifted.ndim - 1))
            gain = p.rescale.multiplier * 2.0**p.rescale.shift
            gain *= pre.message.one / post.state.one
            arrays = {**graph.arrays, p.weight: shifted}
            wanted = unrolled(replace(graph, arrays=arrays), p) * gain
        found = matrix_of(net, p.name)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_tied_weights_are_each_others_transpose_up_to_their_gains() -> None:
    net = to_nir(compile_network(Network(digits_like_dense(), 0), BACKEND).graph)
    there, back = (net.nodes[n].weight for n in ("h1_to_out", "out_to_h1"))
    # The output's box is twice as high as that of h1, and states are in units of their box.
    np.testing.assert_allclose(there * 4, back.T, rtol=1e-6)
    assert net.nodes["h1_to_out"].metadata["tie"] == net.nodes["out_to_h1"].metadata["tie"]


def test_only_what_leaves_the_input_stays_a_convolution(graph: Graph) -> None:
    kinds = {type(n).__name__ for n in to_nir(graph).nodes.values()}
    assert kinds == {"Input", "Conv2d", "Flatten", "Affine", "LI", "Output"}
    dense = to_nir(graph_of(digits_like_dense()))
    assert {type(n).__name__ for n in dense.nodes.values()} == {"Input", "Affine", "LI", "Output"}
    assert list(dense.nodes["input"].input_type["input"]) == [64]


def test_a_spiking_population_is_a_filter_and_a_unit_that_fires() -> None:
    net = to_nir(graph_of(digits_like_dense(), "spike"))
    assert isinstance(net.nodes["h1_current"], nir.LI)
    assert isinstance(net.nodes["h1"], nir.IF)
    assert net.nodes["h1"].metadata["reset"] == "subtract"
    assert set(net.nodes["h1"].r) == set(net.nodes["h1"].v_threshold) == {1}


def assert_same_probes(graph: Graph, x: np.ndarray, y: np.ndarray, probes: list[str]) -> None:
    """The nodes compute what the reference does, at every step of every phase."""
    mine, reference = (
        targets.open(Program(name, graph)).settle(x, y, probes=probes)
        for name in ("nir", "reference")
    )
    for name, phase in mine.phases.items():
        for probe, values in phase.probes.items():
            wanted = reference.phases[name].probes[probe]
            np.testing.assert_allclose(values, wanted, rtol=0, atol=BACKEND.tolerance)


def without_filter(graph: Graph) -> Graph:
    populations = tuple(
        p if isinstance(p.dynamics, Source) else replace(p, dynamics=Spiking(leak=1.0))
        for p in graph.populations
    )
    return replace(graph, populations=populations)


def test_without_a_leak_the_filter_vanishes_and_the_numbers_stay() -> None:
    spec = random_residual_spec(2)
    graph = without_filter(graph_of(spec, "spike"))
    assert not any(isinstance(n, nir.LI) for n in to_nir(graph).nodes.values())
    x, y = samples(spec, 3)
    probes = [f"{p.name}.{v}" for p in graph.neurons for v in ("v", "u", "message")]
    assert_same_probes(graph, x, y, probes)


@pytest.mark.parametrize("code", ENCODINGS)
def test_delays_are_kept_by_the_nodes(code: Encoding) -> None:
    spec = random_residual_spec(3)
    graph = graph_of(spec, code, delays=True)
    assert any(isinstance(node, nir.Delay) for node in to_nir(graph).nodes.values())
    x, y = samples(spec, 3)
    probes = [f"{p.name}.v" for p in graph.neurons]
    assert_same_probes(graph, x, y, probes)


def test_names_that_collide_with_nodes_keep_their_populations() -> None:
    graph = graph_of(digits_like_dense())
    names = {"h1": "output", "out": "input_to_output"}
    populations = tuple(replace(p, name=names.get(p.name, p.name)) for p in graph.populations)
    projections = tuple(
        replace(p, pre=names.get(p.pre, p.pre), post=names.get(p.post, p.post))
        for p in graph.projections
    )
    renamed = replace(
        graph, populations=populations, projections=projections, output="input_to_output"
    )
    net = to_nir(renamed)
    assert isinstance(net.nodes["output"], nir.LI)
    assert isinstance(net.nodes["input_to_output"], nir.LI)
    assert len(net.nodes) == len(to_nir(graph).nodes)


# --- files -------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 50),
    code=st.sampled_from(ENCODINGS),
    bits=st.sampled_from([None, 4, 8]),
    delays=st.booleans(),
)
def test_export_import_export_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    code: Encoding,
    bits: int | None,
    delays: bool,
) -> None:
    graph = graph_of(random_residual_spec(seed), code, seed=seed, bits=bits, delays=delays)
    path = tmp_path_factory.mktemp("nir") / "a.nir"
    save_nir(graph, path)
    loaded = load_nir(path)
    assert loaded.digest() == graph.digest()
    assert nir_bytes(loaded) == path.read_bytes()


@pytest.mark.parametrize("code", ENCODINGS)
def test_a_compiled_program_comes_back_whole_and_passes_the_type_check(
    code: Encoding, tmp_path: Path
) -> None:
    program = compile_network(Network(zoo("digits_residual"), 0), BACKEND, code=code)
    BACKEND.export(program, tmp_path / "new" / "a.nir")
    assert load_nir(tmp_path / "new" / "a.nir").digest() == program.graph.digest()
    assert nir.read(tmp_path / "new" / "a.nir", type_check=True).check_types()


def test_a_weight_that_was_changed_after_export_is_named(graph: Graph, tmp_path: Path) -> None:
    net = to_nir(graph)
    net.nodes["b1_to_out"].weight[0, 0] += 1
    nir.write(tmp_path / "changed.nir", net)
    with pytest.raises(ProgramError, match=r"node 'b1_to_out' .* changed after export"):
        load_nir(tmp_path / "changed.nir")


def test_an_edge_that_was_dropped_after_export_is_named(graph: Graph, tmp_path: Path) -> None:
    net = to_nir(graph)
    net.edges.remove(("out", "out_to_b1"))
    net.edges.append(("out", "b1_to_out"))
    nir.write(tmp_path / "changed.nir", nir.NIRGraph(net.nodes, net.edges, net.metadata, False))
    with pytest.raises(ProgramError, match="edge"):
        load_nir(tmp_path / "changed.nir")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "text": lambda data: b"name: x\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(damage: str, graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "a.nir").write_bytes(DAMAGE[damage](nir_bytes(graph)))
    for read in (load_nir, import_nir):
        with pytest.raises(ProgramError) as caught:
            read(tmp_path / "a.nir")
        assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_in_its_place_are_refused(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"missing\.nir"):
        read_nir(tmp_path / "missing.nir")
    with pytest.raises(ProgramError, match="cannot be written"):
        save_nir(graph, tmp_path)


def test_a_foreign_file_is_no_exact_graph(tmp_path: Path) -> None:
    lone = nir.NIRGraph.from_list(nir.LI(np.ones(2), np.ones(2), np.zeros(2)))
    nir.write(tmp_path / "a.nir", lone)
    with pytest.raises(ProgramError, match="foreign"):
        load_nir(tmp_path / "a.nir")


# --- the backend -------------------------------------------------------------------------------


def test_without_the_package_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, graph: Graph, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'nir" in BACKEND.available().reason
    for use in (BACKEND.open, lambda program: BACKEND.export(program, tmp_path / "a.nir")):
        with pytest.raises(TargetError, match="pip install"):
            use(Program("nir", graph))


def test_feedback_too_large_for_matrices_is_a_violation_found_without_building_them() -> None:
    spec = NetworkSpec(
        name="wide",
        input=InputSpec(shape=(3, 32, 32)),
        populations=tuple(PopulationSpec(name=n, shape=(64, 32, 32)) for n in ("a", "b")),
        couplings=(conv("input", "a", 3, 1, 1), conv("a", "b", 3, 1, 1)),
    )
    graph = graph_of(spec)
    (violation,) = BACKEND.check(graph)
    assert violation.value == 4 * (2 * 65536**2) > violation.limit == 2**30
    for use in (BACKEND.open, lambda program: BACKEND.export(program, "never.nir")):
        with pytest.raises(TargetError, match="transposed convolution"):
            use(Program("nir", graph))


def test_couplings_and_unreached_populations_are_violations(graph: Graph) -> None:
    assert BACKEND.check(graph) == ()
    lonely = replace(graph, projections=graph.projections[:1])
    assert any("nothing reaches" in str(v) for v in BACKEND.check(lonely))
    p = graph.projections[0]
    undirected = replace(graph, couplings=(Coupling(p.pre, p.post, Conv(), p.weight),))
    assert any("undirected" in str(v) for v in BACKEND.check(undirected))


@pytest.mark.parametrize("name", ["digits.nir", "digits.NIR"])
def test_compile_writes_a_nir_file_where_the_name_asks_for_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    words = ["compile", "zoo:digits_dense", "--target", "nir", "--out", str(path), "--json"]
    monkeypatch.setattr("sys.argv", ["ep-neuro", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert load_nir(path).name == "digits_dense"
