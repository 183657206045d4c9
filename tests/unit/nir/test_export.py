"""Claims about NIR: the nodes mean the graph, and its files come back the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from compilers.ir.graph import (
    ENCODINGS,
    Conv,
    ConvTranspose,
    Coupling,
    Encoding,
    Graph,
    Projection,
    Spiking,
)
from ep_neuro.cli import main
from ep_neuro.energy.spec import InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import ProgramError, SpecError, TargetError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from targets.nir.backend import BACKEND
from targets.nir.kernel_shapes import keeps_planes
from tests.helpers.graphs import (
    conv,
    digits_like_dense,
    digits_like_residual,
    graph_of,
    random_residual_spec,
    samples,
    standardised_in_units,
)
from tests.helpers.oracle import unrolled

nir = pytest.importorskip("nir", reason=BACKEND.available().reason)

from targets.nir.convolutions import convolutions  # noqa: E402
from targets.nir.export import to_nir  # noqa: E402
from targets.nir.files import load_nir, nir_bytes, read_nir, save_nir  # noqa: E402
from targets.nir.importer import import_nir  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::compilers.passes.choose_leak.LeakWarning")


FLAT = {"Input", "Affine", "LI", "Output"}
"""Types of nodes that a graph without a convolution becomes."""


@pytest.fixture(scope="module")
def graph() -> Graph:
    """A small residual network whose input is convolved."""
    return graph_of(random_residual_spec(1), "graded")


# --- nodes -------------------------------------------------------------------------------------


def matrix_of(net: Any, p: Projection) -> np.ndarray:
    """Matrix of the projection `p`, composed of the nodes that it became."""
    (name,) = (k for k, n in net.nodes.items() if n.metadata.get("projection") == p.name)
    chain = [net.nodes[name]]
    while (name := next(pre for pre, post in net.edges if post == name)) != p.pre:
        chain.insert(0, net.nodes[name])
    units = torch.eye(int(np.prod(chain[0].input_type["input"])))
    return images(chain, units).T.double().numpy()


def images(chain: Sequence[Any], x: torch.Tensor) -> torch.Tensor:
    """What `chain` makes of samples (N, size)."""
    for node in chain:
        if isinstance(node, nir.Affine):
            x = x @ torch.tensor(node.weight).T
        elif isinstance(node, nir.Conv2d):
            planes = x.reshape(-1, *map(int, node.input_type["input"]))
            kernel = torch.tensor(node.weight).to(x.dtype)
            how = node.stride, node.padding, node.dilation
            x = torch.nn.functional.conv2d(planes, kernel, None, *how).flatten(1)
    return x


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
        found = matrix_of(net, p)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_tied_weights_are_each_others_transpose_up_to_their_gains() -> None:
    net = to_nir(compile_network(Network(digits_like_dense(), 0), BACKEND).graph)
    there, back = (net.nodes[n].weight for n in ("h1_to_out", "out_to_h1"))
    # The output's box is twice as high as that of h1, and states are in units of their box.
    np.testing.assert_allclose(there * 4, back.T, rtol=1e-6)
    assert net.nodes["h1_to_out"].metadata["tie"] == net.nodes["out_to_h1"].metadata["tie"]


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(), stride=st.integers(1, 4), kernel=st.integers(1, 4), padding=st.integers(0, 5)
)
def test_the_transpose_of_a_convolution_is_made_of_plain_ones(
    data: st.DataObject, stride: int, kernel: int, padding: int
) -> None:
    """Whatever the stride leaves over; strided feedback needs squares."""
    least = max(1, kernel - 2 * padding)
    rows, columns = (data.draw(st.integers(least, least + 7)) for _ in range(2))
    sides = (rows, columns if stride == 1 else rows)
    small = [(n + 2 * padding - kernel) // stride + 1 for n in sides]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    weight = rng.normal(size=(3, 2, kernel, kernel)).astype(np.float32)
    x = torch.from_numpy(rng.normal(size=(2, 3, *small)))
    operator = ConvTranspose(stride, padding)
    chain = convolutions(operator, weight, (3, *small), (2, *sides))
    over = [(n + 2 * padding - kernel) % stride for n in sides]
    wanted = torch.nn.functional.conv_transpose2d(
        x, torch.from_numpy(weight).double(), None, stride, padding, over
    )
    found = images(chain, x.flatten(1))
    np.testing.assert_allclose(found, wanted.flatten(1), rtol=0, atol=1e-12)
    assert list(chain[-1].output_type["output"]) == [2, *sides]


def kinds(net: Any) -> set[str]:
    return {type(node).__name__ for node in net.nodes.values()}


def test_feedback_by_convolution_keeps_every_kernel_and_plane() -> None:
    net = to_nir(graph_of(digits_like_residual()))
    assert kinds(net) == {"Input", "Conv2d", "LI", "Output"}
    assert net.nodes["h2"].tau.shape == (32, 4, 4)
    assert net.nodes["h3_to_h2"].weight.shape == (32, 32, 3, 3)
    assert net.nodes["out_to_h4"].weight.shape == (64, 10, 2, 2)
    assert "h4_to_h3_spread" in net.nodes


def test_planes_that_are_not_square_go_flat_and_only_the_input_is_convolved() -> None:
    spec = digits_like_residual()
    wide = spec.model_copy(update={"input": InputSpec(shape=(1, 8, 7))})
    shapes = {"h1": (16, 8, 7)}
    populations = [
        p.model_copy(update={"shape": shapes.get(p.name, p.shape)}) for p in spec.populations
    ]
    wide = wide.model_copy(update={"populations": tuple(populations)})
    assert kinds(to_nir(graph_of(wide))) == {*FLAT, "Conv2d", "Flatten"}


def test_a_dense_network_is_flat() -> None:
    net = to_nir(graph_of(digits_like_dense()))
    assert kinds(net) == FLAT
    assert list(net.nodes["input"].input_type["input"]) == [64]


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


def without_leak(graph: Graph, even: bool) -> Graph:
    """`graph` of spikes without a leak, whose bias is the same in each place if it is `even`."""
    neurons = [replace(p, dynamics=Spiking(leak=1.0)) for p in graph.neurons]
    arrays = dict(graph.arrays)
    for p in graph.neurons if even else ():
        assert p.bias is not None
        bias = arrays[p.bias].reshape(p.shape[0], -1)[:, :1]
        arrays[p.bias] = np.repeat(bias, p.size // p.shape[0], 1).reshape(p.shape)
    return replace(graph, populations=(*graph.sources, *neurons), arrays=arrays)


@pytest.mark.parametrize(
    ("make", "even", "filters"),
    [
        (digits_like_dense, False, 0),
        (standardised_in_units, True, 0),
        (standardised_in_units, False, 2),
    ],
)
def test_without_a_leak_the_filter_vanishes_where_weights_can_carry_the_bias(
    make: Callable[[], NetworkSpec], even: bool, filters: int
) -> None:
    """A convolution adds the same in each place."""
    graph = without_leak(graph_of(spec := make(), "spike"), even)
    assert sum(isinstance(n, nir.LI) for n in to_nir(graph).nodes.values()) == filters
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


def test_a_flat_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    graph = graph_of(standardised_in_units())
    assert keeps_planes(graph)
    nir.write(tmp_path / "flat.nir", to_nir(graph, planes=False))
    assert load_nir(tmp_path / "flat.nir").digest() == graph.digest()


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


def two_planes(channels: int, sides: tuple[int, int], stride: int) -> Graph:
    """An image, and 'a' and 'b' behind it, joined by a convolution of `stride`."""
    last = tuple(n // stride for n in sides)
    spec = NetworkSpec(
        name="wide",
        input=InputSpec(shape=(3, *sides)),
        populations=(
            PopulationSpec(name="a", shape=(channels, *sides)),
            PopulationSpec(name="b", shape=(2 * channels, *last)),
        ),
        couplings=(conv("input", "a", 3, 1, 1), conv("a", "b", 3, stride, 1)),
    )
    return graph_of(spec)


def test_wide_feature_maps_take_their_kernels_alone() -> None:
    assert BACKEND.check(two_planes(64, (32, 32), 1)) == ()
    assert BACKEND.check(two_planes(64, (32, 32), 2)) == ()


@pytest.mark.parametrize(
    ("sides", "size", "remedy"),
    [
        ((256, 256), (128 * 129) ** 2 + 3 * 64 * 9 + 2 * 64 * 128 * 9, "narrow"),
        ((64, 32), 2 * (64 * 64 * 32 * 128 * 32 * 16), "square ones stay convolutions"),
    ],
)
def test_what_is_too_large_is_told_by_projection_without_building_it(
    sides: tuple[int, int], size: int, remedy: str
) -> None:
    graph = two_planes(64, sides, 2)
    (violation,) = BACKEND.check(graph)
    assert violation.limit == 2**30 < violation.value
    assert violation.value == pytest.approx(4 * size, rel=1e-5)
    assert ("'b->a'" if sides[0] == sides[1] else "'a->b'") in violation.subject
    for use in (BACKEND.open, lambda program: BACKEND.export(program, "never.nir")):
        with pytest.raises(TargetError, match=remedy):
            use(Program("nir", graph))


def test_wide_feature_maps_are_not_imported_as_matrices_and_none_is_built(tmp_path: Path) -> None:
    save_nir(two_planes(32, (32, 32), 2), tmp_path / "wide.nir")
    with pytest.raises(SpecError, match="'a' and 'b': 32768 times 16384 weights") as caught:
        import_nir(tmp_path / "wide.nir")
    assert caught.value.remedy.startswith("give the model that the file was made of")


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
