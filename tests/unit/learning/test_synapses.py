"""Claims about the arithmetic of learning: tags, rounding, what is kept, what is stuck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilers.frontend import lower
from compilers.ir.graph import Conv, Dense, Graph, Population, Spiking
from compilers.ir.integers import nearest
from compilers.ir.operators import apply, pairings
from compilers.ir.plasticity import RULES, Rule
from compilers.learning.synapses import TAG, Synapses
from compilers.learning.traces import MEAN_FRAC, spike_weights, trace
from compilers.passes.encode import encode
from compilers.passes.expand_couplings import expand_couplings
from compilers.passes.fold_boxes import fold_boxes
from compilers.passes.make_plastic import make_plastic
from compilers.passes.quantize import quantize
from ep_neuro.errors import GraphError
from ep_neuro.network.network import Network
from tests.helpers.graphs import digits_like_dense, graph_of, random_residual_spec

ADDS = "tag + sign * pre * post"


def plastic(
    seed: int, bits: int | None = None, rule: Rule | str = "contrastive", **arguments: float
) -> Graph:
    """A random residual network in graph units, plastic, with weights of `bits` bits."""
    graph = graph_of(random_residual_spec(seed), seed=seed)
    graph = graph if bits is None else quantize(graph, bits)
    return make_plastic(graph, rule, **arguments)  # type: ignore[arg-type]


def a_batch(graph: Graph, seed: int, samples: int = 3) -> dict[str, np.ndarray]:
    """Random traces by population; whole numbers in a graph of integers."""
    draw = np.random.default_rng(seed)
    return {
        p.name: draw.integers(-300, 300, (samples, *p.shape)).astype(np.float64)
        if graph.quantised
        else draw.normal(size=(samples, *p.shape))
        for p in graph.populations
    }


def first(graph: Graph, integer: bool) -> tuple[Synapses, np.ndarray, np.ndarray]:
    """Synapses of the graph's first record with their weight and an empty tag."""
    synapses = Synapses(graph, 0)
    weight = graph.arrays[synapses.record.weight].astype(synapses.dtype)
    assert synapses.integer == integer
    return synapses, weight, np.zeros_like(weight)


