"""Claims about nudged phases that send differences to the free phase, each in its own scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import compilers
import targets
from compilers import Program
from compilers.ir.text import parse_graph, print_graph
from compilers.passes.make_plastic import make_plastic
from compilers.passes.units import faintness
from ep_neuro.data import datasets
from ep_neuro.errors import GraphError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from targets.experiments.comparison.compare import fit


def learner(name: str, rule: str, **how: Any) -> Program:
    """A network of the zoo that is to learn."""
    network = Network(zoo(name), 0)
    return compilers.compile(network, learn=rule, steps=32, **how)


def change(program: Program) -> dict[str, np.ndarray]:
    """What a batch of digits changes of each weight."""
    digits = fit(datasets.load("digits").train.head(20), program.graph)
    with targets.learner(program) as session:
        before = {k: s.operand(session.weights()[k]) for k, s in _synapses(session).items()}
        session.learn(digits.x, digits.y, batch=20)
        after = {k: s.operand(session.weights()[k]) for k, s in _synapses(session).items()}
    return {k: after[k] - before[k] for k in before}


def _synapses(session: Any) -> dict[str, Any]:
    learner = session.learner
    return {s.record.weight: s for s in learner.synapses if s.pre is not None}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Between two changes of a weight."""
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_in_floating_point_differences_teach_what_states_teach() -> None:
    states, differences = (
        change(learner("digits_residual", rule)) for rule in ("contrastive", "difference")
    )
    for name, wanted in states.items():
        assert cosine(differences[name], wanted) > 0.999


def test_a_population_too_faint_for_integers_is_as_loud_as_they_reach() -> None:
    dense = zoo("digits_dense")
    first, output = dense.populations
    units = (first.model_copy(update={"unit": 2.0**40}), output)
    network = Network(dense.model_copy(update={"populations": units}), 0)
    graph = compilers.compile(network, bits=8, learn="difference").graph
    assert faintness(graph)["h1"] > 60
    assert {p.name: p.louder for p in graph.neurons} == {"h1": 60, "output": 2}


@pytest.mark.parametrize("name", ["digits_residual", "digits_resnet"])
def test_differences_of_eight_bits_teach_where_states_of_as_many_do_not(name: str) -> None:
    """Of weights of 16 bits, so that rounding them hides nothing."""
    wanted = change(learner(name, "difference"))
    found = change(learner(name, "difference", bits=16, headroom=2))
    assert min(cosine(found[k], wanted[k]) for k in wanted) > 0.9
    if name == "digits_residual":
        blind = change(learner(name, "contrastive", bits=16, headroom=2, message_frac=8))
        assert cosine(blind["weight/input->h1"], wanted["weight/input->h1"]) < 0.5


def test_scales_make_up_for_faintness_and_stand_in_the_program() -> None:
    graph = learner("digits_residual", "difference", bits=8).graph
    louder = {p.name: p.louder for p in graph.neurons}
    assert louder == {name: bits + 2 for name, bits in faintness(graph).items()}
    assert {p.message.frac for p in graph.populations if p.message} == {8}
    assert [p.difference for p in graph.phases] == [False, True, True]
    assert parse_graph(print_graph(graph), graph.arrays).digest() == graph.digest()


def test_a_program_that_sends_states_says_nothing_of_differences() -> None:
    graph = learner("digits_dense", "difference").graph
    again = make_plastic(graph, "contrastive", units=True)
    assert (
        again.digest()
        == make_plastic(learner("digits_dense", "contrastive").graph, units=True).digest()
    )
    assert "louder" not in print_graph(again)


def test_spikes_send_no_differences() -> None:
    with pytest.raises(GraphError, match="use the code graded"):
        learner("digits_dense", "difference", code="spike")
