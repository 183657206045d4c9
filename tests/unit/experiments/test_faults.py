"""Claims about damage: exactly what was asked for breaks, and it stays broken while learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compilers
import targets
from compilers.passes.validate import validate
from compilers.program import Program
from ep_neuro.errors import ConfigError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network
from targets.experiments.onchip.faults import damage
from targets.experiments.onchip.plastic import plastic


def small(bits: int | None, code: str = "graded") -> Program:
    """The dense digits network, ready to learn in a few steps."""
    program = compilers.compile(Network(zoo("digits_dense"), 2), code=code, bits=bits, steps=8)
    return plastic(program, rate=0.5)


@settings(max_examples=8)
@given(st.sampled_from([None, 8, 3]), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 1000))
def test_the_share_that_was_asked_for_breaks(
    bits: int | None, stuck: float, dead: float, seed: int
) -> None:
    program = small(bits)
    broken = damage(program, stuck=stuck, dead=dead, seed=seed)
    validate(broken.program.graph)
    for weight, (mask, values) in broken.stuck.items():
        before, after = (p.graph.arrays[weight] for p in (program, broken.program))
        assert mask.sum() == round(stuck * mask.size)
        np.testing.assert_array_equal(after[mask], values[mask])
        np.testing.assert_array_equal(after[~mask], before[~mask])
        assert np.abs(after).max() <= np.abs(before).max()
    assert broken.dead.keys() == {"h1"}
    assert broken.dead["h1"].sum() == round(dead * 128)


@pytest.mark.parametrize("code", ["graded", "sigma-delta", "spike"])
@pytest.mark.parametrize("bits", [None, 8])
def test_a_dead_neuron_never_sends_and_the_others_do(code: str, bits: int | None) -> None:
    broken = damage(small(bits, code), dead=0.25)
    x = np.random.default_rng(0).random((20, 1, 8, 8))
    with targets.open(broken.program) as session:
        sent = session.settle(x, probes=["h1.message"]).free.probes["h1.message"] != 0
    active = sent.any((0, 1))
    assert not active[broken.dead["h1"]].any()
    assert active[~broken.dead["h1"]].mean() > 0.25


@pytest.mark.parametrize("bits", [None, 4])
def test_learning_moves_no_stuck_synapse_and_wakes_no_dead_neuron(bits: int | None) -> None:
    broken = damage(small(bits), stuck=0.3, dead=0.1, at="zero")
    generator = np.random.default_rng(1)
    x, y = generator.random((30, 1, 8, 8)), generator.integers(0, 10, 30)
    with targets.learner(broken.program) as session:
        session.learn(x, y, batch=3)
        learnt = session.learnt()
        sent = session.settle(x, probes=["h1.message"]).free.probes["h1.message"]
    for weight, (mask, values) in broken.stuck.items():
        after = learnt.graph.arrays[weight]
        np.testing.assert_array_equal(after[mask], values[mask])
        assert (after != broken.program.graph.arrays[weight])[~mask].any()
    assert not sent[..., broken.dead["h1"]].any()


@pytest.mark.parametrize("zoo_name", ["digits_dense", "digits_residual"])
def test_no_bias_of_a_dead_neuron_moves_the_living_of_its_channel(zoo_name: str) -> None:
    """A membrane of fine messages does not hold it: a clip would lift all that share the bias."""
    network = Network(zoo(zoo_name), 0)
    how: dict[str, Any] = dict(bits=8, steps=2, learn="contrastive", state_frac=20)
    broken = damage(compilers.compile(network, **how), dead=0.3).program
    with targets.learner(broken) as session:
        result = session.learn(np.ones((1, 1, 8, 8)), np.array([0]))
        learnt = session.learnt().graph
    assert result.clipped == 0
    for p in learnt.neurons:
        moved = learnt.arrays[str(p.bias)] - broken.graph.arrays[str(p.bias)].astype(np.int64)
        assert np.abs(moved).max() < 0.1 * (1 << 20)


def test_the_same_seed_breaks_the_same() -> None:
    first, same, other = (damage(small(8), stuck=0.1, dead=0.1, seed=s) for s in (1, 1, 2))
    assert first.program.digest() == same.program.digest() != other.program.digest()


@pytest.mark.parametrize("bad", [{"stuck": 1.5}, {"dead": -0.1}, {"at": "nowhere"}])
def test_impossible_damage_is_refused_in_one_line(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="damage, ") as raised:
        damage(small(None), **bad)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
