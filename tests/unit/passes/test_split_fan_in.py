"""Claims about fan-in that splits: the same states one step later, on cores that hold it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import targets
from compilers import compile_network, parse_graph, print_graph
from compilers.hardware.limit_checks import violations
from compilers.hardware.limits import HardwareLimits, Quantity
from compilers.hardware.placement import (
    axons_into,
    core_span,
    messages,
    neurons_of,
    synapses_into,
)
from compilers.hardware.placement_report import placement_text
from compilers.hardware.resources import resources
from compilers.ir.graph import DenseTranspose, Encoding, Graph, Projection
from compilers.ir.operators import apply, fanout
from compilers.passes.choose_leak import LeakWarning
from compilers.passes.make_plastic import make_plastic
from compilers.passes.map_to_cores import map_to_cores
from compilers.passes.split_fan_in import split_fan_in
from compilers.passes.validate import validate
from ep_neuro.energy.spec import INPUT, CouplingSpec, NetworkSpec
from ep_neuro.errors import GraphError
from ep_neuro.network.network import Network
from targets.interface.protocols import RunResult
from tests.helpers.graphs import classifier, conv, graph_of, samples

CODES: tuple[Encoding, ...] = ("graded", "sigma-delta", "spike")


def machine(axons: int, **limits: float) -> HardwareLimits:
    """A machine of so many input axons a core; words of Loihi 2 unless given."""
    words = {"state_bits": 24.0, "message_bits": 32.0, **limits, "axons_in_per_core": float(axons)}
    return HardwareLimits("toy", {k: Quantity(v, "things", "made up") for k, v in words.items()})


def dense(first: int, second: int) -> NetworkSpec:
    """4-first-second-3: the first hidden population hears the second one back."""
    couplings = [("h1", "h2"), ("h2", "out")]
    return classifier(
        *("dense", 2, 3),
        {"h1": (first,), "h2": (second,)},
        CouplingSpec(pre=INPUT, post="h1"),
        *(CouplingSpec(pre=pre, post=post, gain=0.5) for pre, post in couplings),
    )


def image(channels: int) -> NetworkSpec:
    """A map of 3x3 places under a dense head, as a convolutional network ends."""
    head = CouplingSpec(pre="a", post="out", gain=0.5)
    return classifier("image", 4, 3, {"a": (channels, 3, 3)}, conv(INPUT, "a", 2), head)


def wide() -> NetworkSpec:
    """What the CIFAR-10 network ends in: ten classes that hear 320 maps of 4x4, 5,120 neurons."""
    head = CouplingSpec(pre="h7", post="out", gain=0.3)
    return classifier("wide", 8, 10, {"h7": (320, 4, 4)}, conv(INPUT, "h7", 2, 2), head)


def later(whole: Graph, split: Graph) -> Graph:
    """`whole` with one step more of delay wherever `split` adds up by share."""
    divided = {f"{p.pre}->{split.out_of(p.post)[0].post}" for p in split.split}
    return replace(
        whole,
        projections=tuple(
            replace(p, delay=p.delay + (p.name in divided)) for p in whole.projections
        ),
    )


def run(graph: Graph, spec: NetworkSpec, of: Graph) -> RunResult:
    """Free and nudged phases of `graph`; states of the populations of `of` at every step."""
    reference, (x, y) = targets.get("reference"), samples(spec, 2)
    with reference.open(reference.emit(graph)) as session:
        return session.settle(x, y, probes=[f"{p.name}.v" for p in of.neurons])


def assert_same_states(found: RunResult, expected: RunResult, atol: float = 0.0) -> None:
    for name, phase in expected.phases.items():
        for probe, values in phase.probes.items():
            seen = found.phases[name].probes[probe]
            np.testing.assert_allclose(seen, values, rtol=0, atol=atol, err_msg=f"{name} {probe}")


specs = st.one_of(
    st.builds(dense, st.integers(9, 20), st.integers(9, 20)), st.builds(image, st.integers(2, 4))
)


# --- what a split graph computes ---------------------------------------------------------------


@given(specs, st.integers(7, 9), st.sampled_from(CODES), st.sampled_from([None, 4, 8]), st.data())
@settings(max_examples=25, deadline=None)
def test_a_split_graph_computes_the_states_of_the_whole_one_a_step_later(
    spec: NetworkSpec, axons: int, code: Encoding, bits: int | None, data: st.DataObject
) -> None:
    whole = graph_of(spec, code, bits=bits, seed=data.draw(st.integers(0, 99)), steps=7)
    split = validate(split_fan_in(whole, machine(axons)))
    assert split.split
    found, expected = run(split, spec, whole), run(later(whole, split), spec, whole)
    assert_same_states(found, expected, atol=0.0 if bits else 1e-11)
    for name, phase in found.phases.items():
        for p in whole.populations:
            np.testing.assert_array_equal(
                phase.events[p.name], expected.phases[name].events[p.name]
            )


@given(st.sampled_from(CODES), st.integers(13, 25), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_shares_shrink_until_narrow_words_hold_every_sum(
    code: Encoding, state: int, seed: int
) -> None:
    whole = graph_of(image(4), code, bits=8, seed=seed, steps=5)
    full = {k: np.where(a < 0, -127, 127).astype(a.dtype) for k, a in whole.arrays.items()}
    kept = {k: a for k, a in whole.arrays.items() if not k.startswith("weight")}
    whole = replace(whole, arrays={**full, **kept})
    split = split_fan_in(whole, machine(20, state_bits=state, message_bits=state + 1))
    relays = [split.population(p.post) for p in split.split]
    for sums in relays:
        assert sums.state is not None
        assert sums.state.bits <= state
        assert sums.message is not None
        assert sums.message.bits <= state + 1
    if relays:
        expected = run(later(whole, split), image(4), whole)
        assert_same_states(run(split, image(4), whole), expected)


def test_a_split_graph_settles_where_the_whole_one_settles() -> None:
    spec = image(4)
    whole = graph_of(spec, steps=200)
    weaker = tuple(replace(p, scale=p.scale / 2) for p in whole.projections)
    whole = replace(whole, projections=weaker)
    split = split_fan_in(whole, machine(9))
    found, expected = run(split, spec, whole), run(whole, spec, whole)
    for name, phase in expected.phases.items():
        assert np.abs(found.phases[name].outputs - phase.outputs).max() < 1e-9


@pytest.mark.parametrize("code", CODES)
def test_partial_sums_speak_only_when_they_change(code: Encoding) -> None:
    spec = image(4)
    whole = graph_of(spec, code, bits=8, steps=200)
    split = split_fan_in(whole, machine(9))
    (p,) = split.split
    events = run(split, spec, whole).free.events[p.post].sum(1)
    assert events[:20].sum() > 0
    if code != "spike":
        assert events[-1] == 0


def test_what_fits_is_left_as_it_is() -> None:
    graph = graph_of(image(4), bits=8)
    for hardware in (machine(36), HardwareLimits("boundless")):
        assert split_fan_in(graph, hardware) is graph


def test_only_as_much_is_split_as_is_too_wide() -> None:
    split = split_fan_in(graph_of(dense(20, 8), bits=8), machine(13))
    assert [p.name for p in split.split] == ["h1->h1_to_h2"]


def test_a_split_graph_prints_and_parses_back() -> None:
    split = split_fan_in(graph_of(dense(20, 20), bits=8), machine(9))
    assert {type(p.operator.of) for p in split.split} > {DenseTranspose}  # type: ignore[union-attr]
    parsed = parse_graph(print_graph(split), split.arrays)
    assert parsed.digest() == split.digest()
    assert validate(parsed).projections == split.projections


# --- how it lies on cores ----------------------------------------------------------------------


@given(specs, st.integers(7, 9), st.sampled_from([1, 3, 99]))
@settings(max_examples=25, deadline=None)
def test_a_split_graph_lies_on_cores_within_their_limits(
    spec: NetworkSpec, axons: int, neurons: int
) -> None:
    hardware = machine(axons, neurons_per_core=neurons)
    whole = graph_of(spec, bits=8)
    assert any("axons" in str(v) for v in violations(map_to_cores(whole, hardware), hardware))
    placed = map_to_cores(split_fan_in(whole, hardware), hardware)
    assert violations(placed, hardware) == ()
    expected = np.zeros((core_span(placed),) * 2, int)
    for p in added(placed):
        joined = connected(placed, p)
        for tile in (t for t in placed.placement if t.population == p.post):
            into = joined[neurons_of(placed.population(p.post), tile)]
            assert axons_into(placed, p, tile) == into.any(0).sum()
            assert synapses_into(placed, p, tile, shared=True) == into.sum()
            for sender in (t for t in placed.placement if t.population == p.pre):
                heard = into[:, neurons_of(placed.population(p.pre), sender)]
                expected[sender.core, tile.core] += heard.any(0).sum()
    others = tuple(p for p in placed.projections if p not in added(placed))
    sent = messages(placed) - messages(replace(placed, projections=others))
    np.testing.assert_array_equal(sent, expected)


def added(graph: Graph) -> tuple[Projection, ...]:
    """Projections into and out of partial sums."""
    return tuple(q for p in graph.split for q in (p, *graph.out_of(p.post)))


def connected(graph: Graph, p: Projection) -> np.ndarray:
    """Synapses of `p`, bool (post neurons, pre neurons), as many as events are said to meet."""
    pre, post = graph.population(p.pre), graph.population(p.post)
    ones = np.ones_like(graph.arrays[p.weight])
    units = np.eye(pre.size, dtype=ones.dtype).reshape(-1, *pre.shape)
    joined = apply(p.operator, ones, units, post.shape).reshape(pre.size, -1).T != 0
    met = fanout(p.operator, ones.shape, pre.shape, post.shape)
    np.testing.assert_array_equal(joined.sum(0), met.ravel())
    return joined


@pytest.mark.parametrize("code", CODES)
def test_classes_that_hear_5120_neurons_lie_on_loihi_2(code: Encoding) -> None:
    loihi2 = targets.get("loihi2")
    program = compile_network(Network(wide(), 0), loihi2, code=code, bits=8)
    graph = program.graph
    assert loihi2.check(graph) == ()
    sums = resources(graph)["partial_sums"]
    assert set(sums) == {"h7->out"}
    assert sums["h7->out"]["neurons"] == 10 * sums["h7->out"]["shares"]
    text = program.files["placement.txt"]
    assert text == placement_text(graph, loihi2.limits({}))
    assert "split over cores: h7->out" in text
    assert "h7_to_out" in program.files["placement.svg"]


# --- what is not split -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "limits", "reason"),
    [
        (
            image(4),
            {"axons": 9, "message_bits": 1.0},
            "messages of 1 bits hold no partial sums of",
        ),
        (image(4), {"axons": 20, "state_bits": 8.0}, "states of 8 bits hold no partial sums of"),
        (image(4), {"axons": 5}, "'a->out' takes 8 shares, and their sums as many input axons"),
        (dense(9, 9), {"axons": 3}, "host sends is not split over cores, as 'input->h1'"),
        (image(4), {"axons": 3}, "only dense projections are split over cores"),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_reason(
    spec: NetworkSpec, limits: dict, reason: str
) -> None:
    graph, hardware = graph_of(spec, "spike", bits=8), machine(**limits)
    placed = map_to_cores(split_fan_in(graph, hardware), hardware)
    broken = [str(v) for v in violations(placed, hardware) if "axons in" in str(v)]
    assert any(reason in v for v in broken), broken


@pytest.mark.parametrize("name", ["brian2", "crossbar"])
def test_targets_without_partial_sums_refuse_them(name: str) -> None:
    split = split_fan_in(graph_of(image(4), "sigma-delta"), machine(9))
    with pytest.raises(GraphError, match="is split over the cores of another machine; compile"):
        targets.get(name).emit(split)


def test_a_split_graph_does_not_learn_and_says_why() -> None:
    split = split_fan_in(graph_of(image(4), bits=8), machine(9))
    with pytest.raises(GraphError, match=r"'a->a_to_out'.* do not see the neuron beyond; narrow"):
        make_plastic(split)


def test_where_a_step_more_can_unsettle_a_network_it_says_so() -> None:
    strong = graph_of(image(4), bits=8)
    strong = replace(strong, provenance={"spectrum.lowest": "-1.3"})
    with pytest.warns(LeakWarning, match="sums of 'a->out' are heard a step later.*a smaller leak"):
        split_fan_in(strong, machine(9))
