"""Claims about learning in units: one rate serves any ratio, and integers hold what it teaches."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import compilers
import targets
from compilers import Program
from compilers.ir.text import parse_graph, print_graph
from compilers.passes.choose_leak import LeakWarning
from compilers.passes.make_plastic import make_plastic
from compilers.passes.units import coarseness, faintness, unit_power
from ep_neuro.data import datasets
from ep_neuro.energy.spec import INPUT, CouplingSpec, InputSpec, NetworkSpec, PopulationSpec
from ep_neuro.errors import GraphError
from ep_neuro.network.architectures import OUTPUT_BOX, zoo
from ep_neuro.network.network import Network, parameter_names
from targets.experiments.comparison.compare import fit
from targets.experiments.onchip.to_network import network_of


def dense(ratio: float) -> NetworkSpec:
    """64-64-10 for digits, whose hidden population lives in units of `ratio`."""
    return NetworkSpec(
        name="dense",
        input=InputSpec(shape=(1, 8, 8)),
        populations=(
            PopulationSpec(name="h1", shape=(64,), unit=ratio),
            PopulationSpec(name="output", shape=(10,), box=OUTPUT_BOX),
        ),
        couplings=(
            CouplingSpec(pre=INPUT, post="h1", gain=0.5),
            CouplingSpec(pre="h1", post="output", gain=0.5),
        ),
    )


def learner(ratio: float, bits: int | None = None) -> Program:
    """`dense` on the reference, as it learns by default."""
    network, headroom = Network(dense(ratio), 0), 2 if bits else 0
    settings: dict[str, Any] = dict(steps=16, nudged_steps=16, beta=0.5, learn="contrastive")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeakWarning)
        return compilers.compile(network, bits=bits, headroom=headroom, **settings)


def learnt_accuracy(program: Program) -> float:
    """Accuracy on validation digits after 500 others, in batches of 4."""
    digits = datasets.load("digits")
    train, val = (fit(split, program.graph) for split in (digits.train.head(500), digits.val))
    with targets.learner(program) as session:
        session.learn(train.x, train.y, batch=4, rate_scale=2.0)
        return session.settle(val.x).accuracy(val.y)


# --- the input ---------------------------------------------------------------------------------


@given(mean=st.floats(0, 1), octaves=st.integers(0, 3))
def test_a_normalised_input_teaches_as_what_is_normalised_beforehand(
    mean: float, octaves: int
) -> None:
    """Synapses see a centred input of unit size, though what is sent are raw pixels."""
    spec, some = dense(1.0), datasets.load("digits").train.head(20)
    shape, std = spec.input.shape, 2.0**-octaves
    seen = InputSpec(shape=shape, mean=(mean,), std=(std,))
    sent = {"raw": some.x, "normalised": (some.x - mean) / std}
    learnt = {}
    for name, given_to in (("raw", seen), ("normalised", InputSpec(shape=shape))):
        network = Network(spec.model_copy(update={"input": given_to}), 0)
        program = compilers.compile(network, steps=16, learn="contrastive", check=False)
        with targets.learner(program) as session:
            session.learn(sent[name], some.y, batch=10)
            learnt[name] = parameter_names(network_of(session.learnt().graph))
    for key, value in learnt["normalised"].items():
        torch.testing.assert_close(learnt["raw"][key], value, rtol=1e-4, atol=1e-4)


# --- rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("ratio", [1.0, 4.0, 8.0])
def test_one_rate_teaches_whatever_the_ratio_of_units(ratio: float, bits: int | None) -> None:
    program = learner(ratio, bits)
    assert len({record.rate for record in program.graph.plasticity}) == 1
    assert learnt_accuracy(program) > 0.7


def test_a_rate_that_is_not_in_units_teaches_next_to_nothing_where_they_shrink() -> None:
    program = learner(8.0)
    flat = tuple(replace(record, power=0) for record in program.graph.plasticity)
    assert learnt_accuracy(replace(program, graph=replace(program.graph, plasticity=flat))) < 0.4


@given(st.integers(-6, 6))
def test_the_power_of_a_rate_is_the_square_of_the_ratio_of_units(octaves: int) -> None:
    graph = learner(2.0**octaves).graph
    assert [unit_power(graph, name) for name in graph.ties] == [2 * octaves, -2 * octaves - 2]
    assert [unit_power(graph, p.bias) for p in graph.neurons if p.bias] == [2 * octaves, -2]


def test_networks_without_units_learn_at_one_rate_but_for_the_output() -> None:
    graph = compilers.compile(Network(zoo("digits_dense"), 0), learn="contrastive").graph
    assert {r.weight: r.power for r in graph.plasticity} == {
        **{"weight/input->h1": 0, "bias/h1": 0},
        **{"weight/h1->output": -2, "bias/output": -2},
    }


def test_spikes_that_learn_are_nudged_further() -> None:
    network = Network(zoo("digits_dense"), 0)
    for code, learn, beta in (
        ("spike", "spike-average", 0.5),
        ("spike", None, 0.2),
        ("graded", "contrastive", 0.2),
    ):
        phases = compilers.compile(network, code=code, learn=learn).graph.phases
        assert [p.nudge for p in phases] == [0, beta, -beta]
    said = compilers.compile(network, code="spike", learn="spike-average", beta=0.3)
    assert said.graph.phases[1].nudge == 0.3


def test_a_program_of_before_there_were_units_is_read_as_it_was() -> None:
    plain = make_plastic(compilers.compile(Network(zoo("digits_dense"), 0)).graph)
    text = print_graph(plain)
    assert "power" not in text
    assert "coarser" not in text
    assert {r.step for r in parse_graph(text, plain.arrays).plasticity} == {0.1 / 0.4}


# --- messages and tags -------------------------------------------------------------------------


def test_messages_are_as_fine_as_the_faintest_response() -> None:
    for ratio, frac, state in ((1.0, 10, 16), (4.0, 14, 16), (8.0, 16, 20), (2.0**9, 19, 20)):
        graph = learner(ratio, 8).graph
        assert max(faintness(graph).values()) >= min(frac, 18) - 8
        assert {p.message.frac for p in graph.populations if p.message} == {frac}
        assert {p.state.frac for p in graph.neurons if p.state} == {state}


def test_messages_of_programs_that_do_not_learn_and_those_asked_for_stay() -> None:
    network = Network(dense(8.0), 0)
    asked: dict[str, Any] = dict(learn="contrastive", message_frac=12)
    for said, frac in (({}, 8), (asked, 12)):
        graph = compilers.compile(network, bits=8, **said).graph
        assert {p.message.frac for p in graph.populations if p.message} == {frac}


def test_a_response_over_a_skip_is_no_fainter_than_over_the_shorter_way() -> None:
    graph = compilers.compile(Network(zoo("digits_residual"), 0)).graph
    assert faintness(graph) == {"output": 0, "h4": 4, "h3": 6, "h2": 10, "h1": 12}


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_tags_hold_what_fine_messages_teach(ratio: float) -> None:
    """None meets its end, and none is coarser than the fainter response calls for."""
    program = learner(ratio, 8)
    for record in program.graph.plasticity:
        assert record.coarser == coarseness(program.graph, record.weight)
    digits = fit(datasets.load("digits").train.head(100), program.graph)
    with targets.learner(program) as session:
        assert session.learn(digits.x, digits.y, batch=100).clipped == 0


def test_units_too_far_apart_for_integers_are_refused_with_remedies_that_work() -> None:
    network = Network(zoo("digits_resnet"), 0)
    program = compilers.compile(network, bits=8, learn="contrastive")
    digits = datasets.load("digits").train.head(2)
    told = r"76 bits, which exceed 62, .*2\*\*36.*--learn difference.*without bits"
    with targets.learner(program) as session, pytest.raises(GraphError, match=told):
        session.learn(digits.x, digits.y)
    remedies: list[dict[str, Any]] = [{"learn": "difference", "bits": 8}, {"learn": "contrastive"}]
    for remedy in remedies:
        with targets.learner(compilers.compile(network, steps=8, **remedy)) as session:
            assert session.learn(digits.x, digits.y).changed > 0
