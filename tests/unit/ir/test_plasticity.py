"""Claims about learning rules: what type-checks, what a synapse may see, which phases teach."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import targets
from compilers import parse_graph, print_graph
from compilers.ir.graph import Dense, Graded, Graph, Phase, Population, Projection, Source
from compilers.ir.plasticity import (
    COMMIT_NAMES,
    CONTRASTIVE,
    RULES,
    TAG_NAMES,
    Plasticity,
    Rule,
    named_rule,
    terms,
)
from compilers.learning.synapses import Synapses
from compilers.learning.weight_sharing import shared_plasticity
from compilers.passes.make_plastic import check_plasticity, make_plastic
from compilers.passes.quantize import quantize
from compilers.passes.validate import validate
from ep_neuro.errors import GraphError
from tests.helpers.graphs import (
    digits_like_dense,
    digits_like_residual,
    graph_of,
    random_residual_spec,
)

# --- expressions -------------------------------------------------------------------------------

NUMBERS = st.floats(-4, 4, allow_nan=False).map(lambda v: repr(round(v, 3)))


def expressions(names: tuple[str, ...], leaves: int = 5) -> st.SearchStrategy[str]:
    """Texts of sums of products over `names`."""
    return st.recursive(
        st.sampled_from(names) | NUMBERS,
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        max_leaves=leaves,
    )


@given(text=expressions(TAG_NAMES), seed=st.integers(0, 99))
def test_the_sum_of_products_is_what_the_text_says(text: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = {name: float(draw.normal()) for name in TAG_NAMES}
    products = (
        t.coefficient * math.prod(values[f] for f in t.factors) for t in terms(text, TAG_NAMES, "r")
    )
    assert math.fsum(products) == pytest.approx(eval(text, {}, values), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tag + neighbour", "'neighbour', which the synapse cannot see"),
        ("tag + pre * error", "'error'"),
        ("tag + noise * pre", "'noise'"),
        ("tag + rate * pre", "'rate'"),
        ("tag + pre_befor * post", "did you mean 'pre_before'"),
        ("tag + pre / post", "'pre / post' is no sum of products"),
        ("tag + pre ** 2", "'pre ** 2'"),
        ("tag + abs(pre)", "'abs(pre)'"),
        ("tag + pre[0]", "'pre[0]'"),
        ("tag + pre.sum", "'pre.sum'"),
        ("tag + (pre if post else 0)", "no sum of products"),
        ("tag + 'pre'", "no sum of products"),
        ("tag + True * pre", "no sum of products"),
        ("tag + 1e999 * pre", "inf is not finite"),
        ("tag +", "is no expression"),
        ("", "is no expression"),
        ("pre * post", "does not accumulate"),
        ("0.5 * tag + pre * post", "does not accumulate"),
        ("tag + tag * pre", "does not accumulate"),
        ("tag + pre * pre * pre * pre * post * post * post", "7 factors in a product exceed the 6"),
        ("tag + " + "+".join(f"{i} * " + "pre *" * a + "post *" * b + "1"
                             for i, (a, b) in enumerate(itertools.product(range(5), range(5)), 1)
                             if a + b < 7), "exceed the 16"),
    ],
)  # fmt: skip
def test_a_tag_that_reads_anything_else_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(GraphError) as caught:
        Rule("mine", "step", text, "rate * tag")
    assert "rule 'mine'" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("commit", "keep", "said"),
    [
        ("rate * pre", False, "'pre', which the synapse cannot see there"),
        ("rate * tag * sign", False, "'sign'"),
        ("rate * noise", False, "never reads the tag"),
        ("rate * tag * tag", True, "not proportional to the tag"),
        ("rate * tag + tag * weight", True, "not proportional to the tag"),
    ],
)
def test_a_commit_has_the_tag_and_no_traces(commit: str, keep: bool, said: str) -> None:
    with pytest.raises(GraphError) as caught:
        Rule("mine", "phase", "tag + sign * pre * post", commit, keep)
    assert said in str(caught.value)


def test_a_rule_that_runs_once_a_phase_has_no_step_before() -> None:
    with pytest.raises(GraphError, match="one step ago"):
        Rule("mine", "phase", "tag + pre_before * post", "rate * tag")


def test_every_named_rule_has_its_name_and_a_near_miss_is_suggested() -> None:
    assert all(named_rule(name).name == name for name in RULES)
    with pytest.raises(GraphError, match="did you mean 'contrastive'"):
        named_rule("contrastiv")


# --- locality ----------------------------------------------------------------------------------


def two_layers(rule: Rule, integer: bool = False) -> Graph:
    """3-4 neurons, densely joined, which learn by `rule`."""
    draw = np.random.default_rng(0)
    graph = Graph(
        name="pair",
        populations=(
            Population("in", (3,), Source()),
            Population("out", (4,), Graded(), (0.0, 1.0), "bias/out"),
        ),
        projections=(Projection("in", "out", Dense(), "w"),),
        phases=(Phase("free", 2), Phase("plus", 2, 0.5, "free", 1, commit=True)),
        output="out",
        arrays={
            "w": draw.normal(size=(4, 3)).astype(np.float32),
            "bias/out": np.zeros(4, np.float32),
        },
    )
    graph = quantize(graph) if integer else graph
    record = Plasticity("w", rule, rate=0.5, decay=0.1, bits=8 if integer else None)
    return replace(graph, plasticity=(record,))


@settings(deadline=None, max_examples=25)
@given(
    tag=expressions(("pre", "post", "pre_before", "post_before", "sign", "weight")),
    commit=expressions(("tag", "weight", "noise", "decay"), 3),
    place=st.tuples(st.integers(0, 3), st.integers(0, 2)),
    sign=st.sampled_from([-1, 1]),
    integer=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_synapse_changes_by_nothing_but_its_own(
    tag: str, commit: str, place: tuple[int, int], sign: int, integer: bool, seed: int
) -> None:
    """All other neurons, weights and tags are replaced by others: this synapse does the same."""
    rule = Rule("random", "step", f"tag + ({tag})", f"rate * tag + 0.01 * ({commit})")
    graph = two_layers(rule, integer)
    try:
        synapses = Synapses(graph, 0)
    except GraphError as error:
        # Integers of 64 bits cannot hold every rule; what they cannot is refused, and does nothing.
        if "exceed 62" not in str(error):
            raise
        reject()
    draw = np.random.default_rng(seed)
    one = _inputs(draw, integer)
    other = _inputs(draw, integer)
    post, pre = place
    for name, index in (("in", pre), ("out", post)):
        for moment in ("now", "before"):
            other[moment][name][:, index] = one[moment][name][:, index]
    for name in ("weight", "tag"):
        other[name][place] = one[name][place]
    results = []
    for given_ in (one, other):
        filled = synapses.accumulate(
            given_["tag"], given_["weight"], sign, given_["now"], given_["before"]
        )
        after = synapses.commit(given_["weight"], filled, 2, 1.0, 7)
        results.append((filled[place], after.weight[place], after.tag[place]))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-12, atol=1e-12)


def _inputs(draw: np.random.Generator, integer: bool) -> dict:
    def values(*shape: int) -> np.ndarray:
        return draw.integers(-99, 99, shape) if integer else draw.normal(size=shape)

    traces = {
        moment: {"in": values(2, 3).astype(float), "out": values(2, 4).astype(float)}
        for moment in ("now", "before")
    }
    return {**traces, "weight": values(4, 3), "tag": values(4, 3)}


# --- who learns, and by which phases -----------------------------------------------------------


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("bits", [None, 8])
def test_printing_and_parsing_are_inverse(rule: str, bits: int | None) -> None:
    graph = graph_of(random_residual_spec(1), bits=bits)
    graph = replace(graph, provenance={"bits": str(bits)} if bits else {})
    plastic = make_plastic(graph, rule, lr=0.03, decay=0.001, seed=5)
    assert plastic.plasticity
    again = parse_graph(print_graph(plastic), plastic.arrays)
    assert again.plasticity == plastic.plasticity
    assert again.phases == plastic.phases
    assert again.digest() == plastic.digest()
    assert graph.digest() != plastic.digest()


def test_a_text_with_a_bad_rule_is_refused() -> None:
    plastic = make_plastic(graph_of(random_residual_spec(1)), "contrastive")
    text = print_graph(plastic).replace("sign * pre * post", "sign * pre * secret", 1)
    with pytest.raises(GraphError, match="'secret'"):
        parse_graph(text, plastic.arrays)


@pytest.mark.parametrize(
    ("rule", "signs", "commits"),
    [
        ("contrastive", (0, 1, -1), (False, False, True)),
        ("spike-average", (0, 1, -1), (False, False, True)),
        ("one-sided", (-1, 1), (False, True)),
        ("continual", (0, 1), (False, True)),
    ],
)
def test_each_rule_has_its_phases(
    rule: str, signs: tuple[int, ...], commits: tuple[bool, ...]
) -> None:
    graph = graph_of(random_residual_spec(1), steps=10)
    plastic = make_plastic(graph, rule, lr=0.1, beta=0.25, nudged_steps=4)
    assert tuple(p.sign for p in plastic.phases) == signs
    assert tuple(p.commit for p in plastic.phases) == commits
    assert [p.steps for p in plastic.phases] == [10, *[4] * (len(signs) - 1)]
    assert all(p.start == "free" for p in plastic.phases[1:])
    contrast = sum(p.sign * p.nudge for p in plastic.phases)
    assert all(r.rate == pytest.approx(0.1 / contrast) for r in plastic.plasticity)


def test_only_what_is_named_learns() -> None:
    graph = graph_of(random_residual_spec(1))
    first, *_ = graph.ties
    plastic = make_plastic(graph, only=(first, "bias/out"))
    assert [r.weight for r in plastic.plasticity] == [first, "bias/out"]
    by_name = make_plastic(graph, lr={"bias/out": 0.5, first: 0.1}, beta=0.5)
    assert {r.weight: r.rate for r in by_name.plasticity} == {first: 0.1, "bias/out": 0.5}


def test_making_a_graph_plastic_keeps_its_input_and_its_weights() -> None:
    graph = graph_of(random_residual_spec(2))
    before = graph.digest()
    plastic = make_plastic(graph)
    assert graph.digest() == before
    assert all(np.array_equal(plastic.arrays[k], a) for k, a in graph.arrays.items())
    assert make_plastic(plastic).digest() == plastic.digest()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(beta=0.0), "beta: nudges (free 0, nudged+ 0, nudged- -0)"),
        (dict(only=("weight/none",)), "plasticity of 'weight/none': there is no such"),
        (dict(only=()), "nothing in it learns"),
        (dict(lr=0.0), "rate 0.0 is not above 0"),
        (dict(lr=math.nan), "rate nan is not above 0"),
        (dict(decay=1.5), "decay 1.5 is not in [0, 1)"),
        (dict(rule="hebb"), "rule 'hebb'"),
        (dict(steps=0), "steps 0 is not in 1 to"),
        (dict(seed=-1), "seed -1 is not in 0 to"),
    ],
)
def test_what_cannot_learn_is_refused_in_one_line(arguments: dict, said: str) -> None:
    with pytest.raises(GraphError) as caught:
        validate(make_plastic(graph_of(random_residual_spec(1)), **arguments))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_spikes_are_no_state_for_a_rule_that_runs_at_every_step() -> None:
    with pytest.raises(GraphError, match="spikes are a mean"):
        make_plastic(graph_of(random_residual_spec(1), "spike"), "continual")


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ((Phase("f", 2), Phase("p", 2, 0.1, "f", 1), Phase("m", 2, -0.1, "f", -1)), "ever changes"),
        (
            (
                Phase("f", 2),
                Phase("p", 2, 0.1, "f", 1, commit=True),
                Phase("m", 2, -0.1, "f", -1),
            ),
            "none commits after 'm'",
        ),
        ((Phase("f", 2), Phase("p", 2, 0.1, "f", 1, commit=True)), "signs add up to 1"),
        (
            (Phase("f", 2), Phase("p", 2, 0.1, "f", 1), Phase("m", 2, 0.1, "f", -1, commit=True)),
            "add up to 0, not above 0",
        ),
        (
            (Phase("f", 2), Phase("p", 2, -0.1, "f", 1), Phase("m", 2, 0.1, "f", -1, commit=True)),
            "add up to -0.2, not above 0",
        ),
    ],
)
def test_phases_that_teach_nothing_are_refused(phases: tuple[Phase, ...], said: str) -> None:
    plastic = make_plastic(graph_of(random_residual_spec(1)))
    with pytest.raises(GraphError) as caught:
        validate(replace(plastic, phases=phases))
    assert said in str(caught.value)


def test_a_record_has_to_fit_its_graph() -> None:
    plastic = make_plastic(graph_of(random_residual_spec(1)))
    record = plastic.plasticity[0]
    step = replace(record, rule=named_rule("continual"))
    for records, said in [
        ((record, record), "stands twice"),
        ((replace(record, weight="gone"),), "no such weight"),
        ((replace(record, mask="gone"),), "mask 'gone' is missing"),
        ((record, replace(step, weight=plastic.plasticity[1].weight)), "one kind of rule"),
    ]:
        with pytest.raises(GraphError, match=said):
            check_plasticity(replace(plastic, plasticity=records))
    integers = graph_of(random_residual_spec(1), bits=8)
    with pytest.raises(GraphError, match="make_plastic after quantize"):
        make_plastic(integers)


def test_a_contrastive_rule_is_one_product_of_three() -> None:
    """What a learning engine has to run: the accumulator, and one product."""
    old, new = sorted(CONTRASTIVE.tag_terms, key=lambda t: len(t.factors))
    assert old.factors == ("tag",)
    assert (new.coefficient, new.factors) == (1.0, ("post", "pre", "sign"))
    assert set(COMMIT_NAMES) & set(TAG_NAMES) == {"tag", "weight"}


def test_a_chip_lists_what_it_cannot_learn_because_places_share_it() -> None:
    graph = make_plastic(quantize(graph_of(digits_like_residual()), 8))
    found = {str(v) for v in shared_plasticity(graph)}
    assert len(found) == 6 + 4  # kernels, and biases of maps; the dense head learns
    (kernel,) = (v for v in found if "'weight/h1->h2'" in v)
    assert "16 exceed the limit of 1; unshare it" in kernel
    assert "freeze it" in kernel
    assert "off chip" in kernel
    frozen = make_plastic(graph, only=("weight/h4->out", "bias/out"))
    assert not shared_plasticity(frozen)
    dense = make_plastic(quantize(graph_of(digits_like_dense()), 8))
    assert not shared_plasticity(dense)
    (chip,) = (b for b in targets.backends() if b.name == "loihi2")
    assert {str(v) for v in shared_plasticity(graph)} <= {str(v) for v in chip.check(graph)}