# --- tags --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    rows=st.integers(3, 6),
    columns=st.integers(3, 6),
    seed=st.integers(0, 99),
)
def test_pairings_are_the_derivative_of_the_operator(
    kernel: int, stride: int, padding: int, rows: int, columns: int, seed: int
) -> None:
    """``<post, op(W, pre)>`` is linear in W, so its derivative times W gives it back."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(4, 2, kernel, kernel))
    pre = draw.normal(size=(3, 2, rows, columns))
    sides = ((n + 2 * padding - kernel) // stride + 1 for n in (rows, columns))
    shape = (4, *sides)
    post = draw.normal(size=(3, *shape))
    operator = Conv(stride, padding)
    energy = (post * apply(operator, weight, pre, shape)).sum()
    slope = pairings(operator, weight.shape, pre, post)
    assert (slope * weight).sum() == pytest.approx(energy)
    one = np.zeros_like(weight)
    one.flat[seed % weight.size] = 1.0
    bump = (post * apply(operator, one, pre, shape)).sum()
    assert slope.flat[seed % weight.size] == pytest.approx(bump, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_tag_of_every_synapse_is_the_sum_over_its_places(seed: int) -> None:
    graph = plastic(seed)
    traces = a_batch(graph, seed)
    for index, record in enumerate(graph.plasticity):
        synapses = Synapses(graph, index)
        weight = np.zeros(synapses.shape)
        tag = synapses.accumulate(weight, weight, -1, traces, {})
        post = traces[synapses.post.name]
        if synapses.pre is None:
            expected = -post.reshape(len(post), len(weight), -1).sum((0, 2))
        else:
            operator = synapses.operator
            assert isinstance(operator, Dense | Conv)
            expected = -pairings(operator, weight.shape, traces[synapses.pre.name], post)
        np.testing.assert_allclose(
            tag * synapses.tag_unit,
            expected * synapses.tag_unit,
            rtol=1e-12,
            atol=1e-9,
            err_msg=record.weight,
        )


def test_signs_that_cancel_leave_no_tag() -> None:
    graph = plastic(1, bits=8)
    synapses, weight, tag = first(graph, True)
    traces = a_batch(graph, 0)
    for sign in (1, -1):
        tag = synapses.accumulate(tag, weight, sign, traces, {})
    assert not tag.any()


def test_an_integer_tag_saturates_at_32_bits_when_it_is_read() -> None:
    graph = plastic(1, bits=8)
    synapses, weight, tag = first(graph, True)
    largest = np.full_like(tag, TAG.range[1])
    one, more = (synapses.commit(weight, t, 1, 1e-6, 0) for t in (largest, 1000 * largest))
    np.testing.assert_array_equal(one.weight, more.weight)
    assert (one.clipped, more.clipped) == (0, weight.size)


@settings(deadline=None)
@given(spikes=st.integers(0, 40), steps=st.integers(1, 40))
def test_the_trace_of_spikes_is_their_mean(spikes: int, steps: int) -> None:
    real = Population("p", (1,), Spiking(), (0.0, 1.0))
    count = np.array([[min(spikes, steps)]])
    mean = float(trace(real, count, steps)[0, 0])
    assert mean == count[0, 0] / steps
    (integer,) = quantize(Graph("g", (real,))).populations
    assert trace(integer, count, steps)[0, 0] == nearest(mean * 2**MEAN_FRAC)


@given(steps=st.integers(1, 80), from_rest=st.booleans())
def test_spikes_count_by_a_triangle_over_the_steps_that_count(steps: int, from_rest: bool) -> None:
    weights = spike_weights(steps, from_rest)
    counted = weights[steps // 2 :] if from_rest else weights
    assert len(weights) == steps
    assert not weights[: steps - len(counted)].any()
    assert (counted > 0).all()
    np.testing.assert_array_equal(counted, counted[::-1])
    assert set(np.abs(np.diff(counted)).tolist()) <= {0, 1}
    assert weights.sum() == (len(counted) + 1) ** 2 // 4


def test_a_triangle_decodes_a_rate_many_times_better_than_a_mean_of_the_last_half() -> None:
    """A soft-reset neuron under a constant current, from any membrane: the squared error."""
    rng = np.random.default_rng(0)
    rates, steps = rng.uniform(0.02, 0.98, 5000), 32
    charge = rng.uniform(size=5000) + rates * np.arange(steps + 1)[:, None]
    spikes = np.diff(np.floor(charge), axis=0)
    weights = spike_weights(steps, from_rest=False)
    by_triangle = np.mean((weights @ spikes / weights.sum() - rates) ** 2)
    by_mean = np.mean((spikes[steps // 2 :].mean(0) - rates) ** 2)
    assert by_triangle < by_mean / 20


# --- commits -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    bits=st.integers(2, 8),
    seed=st.integers(0, 99),
    samples=st.integers(1, 5),
    scale=st.sampled_from([1.0, 0.5, 0.37]),
)
def test_integers_change_by_the_real_change_rounded(
    bits: int, seed: int, samples: int, scale: float
) -> None:
    graph = plastic(seed % 10, bits=bits, lr=0.7, keep=False)
    synapses, weight, tag = first(graph, True)
    tag = np.random.default_rng(seed).integers(-(1 << 16), 1 << 16, weight.shape)
    after = synapses.commit(weight, tag, samples, scale, seed)
    exponent = synapses.operand(np.ones_like(weight)) * synapses.unit
    wanted = scale * synapses.record.rate * tag * synapses.tag_unit / samples / exponent
    top = (1 << (bits - 1)) - 1
    low, high = (np.clip(weight + rounded(wanted), -top, top) for rounded in (np.floor, np.ceil))
    slack = 1e-4 * np.abs(wanted)  # the multiplier has 15 bits
    assert (after.weight >= low - 1e-9 - slack).all()
    assert (after.weight <= high + 1e-9 + slack).all()
    assert not after.tag.any()


def test_stochastic_rounding_is_right_on_average_and_repeats_under_its_seed() -> None:
    graph = plastic(1, bits=8, lr=0.1, keep=False)
    synapses, weight, _ = first(graph, True)
    tag = np.random.default_rng(0).integers(-4000, 4000, weight.shape)
    wanted = synapses.record.rate * tag * synapses.tag_unit / synapses.unit
    wanted /= 2.0**synapses._exponent
    runs = [synapses.commit(weight, tag, 1, 1.0, n).weight - weight for n in range(2000)]
    inside = np.abs(weight + wanted) < 120
    assert np.abs(wanted[inside]).max() > 0.2
    np.testing.assert_allclose(np.mean(runs, 0)[inside], wanted[inside], atol=0.06)
    again = synapses.commit(weight, tag, 1, 1.0, 3).weight - weight
    np.testing.assert_array_equal(again, runs[3])
    other = replace(graph, plasticity=tuple(replace(r, seed=9) for r in graph.plasticity))
    assert (Synapses(other, 0).commit(weight, tag, 1, 1.0, 3).weight - weight != runs[3]).any()


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("rule", [None, "contrastive", RULES["contrastive"]])
@pytest.mark.parametrize("kernels", [False, True])
def test_a_named_rule_keeps_what_rounding_leaves_where_integer_kernels_learn(
    bits: int | None, rule: Rule | str | None, kernels: bool
) -> None:
    graph = graph_of(random_residual_spec(1) if kernels else digits_like_dense())
    graph = make_plastic(graph if bits is None else quantize(graph, bits), rule)
    keeps = {record.rule.keep for record in graph.plasticity}
    assert keeps == {bits is not None and kernels and not isinstance(rule, Rule)}
    dense = {p.weight for p in graph.projections if isinstance(p.operator, Dense)}
    assert not any(r.rule.keep for r in make_plastic(graph, rule, only=dense).plasticity)


def test_a_rule_that_keeps_loses_no_change_however_small() -> None:
    """A thousand changes of a hundredth of a step each move the weight by ten steps."""
    graph = plastic(1, bits=8, rule=Rule("kept", "phase", ADDS, "rate * tag", keep=True), lr=0.1)
    synapses, weight, tag = first(graph, True)
    weight = np.zeros_like(weight)
    exponent = 2.0**synapses._exponent * np.ones(weight.shape)
    small = nearest(0.01 * synapses.unit * exponent / (synapses.record.rate * synapses.tag_unit))
    assert small.min() > 10
    for n in range(1000):
        after = synapses.commit(weight, tag + small, 1, 1.0, n)
        weight, tag = after.weight, after.tag
    sent = 1000 * small * synapses.record.rate * synapses.tag_unit / (synapses.unit * exponent)
    assert np.abs(weight - sent).max() < 1
    assert sent.min() > 9


def test_weights_stay_in_their_range_and_clips_are_counted() -> None:
    graph = plastic(1, bits=4)
    synapses, weight, _ = first(graph, True)
    tag = np.full_like(weight, TAG.range[1])
    after = synapses.commit(weight, tag, 1, 1.0, 0)
    assert after.weight.max() == after.weight.min() == 7
    assert after.clipped == weight.size


def test_decay_takes_a_share_of_the_weight() -> None:
    graph = plastic(1, decay=0.01)
    synapses, weight, tag = first(graph, False)
    np.testing.assert_allclose(synapses.commit(weight, tag, 1, 1.0, 0).weight, 0.99 * weight)
    integers = plastic(1, bits=8, decay=0.25, keep=False)
    synapses, weight, tag = first(integers, True)
    runs = [synapses.commit(weight, tag, 1, 1.0, n).weight for n in range(300)]
    np.testing.assert_allclose(np.mean(runs, 0), 0.75 * weight, atol=0.15)


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("keep", [False, True])
def test_a_stuck_synapse_never_changes(bits: int | None, keep: bool) -> None:
    graph = plastic(1, bits=bits, keep=keep)
    record = graph.plasticity[0]
    mask = np.zeros(graph.arrays[record.weight].shape, np.int8)
    mask.flat[::2] = 1
    graph = replace(
        graph,
        arrays={**graph.arrays, "mask": mask},
        plasticity=(replace(record, mask="mask"), *graph.plasticity[1:]),
    )
    synapses, weight, _ = first(graph, bits is not None)
    tag = np.full_like(weight, 40000 if bits else 0.3)
    after = synapses.commit(weight, tag, 1, 1.0, 0)
    np.testing.assert_array_equal(after.weight[mask == 0], weight[mask == 0])
    assert (after.weight[mask == 1] != weight[mask == 1]).all()
    assert not after.tag[mask == 0].any()
    assert "mask" in graph.with_arrays().arrays


def test_a_rate_that_would_leave_the_word_is_refused() -> None:
    with pytest.raises(GraphError, match="exceed 62; lower the rate"):
        Synapses(plastic(1, bits=8, lr=1e9), 0)


# --- units -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_the_unit_of_a_quantised_weight_leads_back_to_real_units(bits: int) -> None:
    """Largest error half a step, but for the few weights that the grid clips."""
    spec = random_residual_spec(3)
    real = make_plastic(encode(fold_boxes(expand_couplings(lower(Network(spec, 0)))), "graded"))
    integer = make_plastic(quantize(real, bits))
    for index, record in enumerate(integer.plasticity):
        if record.weight not in integer.ties:
            continue
        synapses = Synapses(integer, index)
        shown = synapses.operand(integer.arrays[record.weight].astype(np.int64)) * synapses.unit
        step = synapses.operand(np.ones(shown.shape, np.int64)) * synapses.unit
        top = (1 << (bits - 1)) - 1
        inside = np.abs(integer.arrays[record.weight]) < top
        error = np.abs(shown - real.arrays[record.weight])[inside]
        assert (error <= 0.5001 * step[inside]).all()
        assert np.log2(synapses.unit) == round(np.log2(synapses.unit))


def test_headroom_leaves_bits_free() -> None:
    graph = graph_of(random_residual_spec(1))
    for headroom in (0, 1, 3):
        integers = quantize(graph, 8, headroom=headroom)
        largest = max(np.abs(integers.arrays[w]).max() for w in integers.ties)
        top = (1 << (7 - headroom)) - 1
        assert top / 2 < largest <= top
        assert quantize(integers, 8, headroom=headroom) is integers
    with pytest.raises(GraphError, match="headroom 7 is not in 0 to 6"):
        quantize(graph, 8, headroom=7)
