"""Claims about the certificate of a program that learns: how true its updates are, what limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import compilers
import targets
from compilers.learning.real_units import in_floating_point, real_bias, real_weight
from compilers.passes.quantize import quantize
from compilers.program import Program
from ep_neuro.data import datasets
from ep_neuro.data.datasets import Split
from ep_neuro.energy.spec import NetworkSpec
from ep_neuro.errors import CheckFailed, ConfigError, GraphError, ProgramError, TargetError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from targets.experiments.certificate.learning_check import (
    LEAST_COSINE,
    LearningCheck,
    check_learning,
)
from targets.experiments.certificate.lifted_limits import ALL
from targets.experiments.certificate.updates import exact, learnt_by, written
from targets.experiments.onchip.faults import damage
from targets.experiments.onchip.schedule import Plan
from tests.helpers.graphs import digits_like_residual, standardised_in_units

DENSE = zoo("digits_dense")


def program(spec: NetworkSpec, learn: str | None = "contrastive", **options: Any) -> Program:
    return compilers.compile(Network(spec, 0), learn=learn, **options)


def samples(spec: NetworkSpec, count: int = 6) -> Split:
    generator = np.random.default_rng(0)
    x = generator.random((count, *spec.input.shape), np.float32)
    return Split(x, np.arange(count) % spec.classes)


@pytest.fixture(scope="module")
def digits() -> Split:
    return datasets.load("digits").train.head(16)


def limits(found: LearningCheck) -> dict[str, str]:
    return {c.name: c.limit for c in found.couplings}


def cosines(found: LearningCheck) -> list[float]:
    return [c.cosine or 0.0 for c in found.couplings]


@pytest.mark.parametrize("spec", [DENSE, standardised_in_units()], ids=lambda s: s.name)
def test_many_steps_and_a_small_beta_give_the_exact_gradient(spec: NetworkSpec) -> None:
    """Also where a normalised input makes the biases of a channel differ."""
    found = check_learning(program(spec, steps=300, beta=1e-3), samples(spec))
    assert min(cosines(found)) > 0.999
    assert [c.norm for c in found.couplings] == pytest.approx(
        [1.0] * len(found.couplings), rel=0.02
    )
    assert [c.signs for c in found.couplings] == pytest.approx(
        [1.0] * len(found.couplings), abs=0.02
    )
    assert found.holds
    assert set(limits(found).values()) == {"nothing"}
    assert found.update_cosine > 0.999


def test_depth_is_counted_from_the_output(digits: Split) -> None:
    found = check_learning(program(digits_like_residual(), steps=4), digits.head(2))
    depth = {c.population: c.depth for c in found.couplings}
    assert depth == {"out": 0, "h4": 1, "h2": 2, "h3": 2, "h1": 3}
    assert [c.depth for c in found.couplings] == sorted(c.depth for c in found.couplings)


def test_a_program_of_few_steps_is_limited_by_steps(digits: Split) -> None:
    found = check_learning(program(digits_like_residual(), steps=6, nudged_steps=3), digits.head(4))
    assert not found.holds
    assert limits(found)["weight/input->h1"] == "steps"
    worst = next(c for c in found.couplings if c.name == "weight/input->h1")
    assert "with 4x" in worst.told
    assert "--steps" in worst.remedy


def test_messages_of_4_bits_limit_what_lies_deep(digits: Split) -> None:
    found = check_learning(program(DENSE, bits=8, message_frac=4), digits)
    assert limits(found)["weight/input->h1"] == "messages"
    assert found.couplings[0].written is not None


def test_where_messages_limit_the_remedy_is_to_send_differences_and_it_helps(digits: Split) -> None:
    how: dict[str, Any] = {"bits": 8, "message_frac": 4}
    states = check_learning(program(DENSE, **how), digits)
    assert states.worst.limit == "messages"
    assert "--learn difference" in states.remedy
    differences = check_learning(program(DENSE, "difference", **how), digits)
    assert "--learn difference" not in differences.remedy
    assert min(cosines(differences)) > min(cosines(states)) + 0.05


def test_a_large_nudge_is_told_and_a_second_side_tried(digits: Split) -> None:
    found = check_learning(program(DENSE, "one-sided", beta=2.0), digits)
    assert limits(found)["weight/input->h1"] == "beta"
    assert "one side" in found.couplings[0].lifted
    centred = check_learning(program(DENSE), digits.head(2))
    assert "one side" not in centred.couplings[0].lifted


def test_with_all_limits_lifted_spikes_teach_the_exact_gradient(digits: Split) -> None:
    learner = program(DENSE, "spike-average", code="spike", bits=8, steps=8)
    found = check_learning(learner, digits)
    assert min(cosines(found)) < 0.99
    assert all(c.lifted[ALL] > 0.999 for c in found.couplings)
    assert "traces" in found.couplings[0].lifted


def test_what_is_learnt_by_is_what_is_written_before_it_is_rounded(digits: Split) -> None:
    """A mean of 40 commits, each rounded by other dice, comes near it."""
    learner = program(DENSE, bits=8)
    wanted = learnt_by(learner, digits.x, digits.y)["weight/h1->output"]
    with targets.learner(learner) as session:
        memory, total = session.memory(), np.zeros(wanted.shape)
        for commits in range(40):
            session.restore({**memory, "commits": np.array(commits)})
            session.learn(digits.x, digits.y, batch=len(digits))
            total += session.memory()["weight/h1->output"] - memory["weight/h1->output"]
    mean = total / 40
    one = written(learner, digits.x, digits.y)["weight/h1->output"]
    cosine = [
        float((a * wanted).sum() / np.linalg.norm(a) / np.linalg.norm(wanted)) for a in (one, mean)
    ]
    assert cosine[0] < 0.9
    assert cosine[1] > 0.98
    assert limits(check_learning(learner, digits))["weight/h1->output"] == "bits"


def test_a_stuck_synapse_has_no_gradient_to_miss(digits: Split) -> None:
    broken = damage(program(DENSE, steps=200, beta=1e-3), stuck=0.3).program
    found = check_learning(broken, digits)
    assert min(cosines(found)) > 0.999
    slopes, _ = exact(broken.graph, digits.x, digits.y)
    assert float((slopes["weight/h1->output"] == 0).mean()) > 0.29


def test_a_certificate_tells_the_widths_of_the_learning_engine(digits: Split) -> None:
    found = check_learning(program(DENSE, bits=8), digits.head(2))
    engine = {e.quantity: e for e in found.engine}
    assert engine["weights"].holds
    assert (engine["traces"].limit, engine["tags"].limit) == (7, 9)
    assert not engine["traces"].holds
    assert all(e.source for e in found.engine)


def test_floating_point_keeps_what_integers_hold() -> None:
    graph = program(standardised_in_units(), bits=8).graph
    real = in_floating_point(graph)
    assert not real.quantised
    for weight in graph.ties:
        np.testing.assert_allclose(real_weight(real, weight), real_weight(graph, weight), rtol=1e-6)
    for p in graph.neurons:
        mine = real_bias(real, real.population(p.name))
        np.testing.assert_allclose(mine, real_bias(graph, p), atol=2.0**-15 * p.readout.gain)
    again = quantize(real, 8, message_frac=8)
    assert all(np.abs(again.arrays[w]).max() < 128 for w in graph.ties)


def test_what_does_not_learn_is_refused(digits: Split) -> None:
    with pytest.raises(GraphError, match=r"nothing in it learns; .*--learn"):
        check_learning(program(DENSE, None), digits)
    chip = program(DENSE, None, target="loihi2")
    with pytest.raises(TargetError, match="it cannot learn"):
        check_learning(chip, digits)


def test_answers_at_the_end_of_their_box_leave_nothing_to_compare(digits: Split) -> None:
    graph = program(DENSE).graph
    low = {"bias/output": np.full_like(graph.arrays["bias/output"], -60.0)}
    held = Program("reference", graph.with_arrays(arrays={**graph.arrays, **low}))
    with pytest.raises(CheckFailed, match="the exact gradient is zero"):
        check_learning(held, digits)
    assert 0 < LEAST_COSINE < 1


@pytest.mark.parametrize(
    "note",
    [
        {"samples": "4 0"},
        {"samples": "f()"},
        {"samples": "1.5"},
        {"samples": "'a'"},
        {"samples": "["},
        {"samples": "-1"},
        {"later": "1"},
    ],
    ids=str,
)
def test_notes_of_learning_that_are_of_no_plan_are_told(
    digits: Split, note: dict[str, str]
) -> None:
    notes = {f"learnt.{key}": value for key, value in note.items()}
    odd = replace(program(DENSE, steps=4), provenance=notes)
    with pytest.raises(ProgramError, match=r"^program 'digits_dense': its notes 'learnt.*compile"):
        check_learning(odd, digits)


def test_an_order_of_samples_has_a_seed_of_0_or_more() -> None:
    with pytest.raises(ConfigError, match=r"^learning, seed: -1 is below 0; give 0 or more"):
        Plan(seed=-1)


def test_a_program_all_of_whose_synapses_are_stuck_is_told_so(digits: Split) -> None:
    some = program(DENSE, steps=4)
    graph, masks = some.graph, {}
    for record in graph.plasticity:
        masks[f"mask/{record.weight}"] = np.zeros(graph.arrays[record.weight].shape)
    records = tuple(replace(r, mask=f"mask/{r.weight}") for r in graph.plasticity)
    graph = replace(graph, plasticity=records, arrays={**graph.arrays, **masks})
    with pytest.raises(CheckFailed, match="every synapse that would learn is stuck"):
        check_learning(replace(some, graph=graph), digits)
