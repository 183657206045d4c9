"""Claims about compiling a model: as it was fine-tuned, with room to learn where it is fresh."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import compilers
from compilers.model_options import FRESH_HEADROOM, deployment_of, fresh_headroom, taken_from
from compilers.passes.thresholds import PRECISION
from compilers.program import Program
from ep_neuro.errors import ModelError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.checkpoint import Model, open_model
from ep_neuro.network.network import Network

NOTES: dict[str, Any] = {"code": "sigma-delta", "bits": 3, "steps": 20, "leak": 0.25}


def model(**metadata: Any) -> Model:
    return Model(Network(zoo("digits_dense"), 0), {"data": "digits", "epochs": 1, **metadata})


def largest(program: Program) -> int:
    """Largest integer among the weights."""
    graph = program.graph
    return max(int(np.abs(graph.arrays[p.weight]).max()) for p in graph.projections)


def test_a_model_compiles_to_what_its_network_does_and_says_what_it_is() -> None:
    one = model()
    whole, bare = compilers.compile(one, bits=8), compilers.compile(one.network, bits=8)
    assert whole.graph.arrays.keys() == bare.graph.arrays.keys()
    for name, array in whole.graph.arrays.items():
        assert np.array_equal(array, bare.graph.arrays[name])
    assert whole.provenance["model.sha256"] == one.digest
    assert whole.provenance["data"] == "digits"


def test_a_model_that_was_fine_tuned_compiles_as_it_was_tuned_unless_told() -> None:
    tuned = model(deployed={**NOTES, "precision": 10 * PRECISION})
    graph = compilers.compile(tuned).graph
    dynamics = graph.population(graph.output).dynamics
    assert (graph.encoding, graph.provenance["bits"]) == ("sigma-delta", "3")
    assert (dynamics.leak, dynamics.end) == (0.25, 10 * PRECISION)  # type: ignore[union-attr]
    assert graph.phase("free").steps == 20
    told = compilers.compile(tuned, code="graded", steps=7).graph
    assert (told.encoding, told.provenance["bits"], told.phase("free").steps) == ("graded", "3", 7)
    finer = compilers.compile(tuned, parameters={"precision": PRECISION}).graph
    assert finer.population(graph.output).dynamics.end == PRECISION  # type: ignore[union-attr]


def test_what_is_given_is_not_taken_from_the_model() -> None:
    tuned = model(deployed=NOTES)
    assert taken_from(tuned, code=None, bits=8, steps=None) == {"code": "sigma-delta", "steps": 20}
    assert taken_from(model(), code=None) == {}
    with pytest.raises(ModelError, match=r"metadata\.json, deployed\.code: 'morse'"):
        deployment_of(model(deployed={"code": "morse"}))


def test_fresh_weights_that_learn_leave_bits_to_fill_and_others_do_not() -> None:
    fresh = open_model("zoo:digits_dense", seed=3)
    trained = replace(fresh, metadata={"seed": 3, "epochs": 2})
    learn = {"bits": 8, "learn": "contrastive"}
    full, part = 127, 127 >> FRESH_HEADROOM
    assert (fresh.fresh, trained.fresh) == (True, False)
    assert largest(compilers.compile(fresh, **learn)) == part
    assert largest(compilers.compile(trained, **learn)) == full
    assert largest(compilers.compile(fresh.network, **learn)) == full
    assert largest(compilers.compile(fresh, bits=8)) == full
    assert largest(compilers.compile(fresh, headroom=0, **learn)) == full
    assert [fresh_headroom(bits) for bits in (None, 2, 3, 8)] == [0, 0, 1, 2]


def test_an_editor_sees_every_option_of_compile() -> None:
    parameters = inspect.signature(compilers.compile).parameters.values()
    assert {"bits", "learn", "options", "observer"} <= {p.name for p in parameters}
    assert not [p for p in parameters if p.kind is p.VAR_KEYWORD]
    assert all(p.annotation is not p.empty for p in parameters)
