"""Claims about placements: every neuron on one core, within the limits, messages counted right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from compilers import parse_graph, print_graph
from compilers.frontend import lower
from compilers.hardware.limit_checks import violations
from compilers.hardware.limits import HardwareLimits, Quantity
from compilers.hardware.placement import (
    axons_into,
    axons_out,
    between_chips,
    chips_used,
    core_span,
    cores_used,
    loads,
    messages,
    reach,
    synapses_into,
    volume,
)
from compilers.hardware.placement_report import draw_placement, placement_text
from compilers.hardware.resources import resources
from compilers.ir.graph import Conv, ConvTranspose, Coupling, Dense, Graph
from compilers.ir.operators import apply
from compilers.passes.expand_couplings import expand_couplings
from compilers.passes.map_to_cores import chip_traffic, map_to_cores
from ep_neuro.energy.spec import CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import GraphError
from ep_neuro.network.architectures import digits_dense, digits_residual
from ep_neuro.network.network import Network
from tests.helpers.graphs import digits_like_residual, graph_of, random_residual_spec
from tests.helpers.oracle import unrolled


def machine(shared: bool = True, **limits: float) -> HardwareLimits:
    """A machine of these limits, its cores and chips unlimited unless given."""
    quantities = {name: Quantity(value, "things", "made up") for name, value in limits.items()}
    parameters = {"shared_kernels": Quantity(float(shared), "1 for yes", "made up")}
    return HardwareLimits("toy", quantities, parameters=parameters)


def residual() -> Graph:
    """Two residual blocks on an 8x8 input, in 8-bit integers."""
    return graph_of(digits_like_residual(), bits=8)


def wide_dense() -> NetworkSpec:
    """16-4608-10."""
    populations = (
        PopulationSpec(name="h", shape=(4608,)),
        PopulationSpec(name="out", shape=(10,)),
    )
    return NetworkSpec(
        name="wide",
        input=InputSpec(shape=(1, 4, 4)),
        populations=populations,
        couplings=(CouplingSpec(pre="input", post="h"), CouplingSpec(pre="h", post="out")),
    )


def counts(graph: Graph) -> dict[str, np.ndarray]:
    """How often each neuron stands on a core, by population."""
    times = {p.name: np.zeros(volume(p), int) for p in graph.neurons}
    for t in graph.placement:
        times[t.population][slice(*t.channels), slice(*t.rows), slice(*t.columns)] += 1
    return times


# --- geometry ----------------------------------------------------------------------------------


@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    size=st.integers(4, 9),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_a_tile_is_reached_by_exactly_the_rows_that_its_windows_cover(
    kernel: int, stride: int, padding: int, size: int, data: st.DataObject
) -> None:
    coarse = (size + 2 * padding - kernel) // stride + 1
    weight = np.ones((1, 1, kernel, kernel))
    for operator, pre, post in (
        (Conv(stride, padding), size, coarse),
        (ConvTranspose(stride, padding), coarse, size),
    ):
        low = data.draw(st.integers(0, post - 1))
        high = data.draw(st.integers(low + 1, post))
        single = np.eye(pre).reshape(pre, 1, pre, 1) * np.ones((1, 1, 1, pre))
        seen = apply(operator, weight, single, (1, post, post))[:, 0, low:high].any((1, 2))
        # Columns are all lit, so a row shows up unless its windows miss the tile.
        np.testing.assert_array_equal(reach(operator, kernel, (low, high), pre), seen)


# --- what a placement is -----------------------------------------------------------------------


@given(st.integers(0, 30), st.integers(1, 40), st.integers(20, 90), st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_every_neuron_lies_on_exactly_one_core(
    seed: int, neurons: int, axons: int, cores: int
) -> None:
    graph = graph_of(random_residual_spec(seed), bits=8)
    limits = {"neurons_per_core": neurons, "axons_out_per_core": axons, "cores": cores}
    placed = map_to_cores(graph, machine(**limits))
    for name, times in counts(placed).items():
        assert (times == 1).all(), name
    assert {t.core: t.chip for t in placed.placement} == {
        t.core: t.core // cores for t in placed.placement
    }
    assert max(t.size for t in placed.placement) <= neurons


@pytest.mark.parametrize("limit", ["synaptic", "memory", "axons_out", "neurons"])
def test_a_tighter_limit_costs_cores_and_is_kept(limit: str) -> None:
    graph = residual()
    free = map_to_cores(graph, machine())
    assert cores_used(free) == len(graph.neurons)
    quantity = {"synaptic": "synaptic_bytes", "memory": "memory_bytes"}.get(limit, limit)
    most = max(getattr(load, quantity) for load in loads(free, machine()))
    tight = machine(**{f"{quantity}_per_core": 0.7 * most})
    placed = map_to_cores(graph, tight)
    assert violations(placed, tight) == ()
    assert violations(free, tight) != ()
    assert cores_used(placed) > cores_used(free)


def test_input_axons_cut_the_plane_where_a_dense_layer_can_only_break_the_limit() -> None:
    tight = machine(axons_in_per_core=60)
    placed = map_to_cores(residual(), tight)
    (one,) = violations(placed, tight)
    assert one.value == 256
    assert "'out', axons in" in one.subject
    assert any(t.rows != (0, 8) for t in placed.placement if t.population == "h1")


@pytest.mark.parametrize("seed", range(8))
def test_no_limit_that_one_neuron_keeps_is_broken_by_a_placement(seed: int) -> None:
    graph = graph_of(random_residual_spec(seed), bits=8)
    rng = np.random.default_rng(seed)
    free = loads(map_to_cores(graph, machine()), machine())
    quantities = ("neurons", "axons_in", "synaptic_bytes", "memory_bytes")
    most = {q: max(getattr(x, q) for x in free) for q in quantities}
    toy = machine(**{f"{q}_per_core": float(rng.uniform(0.1, 1) * n) for q, n in most.items()})
    single = loads(map_to_cores(graph, machine(neurons_per_core=1)), toy)
    for broken in violations(map_to_cores(graph, toy), toy):
        name, quantity = (
            broken.subject.split("'")[1],
            broken.subject.split(", ")[1].split(" of ")[0],
        )
        one = [getattr(x, quantity.replace(" ", "_")) for x in single if x.populations == (name,)]
        assert max(one) > broken.limit


def test_the_pass_keeps_its_input_and_says_which_machine() -> None:
    graph = residual()
    before = graph.digest()
    placed = map_to_cores(graph, machine(), chips=3)
    assert graph.digest() == before
    assert not graph.placement
    assert placed.provenance["hardware"] == "toy"
    assert placed.provenance["chips"] == "3"
    assert placed.digest() != before


def test_printing_and_parsing_keep_the_placement() -> None:
    placed = map_to_cores(residual(), machine(neurons_per_core=100, cores=4))
    again = parse_graph(print_graph(placed), placed.arrays)
    assert again.placement == placed.placement
    assert again.digest() == placed.digest()


def test_what_cannot_be_placed_is_refused() -> None:
    graph = residual()
    with pytest.raises(GraphError, match=r"4,618 cores exceed the 4,096 .*; narrow the layers"):
        map_to_cores(graph_of(wide_dense(), bits=8), machine(neurons_per_core=1))
    with pytest.raises(GraphError, match="below 1"):
        map_to_cores(graph, machine(), chips=0)
    whole = replace(graph, couplings=(Coupling("input", "h1", Conv(), "weight/input->h1"),))
    with pytest.raises(GraphError, match="expand_couplings"):
        map_to_cores(whole, machine())


# --- loads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_unshared_tiles_hold_every_synapse_once(seed: int) -> None:
    graph = graph_of(random_residual_spec(seed), bits=8)
    placed = map_to_cores(graph, machine(shared=False, neurons_per_core=7))
    held = sum(
        synapses_into(placed, p, t, shared=False)
        for t in placed.placement
        for p in placed.into(t.population)
    )
    assert held == resources(graph)["synapses"]


def test_a_shared_kernel_is_stored_once_a_core_however_many_places_use_it() -> None:
    graph = residual()
    (whole,) = (t for t in map_to_cores(graph, machine()).placement if t.population == "h1")
    (p,) = (p for p in graph.into("h1") if p.pre == "input")
    part = replace(whole, rows=(2, 3))
    assert synapses_into(graph, p, part, True) == synapses_into(graph, p, whole, True) == 16 * 9
    assert synapses_into(graph, p, part, False) < synapses_into(graph, p, whole, False)


def test_dense_synapses_are_never_shared() -> None:
    graph = residual()
    placed = map_to_cores(graph, machine())
    (p,) = (p for p in graph.into("out") if isinstance(p.operator, Dense))
    (out,) = (t for t in placed.placement if t.population == "out")
    assert synapses_into(graph, p, out, True) == graph.arrays[p.weight].size
    assert axons_into(graph, p, out) == graph.population(p.pre).size


def test_bits_and_states_make_the_bytes() -> None:
    graph = residual()
    by_name = {x.populations[0]: x for x in loads(map_to_cores(graph, machine()), machine())}
    weights = sum(graph.arrays[p.weight].size for p in graph.into("h2"))
    assert by_name["h2"].synaptic_bytes == 4 * weights  # no `bits` noted: 32 of them
    # Membrane, remainder, bias and the held input, 24 bits each.
    assert by_name["h2"].state_bytes == 512 * 4 * 3
    eight = replace(graph, provenance={"bits": "8"})
    by_name = {x.populations[0]: x for x in loads(map_to_cores(eight, machine()), machine())}
    assert by_name["h2"].synaptic_bytes == weights


@pytest.mark.parametrize("seed", range(4))
def test_messages_and_axons_are_those_of_the_connections(seed: int) -> None:
    """Against the connection matrices, neuron by neuron."""
    graph = graph_of(random_residual_spec(seed), bits=8)
    placed = map_to_cores(graph, machine(neurons_per_core=9, cores=5))
    ones = replace(placed, arrays={k: np.ones_like(a) for k, a in placed.arrays.items()})
    core_of = {p.name: np.zeros(volume(p), int) for p in graph.neurons}
    for t in placed.placement:
        core_of[t.population][slice(*t.channels), slice(*t.rows), slice(*t.columns)] = t.core
    expected = np.zeros((core_span(placed),) * 2, int)
    for p in ones.projections:
        if p.pre in core_of:
            joined = unrolled(ones, p) != 0
            for sender, column in zip(core_of[p.pre].ravel(), joined.T, strict=True):
                for receiver in set(core_of[p.post].ravel()[column]):
                    expected[sender, receiver] += 1
    np.testing.assert_array_equal(messages(placed), expected)
    assert between_chips(placed).sum() == expected.sum()
    assert (axons_out(placed, machine()) <= expected.sum(1)).all()


def test_routers_that_copy_messages_spare_the_output_axons() -> None:
    toy = machine()
    multicast = {**toy.parameters, "multicast": Quantity(1, "1 for yes", "made up")}
    placed = map_to_cores(residual(), toy)
    assert axons_out(placed, toy).all()
    assert not axons_out(placed, replace(toy, parameters=multicast)).any()


# --- chips -------------------------------------------------------------------------------------


def test_chips_are_filled_so_that_fewer_messages_cross() -> None:
    graph, toy = residual(), machine(neurons_per_core=128, cores=9)
    placed = map_to_cores(graph, toy)
    assert chips_used(placed) > 1
    backwards = [
        replace(t, core=cores_used(placed) - 1 - t.core, chip=t.core % chips_used(placed))
        for t in placed.placement
    ]
    assert 0 < chip_traffic(placed) < chip_traffic(replace(placed, placement=tuple(backwards)))
    assert chip_traffic(map_to_cores(graph, machine(neurons_per_core=128))) == 0


def test_output_axons_that_no_cut_can_save_are_a_violation() -> None:
    tight = machine(axons_out_per_core=1)
    found = violations(map_to_cores(residual(), tight), tight)
    assert found
    assert all("axons out" in v.subject for v in found)


def test_cores_left_empty_at_the_end_of_a_chip_do_not_count() -> None:
    toy = machine(cores=4, neurons_per_core=512)
    placed = map_to_cores(graph_of(wide_dense(), bits=8), toy)
    apart = tuple(
        replace(t, core=t.core + 8) if t.population == "out" else t for t in placed.placement
    )
    assert cores_used(replace(placed, placement=apart)) == cores_used(placed) == 10
    assert core_span(replace(placed, placement=apart)) == 18


def test_a_population_is_not_kept_together_at_the_price_of_a_chip_too_many() -> None:
    graph = residual()
    loose = machine(neurons_per_core=128, cores=9)
    fewest = -(-cores_used(map_to_cores(graph, machine(neurons_per_core=128))) // 9)
    assert chips_used(map_to_cores(graph, loose, chips=fewest)) == fewest


# --- violations --------------------------------------------------------------------------------


def test_all_violations_come_at_once_each_with_number_limit_and_remedy() -> None:
    toy = machine(
        neurons_per_core=64,
        synaptic_bytes_per_core=10,
        axons_in_per_core=2,
        weight_bits=4,
        state_bits=16,
        message_bits=8,
        cores=3,
        chips=2,
    )
    found = violations(map_to_cores(residual(), toy), toy)
    text = "\n".join(map(str, found))
    for part in ("weights", "states", "messages", "synaptic bytes", "axons in", "chips exceed"):
        assert part in text
    assert {p.name for p in residual().neurons} <= set(text.replace("'", " ").split())
    assert all(v.value > v.limit and v.remedy for v in found)


def test_only_the_limits_that_one_neuron_breaks_stay_broken() -> None:
    toy = machine(synaptic_bytes_per_core=2000, memory_bytes_per_core=20000, neurons_per_core=50)
    found = violations(map_to_cores(residual(), toy), toy)
    assert found
    assert all("synaptic bytes" in v.subject for v in found)


def test_neurons_on_no_core_are_a_violation() -> None:
    (first, *_) = found = violations(residual(), machine())
    assert len(found) == len(residual().neurons)
    assert (first.value, first.limit) == (1024, 0)
    assert "map_to_cores" in first.remedy


def test_fewer_chips_than_needed_are_a_violation() -> None:
    toy = machine(neurons_per_core=128, cores=4, chips=8)
    assert violations(map_to_cores(residual(), toy), toy) == ()
    (one,) = violations(map_to_cores(residual(), toy, chips=1), toy)
    assert one.limit == 1
    assert "use at least" in one.remedy


# --- report ------------------------------------------------------------------------------------


def test_the_report_names_every_population_and_the_traffic() -> None:
    toy = machine(neurons_per_core=128, cores=9)
    placed = map_to_cores(residual(), toy)
    text = placement_text(placed, toy)
    assert all(p.name in text for p in placed.neurons)
    assert f"cores {cores_used(placed)}, chips {chips_used(placed)}" in text
    assert f"between chips {chip_traffic(placed):,}" in text


def test_the_drawing_has_a_panel_a_chip_and_a_square_a_core() -> None:
    toy = machine(neurons_per_core=128, cores=9)
    placed = map_to_cores(residual(), toy)
    panels = draw_placement(placed, toy).axes
    assert len(panels) == chips_used(placed)
    assert all(axes.get_title().endswith(" of 9 cores") for axes in panels)
    assert sum(len(axes.patches) for axes in panels) == 2 * cores_used(placed)


def test_title_and_legend_of_the_drawing_stand_inside_it() -> None:
    toy = machine(neurons_per_core=4096)
    figure = draw_placement(map_to_cores(residual(), toy), toy)
    FigureCanvasAgg(figure).draw()
    assert figure._suptitle is not None
    for part in (figure._suptitle, *figure.legends):
        box = part.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_resources_count_cores_and_chips_once_a_graph_is_placed() -> None:
    graph = expand_couplings(lower(Network(digits_residual(), 0)))
    assert resources(graph)["cores"] is resources(graph)["chips"] is None
    placed = map_to_cores(graph, machine(neurons_per_core=512))
    assert resources(placed)["cores"] == cores_used(placed)
    assert resources(placed)["chips"] == 1
    small = map_to_cores(expand_couplings(lower(Network(digits_dense(), 0))), machine())
    assert resources(small)["cores"] == 2
