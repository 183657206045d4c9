"""Claims about the text form of a graph."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.ir import graph as ir
from compilers.ir.json_form import graph_from_json, graph_to_json
from compilers.ir.text import parse_graph, print_graph
from ep_neuro.errors import GraphError
from tests.helpers.graphs import digits_like_residual, graph_of

# Lone surrogates cannot be hashed as UTF-8, and no file or YAML key can hold one.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
real = st.floats(allow_nan=False, allow_infinity=False)
count = st.integers(-(2**40), 2**40)
shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
formats = st.none() | st.builds(ir.FixedPoint, count, count)
boxes = st.none() | st.tuples(real, real)
dynamics = st.one_of(
    st.builds(ir.Source),
    st.builds(ir.Graded, real),
    st.builds(ir.SigmaDelta, real, real, real, real),
    st.builds(ir.Spiking, real, real),
)
operators = st.one_of(
    st.builds(ir.Dense),
    st.builds(ir.DenseTranspose),
    st.builds(ir.Conv, count, count),
    st.builds(ir.ConvTranspose, count, count),
)
populations = st.builds(
    ir.Population,
    *(text, shapes, dynamics, boxes, st.none() | text),
    *(st.builds(ir.Readout, real, real), formats, formats),
)
couplings = st.builds(ir.Coupling, text, text, st.builds(ir.Conv, count, count), text)
projections = st.builds(
    ir.Projection,
    *(text, text, operators, text, real, count),
    *(st.none() | st.builds(ir.Rescale, count, count), st.none() | text),
)
phases = st.builds(ir.Phase, text, count, real, st.none() | text, count)
arrays = st.sampled_from([np.float32, np.int32]).flatmap(
    lambda dtype: shapes.map(lambda shape: np.arange(np.prod(shape), dtype=dtype).reshape(shape))
)
graphs = st.builds(
    ir.Graph,
    name=text,
    populations=st.lists(populations, max_size=3).map(tuple),
    couplings=st.lists(couplings, max_size=2).map(tuple),
    projections=st.lists(projections, max_size=3).map(tuple),
    phases=st.lists(phases, max_size=2).map(tuple),
    output=text,
    encoding=st.sampled_from(["graded", "sigma-delta", "spike"]),
    timestep=real,
    provenance=st.dictionaries(text, text, max_size=3),
    arrays=st.dictionaries(text, arrays, max_size=2),
)


@given(graphs)
def test_parsing_undoes_printing(graph: ir.Graph) -> None:
    again = parse_graph(print_graph(graph), graph.arrays)
    assert again.digest() == graph.digest()
    assert again.populations == graph.populations
    assert again.projections == graph.projections


@given(graphs)
def test_so_does_reading_its_json(graph: ir.Graph) -> None:
    data = json.loads(json.dumps(graph_to_json(graph)))
    assert graph_from_json(data, graph.arrays).digest() == graph.digest()


def test_json_holds_records_as_objects_and_their_class_under_kind() -> None:
    data = graph_to_json(graph_of(digits_like_residual(), "sigma-delta"))
    assert data["version"] == 2
    assert data["populations"][1]["dynamics"]["kind"] == "SigmaDelta"
    assert data["projections"][0]["operator"] == {"kind": "Conv", "stride": 1, "padding": 1}


def test_json_of_the_first_form_reads_and_any_other_version_is_refused() -> None:
    graph = graph_of(digits_like_residual())
    lines = print_graph(graph, arrays=False).splitlines()
    assert graph_from_json({"records": lines}, graph.arrays).digest() == graph.digest()
    for wrong in ({"records": [1]}, {"version": 3}, {}):
        with pytest.raises(GraphError, match="is not 2"):
            graph_from_json(wrong, graph.arrays)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("populations", [{"kind": "Fountain"}], "Fountain"),
        ("populations", {"kind": "Source"}, "populations=Source"),
        ("populations", [{"kind": ["Source"]}], "no kind"),
        ("phases", [{"kind": "Phase", "name": "free", "steps": "12"}], "steps='12' is no int"),
        ("phases", [{"kind": "Phase", "name": "free", "stops": 1}], "stops"),
        ("timestep", float("nan"), "timestep=nan is no float"),
        ("timestep", 10**400, "is no float"),
        ("encoding", "morse", "'morse' is none of"),
        ("provenance", {"bits": 8}, "provenance"),
    ],
)
def test_a_bad_value_in_json_is_named(field: str, value: object, complaint: str) -> None:
    data = {**graph_to_json(graph_of(digits_like_residual())), field: value}
    with pytest.raises(GraphError, match=complaint):
        graph_from_json(data, {})


def test_spiking_neurons_of_before_there_was_a_choice_have_a_soft_reset() -> None:
    graph = graph_of(digits_like_residual(), "spike")
    assert "reset" not in print_graph(graph)
    data = graph_to_json(graph)
    for p in data["populations"]:
        p["dynamics"].pop("reset", None)
    assert graph_from_json(data, graph.arrays).digest() == graph.digest()


@given(graphs)
def test_every_record_stands_on_one_line(graph: ir.Graph) -> None:
    records = 1 + sum(
        map(len, (graph.provenance, graph.populations, graph.couplings, graph.projections))
    )
    records += len(graph.phases) + len(graph.arrays)
    assert print_graph(graph).count("\n") == records


def test_fields_at_their_default_are_left_out() -> None:
    population = ir.Population("h1", (16, 8, 8), ir.SigmaDelta(leak=0.5), (0.0, 1.0), "bias/h1")
    line = print_graph(ir.Graph("g", (population,)), arrays=False).splitlines()[1]
    assert line == (
        'population("h1", shape=(16, 8, 8), dynamics=SigmaDelta(leak=0.5), '
        'box=(0.0, 1.0), bias="bias/h1")'
    )


def test_numpy_numbers_print_as_plain_ones() -> None:
    graph = ir.Graph(
        "g", (ir.Population("h", (2,), ir.Graded(np.float64(0.25)), (np.float32(0), 2.0)),)
    )
    assert "Graded(leak=0.25), box=(0.0, 2.0)" in print_graph(graph)


@pytest.mark.parametrize(
    ("found", "instead", "complaint"),
    [
        ("Source()", "Fountain()", "'Fountain' is no value"),
        ("leak=0.5", "leek=0.5", "leek"),
        ("leak=0.5", "leak='0.5'", "leak='0.5' is no float"),
        ("shape=(10,)", "shape=10", "shape=10 is no tuple"),
        ("shape=(10,)", "shape=(10", "not well formed"),
        ("steps=12", "steps=True", "steps=True is no int"),
        ("steps=12", "steps=__import__('os')", "'__import__' is no value"),
        ('phase("free"', 'phrase("free"', "'phrase' is no record"),
        ('encoding="sigma-delta"', 'encoding="morse"', "'morse' is none of"),
    ],
)
def test_a_bad_line_is_named(found: str, instead: str, complaint: str) -> None:
    graph = graph_of(digits_like_residual(), "sigma-delta")
    lines = print_graph(graph).splitlines()
    number = next(i for i, line in enumerate(lines) if found in line)
    lines[number] = lines[number].replace(found, instead)
    with pytest.raises(GraphError) as caught:
        parse_graph("\n".join(lines), graph.arrays)
    assert f"line {number + 1}:" in str(caught.value)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_that_are_missing_or_other_ones_are_refused() -> None:
    graph = graph_of(digits_like_residual())
    printed = print_graph(graph)
    changed = {**graph.arrays, "bias/out": graph.arrays["bias/out"] + 1}
    with pytest.raises(GraphError, match="the array given is"):
        parse_graph(printed, changed)
    changed.pop("bias/out")
    with pytest.raises(GraphError, match="'bias/out' was not given"):
        parse_graph(printed, changed)


@pytest.mark.parametrize("times", [0, 2])
def test_a_text_holds_exactly_one_graph(times: int) -> None:
    with pytest.raises(GraphError, match=r"graph\(...\) records"):
        parse_graph('graph("g", output="o", encoding="spike", timestep=1.0)\n' * times, {})


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(GraphError):
        parse_graph("phase(" + "(" * 5000 + ")" * 5000 + ")", {})
