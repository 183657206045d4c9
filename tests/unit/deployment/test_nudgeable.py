"""Claims about networks whose cost no target nudges by: they settle there, and do not learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import targets
from compilers import Program, compile_network, load_program, save_program
from compilers.passes.make_plastic import check_plasticity, make_plastic
from compilers.passes.thresholds import PRECISION
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import GraphError
from ep_neuro.network.network import Landscape, Network
from ep_neuro.network.settling import settle
from targets.experiments.onchip.plastic import plastic
from targets.experiments.onchip.to_network import spec_of
from targets.interface.protocols import Backend, Feature
from tests.helpers.graphs import random_residual_spec, samples
from tests.helpers.problems import TIGHT

REFERENCE = targets.get("reference")
SPEC = random_residual_spec(3)
CROSS = NetworkSpec.from_dict({**SPEC.to_dict(), "cost": "cross-entropy"})
REFUSED = (
    rf"network '{SPEC.name}': a target nudges its output by beta \(y - z\), and cost "
    r"cross-entropy asks for beta \(y - softmax\(z\)\); train it off chip"
)


def compiled(spec: NetworkSpec, target: Backend = REFERENCE, **options: object) -> Program:
    """A program of `spec` with the weights of seed 0."""
    return compile_network(Network(spec, 0), target, steps=40, **options)  # type: ignore[arg-type]


# --- the free phase ----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", targets.backends(), ids=lambda b: b.name)
def test_on_every_target_it_compiles_to_the_same_free_phase_and_no_other(backend: Backend) -> None:
    code = "spike" if Feature.GRADED in backend.unsupported else "graded"
    squared, cross = (compiled(spec, backend, code=code) for spec in (SPEC, CROSS))
    assert cross.graph.phases == squared.graph.phases[:1]
    assert cross.graph.projections == squared.graph.projections
    assert cross.graph.populations == squared.graph.populations
    assert cross.graph.arrays.keys() == squared.graph.arrays.keys()
    for name, array in cross.graph.arrays.items():
        np.testing.assert_array_equal(array, squared.graph.arrays[name])
    assert list(backend.check(cross.graph)) == list(backend.check(squared.graph))


@pytest.mark.parametrize("code", ["graded", "sigma-delta", "spike"])
@pytest.mark.parametrize("bits", [None, 8])
def test_its_free_phase_is_that_of_the_same_weights_under_the_squared_error(
    code: str, bits: int | None
) -> None:
    x, _ = samples(SPEC, 4)
    results = []
    for spec in (SPEC, CROSS):
        # Logits may err by more of their box unless somebody says otherwise.
        same = {"parameters": {"precision": PRECISION}} if code == "sigma-delta" else {}
        with targets.open(compiled(spec, code=code, bits=bits, **same)) as session:
            results.append(session.settle(x))
    squared, cross = results
    np.testing.assert_array_equal(cross.free.outputs, squared.free.outputs)
    np.testing.assert_array_equal(cross.predictions, squared.predictions)
    assert cross.events_per_sample == squared.events_per_sample


def test_its_predictions_are_those_of_the_settled_network() -> None:
    network, (x, _) = Network(CROSS, 0), samples(SPEC, 16)
    program = compile_network(network, REFERENCE, steps=400)
    with targets.open(program) as session:
        found = session.settle(x).predictions
    z = settle(Landscape(network.double(), torch.from_numpy(x)), TIGHT).state[CROSS.output]
    np.testing.assert_array_equal(found, network.scores(z).argmax(1).numpy())


def test_a_graph_remembers_the_cost_and_a_spec_read_back_has_it(tmp_path: Path) -> None:
    assert spec_of(compiled(SPEC).graph).cost == "squared-error"
    save_program(compiled(CROSS), tmp_path / "p")
    assert spec_of(load_program(tmp_path / "p").graph).cost == "cross-entropy"
    assert "cost" not in compiled(SPEC).graph.provenance


# --- nudged phases -----------------------------------------------------------------------------


def learns(program: Program) -> None:
    compiled(CROSS, learn="contrastive")


def takes_a_beta(program: Program) -> None:
    compiled(CROSS, beta=0.3)


def becomes_plastic(program: Program) -> None:
    plastic(program)


def is_opened_to_learn(program: Program) -> None:
    targets.learner(program)


def was_made_plastic_by_hand(program: Program) -> None:
    taught = make_plastic(compiled(SPEC).graph)
    check_plasticity(replace(taught, provenance={**taught.provenance, "cost": "cross-entropy"}))


def is_given_labels(program: Program) -> None:
    with targets.open(program) as session:
        session.settle(*samples(SPEC, 2))


@pytest.mark.parametrize(
    "use",
    [
        *(learns, takes_a_beta, becomes_plastic, is_opened_to_learn, was_made_plastic_by_hand),
        is_given_labels,
    ],
)
def test_whatever_needs_a_nudge_is_refused_in_the_same_line(
    use: Callable[[Program], None], tmp_path: Path
) -> None:
    save_program(compiled(CROSS), tmp_path / "p")
    with pytest.raises(GraphError, match=REFUSED) as caught:
        use(load_program(tmp_path / "p"))
    assert "\n" not in str(caught.value)
