"""Claims about encode."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compilers.ir.graph import Graded, Graph, SigmaDelta, Source, Spiking
from compilers.ir.text import parse_graph, print_graph
from compilers.passes.encode import encode
from compilers.passes.thresholds import LOGITS, PRECISION
from compilers.passes.validate import validate
from ep_neuro.errors import GraphError
from tests.helpers.graphs import digits_like_dense, graph_of


@pytest.fixture
def graph() -> Graph:
    return graph_of(digits_like_dense())


@pytest.mark.parametrize(
    ("code", "dynamics"),
    [("graded", Graded), ("sigma-delta", SigmaDelta), ("spike", Spiking)],
)
def test_every_neuron_takes_the_dynamics_of_the_code_and_keeps_its_leak(
    graph: Graph, code: str, dynamics: type
) -> None:
    encoded = validate(encode(graph, code))
    assert encoded.encoding == code
    assert all(isinstance(p.dynamics, dynamics) for p in encoded.neurons)
    assert {p.dynamics.leak for p in encoded.neurons} == {0.5}
    assert all(isinstance(p.dynamics, Source) for p in encoded.sources)
    assert encode(encoded, code).digest() == encoded.digest()


def test_parameters_are_the_fields_of_the_dynamics(graph: Graph) -> None:
    encoded = encode(graph, "sigma-delta", leak=0.8, start=0.4, end=0.01, decay=0.85)
    assert encoded.neurons[0].dynamics == SigmaDelta(0.8, 0.4, 0.01, 0.85)


def test_a_parameter_may_differ_by_population_and_prints_and_parses(graph: Graph) -> None:
    ends = {p.name: 0.01 * (i + 1) for i, p in enumerate(graph.neurons)}
    encoded = encode(graph, "sigma-delta", end=ends)
    assert {p.name: p.dynamics.end for p in encoded.neurons} == ends  # type: ignore[union-attr]
    assert encoded.neurons[0].dynamics == SigmaDelta(0.5, end=0.01)
    assert parse_graph(print_graph(encoded), encoded.arrays).digest() == encoded.digest()


def test_thresholds_follow_from_the_weights_and_the_steps_unless_one_is_given(
    graph: Graph,
) -> None:
    balanced, uniform = encode(graph, "sigma-delta"), encode(graph, "sigma-delta", precision=None)
    assert {p.dynamics for p in uniform.neurons} == {SigmaDelta(0.5)}
    falls = {p.name: p.dynamics for p in balanced.neurons}
    assert len(set(falls.values())) == len(falls)
    assert falls[graph.output].end == PRECISION  # type: ignore[union-attr]
    coarse = encode(graph, "sigma-delta", precision=10 * PRECISION)
    for p in coarse.neurons:
        assert p.dynamics.end > falls[p.name].end  # type: ignore[union-attr]
    assert encode(graph, "sigma-delta", start=0.3).neurons[0].dynamics == SigmaDelta(0.5, start=0.3)


@pytest.mark.parametrize("height", [64.0, 256.0])
def test_logits_may_err_by_as_much_whatever_their_box(graph: Graph, height: float) -> None:
    out = graph.population(graph.output)
    boxed = replace(out, box=(0.0, 1.0), readout=replace(out.readout, gain=height))
    logits = replace(
        graph,
        populations=tuple(boxed if p is out else p for p in graph.populations),
        provenance={**graph.provenance, "cost": "cross-entropy"},
    )
    ends = {p.name: p.dynamics.end for p in encode(logits, "sigma-delta").neurons}  # type: ignore[union-attr]
    assert ends[graph.output] == LOGITS / height
    given = encode(logits, "sigma-delta", precision=LOGITS / height)
    assert ends == {p.name: p.dynamics.end for p in given.neurons}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"out": 0.1}, "has no value; give one value each for h"),
        ({"h1": 0.1, "out": 0.1, "x": 0.1}, "'x' is no population of neurons"),
    ],
)
def test_a_parameter_by_population_names_all_neurons_and_nothing_else(
    graph: Graph, values: dict[str, float], complaint: str
) -> None:
    with pytest.raises(GraphError, match="parameter 'end'") as caught:
        encode(graph, "sigma-delta", end=values)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("code", "parameters", "complaint"),
    [
        ("morse", {}, "encoding 'morse': does not exist"),
        ("sigmadelta", {}, "did you mean 'sigma-delta'?"),
        ("graded", {"decay": 0.9}, "'graded' neurons have none"),
        ("sigma-delta", {"decai": 0.9}, "did you mean 'decay'?"),
    ],
)
def test_unknown_codes_and_parameters_are_refused(
    graph: Graph, code: str, parameters: dict[str, float], complaint: str
) -> None:
    with pytest.raises(GraphError) as caught:
        encode(graph, code, **parameters)
    assert complaint in str(caught.value)


def test_a_linear_population_cannot_spike_and_the_error_says_what_to_do(graph: Graph) -> None:
    linear = replace(graph.population("out"), box=None)
    graph = replace(graph, populations=(*graph.populations[:-1], linear))
    with pytest.raises(GraphError, match=r"'out': it is linear.*give it a box"):
        encode(graph, "spike")
    assert encode(graph, "sigma-delta").population("out").box is None


def test_spikes_want_folded_boxes(graph: Graph) -> None:
    wide = replace(graph.population("out"), box=(-0.5, 1.5))
    with pytest.raises(GraphError, match="run fold_boxes first"):
        encode(replace(graph, populations=(*graph.populations[:-1], wide)), "spike")


def test_phases_take_their_steps_and_the_nudge_keeps_its_sign(graph: Graph) -> None:
    phases = {p.name: p for p in encode(graph, "spike", steps=48, beta=0.1).phases}
    assert {k: p.steps for k, p in phases.items()} == {"free": 48, "nudged+": 24, "nudged-": 24}
    assert {k: p.nudge for k, p in phases.items()} == {"free": 0, "nudged+": 0.1, "nudged-": -0.1}
    longer = encode(graph, "spike", steps=48, nudged_steps=60).phases
    assert [p.steps for p in longer] == [48, 60, 60]
    assert encode(graph, "spike").phases == graph.phases
